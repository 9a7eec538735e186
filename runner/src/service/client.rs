//! A small client of the interface, over its Unix socket.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::queue::MAX_RESULT;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket, or it may not be opened.
    #[error("no server answers on {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The server refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code for programs.
        code: String,
        /// What is wrong.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// What came back is not an answer.
    #[error("the server's answer cannot be used: {0}")]
    Broken(String),
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

#[derive(Deserialize)]
struct Told {
    code: String,
    message: String,
    remedy: String,
}

impl Client {
    /// A client of the server on this socket; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into() }
    }

    /// Gets a path, inside a tokio runtime.
    ///
    /// # Errors
    /// When the server is out of reach or refuses.
    pub async fn get(&self, path: &str) -> Result<Bytes, Error> {
        self.call(Method::GET, path, None).await
    }

    /// Posts JSON to a path, or nothing.
    ///
    /// # Errors
    /// When the server is out of reach or refuses.
    pub async fn post(&self, path: &str, body: Option<&serde_json::Value>) -> Result<Bytes, Error> {
        self.call(Method::POST, path, body).await
    }

    /// Deletes what is at a path.
    ///
    /// # Errors
    /// When the server is out of reach or refuses.
    pub async fn delete(&self, path: &str) -> Result<Bytes, Error> {
        self.call(Method::DELETE, path, None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Bytes, Error> {
        let exchange = self.exchange(method, path, body.map(ToString::to_string).unwrap_or_default());
        let (status, bytes) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| Error::Broken("it did not come in time".to_owned()))??;
        if status.is_success() {
            return Ok(bytes);
        }
        let told: Told = serde_json::from_slice(&bytes)
            .map_err(|_| Error::Broken(format!("it is status {status} without a reason")))?;
        let Told { code, message, remedy } = told;
        Err(Error::Refused { status: status.as_u16(), code, message, remedy })
    }

    async fn exchange(&self, method: Method, path: &str, body: String) -> Result<(StatusCode, Bytes), Error> {
        let unreachable = |source| Error::Unreachable { socket: self.socket.clone(), source };
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let limited = Limited::new(response.into_body(), MAX_RESULT + (1 << 20));
            let bytes = limited.collect().await.map_err(|error| Error::Broken(error.to_string()))?.to_bytes();
            Ok((status, bytes))
        };
        let mut answered = std::pin::pin!(answered);
        tokio::select! {
            answer = &mut answered => answer,
            // A server that refuses a large body may close before it has read it; its answer still counts.
            _ = connection => answered.await,
        }
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Broken(error.to_string())
}
