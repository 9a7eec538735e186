//! Accepting connections: one request each, its head checked before the HTTP library reads it.

use std::{convert::Infallible, io, net::TcpListener, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    Error,
    forward::{Allowed, Forwarder},
    head::{self, Refusal},
    log::{EgressLog, Outcome},
};

/// A served proxy. Dropping it closes the listener and every connection.
#[must_use = "the proxy stops when the handle is dropped"]
pub struct ServeHandle {
    task: JoinHandle<()>,
    forwarder: Arc<Forwarder>,
}

impl ServeHandle {
    /// What went through and what was refused up to now.
    pub fn log(&self) -> EgressLog {
        self.forwarder.recorder.snapshot()
    }
}

impl Drop for ServeHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for ServeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeHandle").finish_non_exhaustive()
    }
}

pub(super) fn start(forwarder: Arc<Forwarder>, listener: TcpListener) -> Result<ServeHandle, Error> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
    listener.set_nonblocking(true).map_err(Error::Listener)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Listener)?;
    let task = runtime.spawn(accept(Arc::clone(&forwarder), listener));
    Ok(ServeHandle { task, forwarder })
}

async fn accept(forwarder: Arc<Forwarder>, listener: tokio::net::TcpListener) {
    let max = forwarder.proxy.limits.connections;
    let places = Arc::new(Semaphore::new(max));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a container's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            turn_away(&forwarder, &stream, max);
            continue;
        };
        let forwarder = Arc::clone(&forwarder);
        connections.spawn(async move {
            if let Err(error) = connection(&forwarder, stream).await {
                tracing::debug!(%error, "a container's connection ended early");
            }
            drop(place);
        });
    }
}

/// Answers without waiting, so that connections over the limit cost nothing.
fn turn_away(forwarder: &Forwarder, stream: &TcpStream, max: usize) {
    let refusal = Refusal::TooManyConnections(max);
    forwarder.recorder.request("", "", Outcome::Refused { reason: refusal.to_string() });
    if let Err(error) = stream.try_write(refusal_bytes(&refusal).as_bytes()) {
        tracing::debug!(%error, "a refusal could not be written");
    }
}

async fn connection(forwarder: &Arc<Forwarder>, mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(4096);
    let read = timeout(forwarder.proxy.limits.head, read_head(&mut stream, &mut bytes)).await;
    let checked = match read {
        Ok(Ok(Some(end))) => decide(forwarder, &bytes[..end]),
        // Nothing was sent: a probe of whether the port answers.
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(HeadError::Io(error))) => return Err(error),
        Ok(Err(HeadError::Refused(refusal))) => Err(refusal),
        Err(_) => Err(Refusal::HeadTooSlow),
    };
    match checked {
        Ok(allowed) => serve_one(forwarder, allowed, bytes, stream).await,
        Err(refusal) => {
            let (method, path) = head::first_words(&bytes);
            forwarder.recorder.request(&method, &path, Outcome::Refused { reason: refusal.to_string() });
            refuse(stream, &refusal).await
        }
    }
}

fn decide(forwarder: &Forwarder, bytes: &[u8]) -> Result<(Allowed, String), Refusal> {
    let head = head::check(bytes)?;
    Ok((forwarder.decide(&head)?, head.target.to_owned()))
}

enum HeadError {
    Io(io::Error),
    Refused(Refusal),
}

/// Reads until the head is complete; `None` when the other side sent nothing at all.
async fn read_head(stream: &mut TcpStream, bytes: &mut BytesMut) -> Result<Option<usize>, HeadError> {
    loop {
        if let Some(end) = head::end(bytes) {
            return if end > head::MAX_HEAD {
                Err(HeadError::Refused(Refusal::HeadTooLarge))
            } else {
                Ok(Some(end))
            };
        }
        if bytes.len() >= head::MAX_HEAD {
            return Err(HeadError::Refused(Refusal::HeadTooLarge));
        }
        match stream.read_buf(bytes).await.map_err(HeadError::Io)? {
            0 if bytes.is_empty() => return Ok(None),
            0 => return Err(HeadError::Refused(Refusal::Malformed("it does not end"))),
            _ => {}
        }
    }
}

/// Lets the HTTP library serve exactly one request, whose head is the one that was decided about.
async fn serve_one(
    forwarder: &Arc<Forwarder>,
    (allowed, path): (Allowed, String),
    read_already: BytesMut,
    stream: TcpStream,
) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let stream = tokio::io::join(io::Cursor::new(read_already).chain(read), write);
    let (allowed, path) = (&allowed, path.as_str());
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
        let (parts, body) = request.into_parts();
        Ok::<_, Infallible>(forwarder.forward(allowed, path, &parts.headers, body).await)
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    match timeout(forwarder.proxy.limits.total * 2, serving).await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// Answers a request whose body was not read, and reads a little of what still comes so that the answer arrives.
async fn refuse(mut stream: TcpStream, refusal: &Refusal) -> io::Result<()> {
    stream.write_all(refusal_bytes(refusal).as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = (&mut stream).take(1 << 20);
    let mut nowhere = tokio::io::sink();
    match timeout(Duration::from_secs(2), tokio::io::copy(&mut rest, &mut nowhere)).await {
        Ok(drained) => drained.map(drop),
        Err(_) => Ok(()),
    }
}

fn refusal_bytes(refusal: &Refusal) -> String {
    let body = serde_json::json!({ "msg": refusal.to_string() }).to_string();
    let status = StatusCode::FORBIDDEN;
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
