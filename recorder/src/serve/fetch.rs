//! Requests of the builder itself on behalf of a step, as for ADD of a URL. They go through the same gateway as those
//! of the step's programs, over a pipe within this process instead of a socket, so that they are recorded and
//! replayed in the same form.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use errors::chain;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use url::Url;

use super::gateway::Gateway;
use super::request::{Endpoint, Scheme};
use crate::host_name::HostName;
use crate::{Planted, StepRecord};

/// As many redirects as other clients follow.
const MAX_REDIRECTS: usize = 10;
/// The bytes buffered between the gateway and the fetcher.
const PIPE: usize = 1 << 16;
/// The interval of checks for cancellation.
const GLANCE: Duration = Duration::from_millis(50);

/// Why a URL could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A URL that is not served, such as one with an IP address or another port.
    #[error("{url} cannot be fetched: {why}")]
    Target {
        /// The URL.
        url: Url,
        /// The reason.
        why: String,
    },
    /// Too many redirects, or a redirect to a URL that cannot be fetched.
    #[error("{from} redirects {why}")]
    Redirect {
        /// The redirecting URL.
        from: Url,
        /// The target, or the number of redirects.
        why: String,
    },
    /// A status other than 200.
    #[error("{url} was answered with {status}")]
    Status {
        /// The URL, after redirects.
        url: Url,
        /// The status.
        status: StatusCode,
    },
    /// The response was cut off.
    #[error("{url} could not be fetched: {why}")]
    Broken {
        /// The URL, after redirects.
        url: Url,
        /// The cause.
        why: String,
    },
    /// The bytes could not be written.
    #[error("what {url} answers could not be written")]
    Write {
        /// The URL, after redirects.
        url: Url,
        /// The system's error.
        source: io::Error,
    },
    /// The user cancelled.
    #[error("it was interrupted")]
    Cancelled,
}

/// A client for one step.
pub struct Fetcher {
    planted: Planted,
    gateway: Arc<Gateway>,
    endpoints: Vec<Endpoint>,
}

impl Fetcher {
    pub(crate) fn new(planted: Planted, gateway: Arc<Gateway>, endpoints: Vec<Endpoint>) -> Fetcher {
        Fetcher { planted, gateway, endpoints }
    }

    /// Passes the response to a URL to `take`, piece by piece as the server sends it, without decoding. Redirects are
    /// followed.
    ///
    /// Blocks, so it must not be called from async code. `stop` is polled for cancellation.
    ///
    /// # Errors
    /// See [`FetchError`]; `take` may have received a part then.
    pub fn get(
        &self,
        url: &Url,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), FetchError> {
        let runtime = &self.planted.runtime;
        runtime.block_on(async {
            tokio::select! {
                done = self.follow(url.clone(), take) => done,
                () = until(stop) => Err(FetchError::Cancelled),
            }
        })
    }

    /// Ends the step's requests and returns their record. Blocks as well.
    pub fn finish(self) -> StepRecord {
        self.planted.finish()
    }

    async fn follow(
        &self,
        mut url: Url,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), FetchError> {
        for _ in 0..=MAX_REDIRECTS {
            // Dropping it ends the tasks of this exchange.
            let mut tasks = JoinSet::new();
            let answer = self.ask(&url, &mut tasks).await?;
            let next = match answer.status() {
                StatusCode::OK => return read(answer, &url, take).await,
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => redirected(&url, &answer)?,
                status => return Err(FetchError::Status { url, status }),
            };
            // The body is read to the end, so that it is recorded completely.
            read(answer, &url, &mut |_| Ok(())).await?;
            url = next;
        }
        Err(FetchError::Redirect { from: url, why: format!("once more, after {MAX_REDIRECTS} times") })
    }

    async fn ask(&self, url: &Url, tasks: &mut JoinSet<()>) -> Result<Response<Incoming>, FetchError> {
        let (name, endpoint) = self.target(url)?;
        let broken = |error: hyper::Error| FetchError::Broken { url: url.clone(), why: chain::line(&error) };
        let host = match endpoint.port == url_port(endpoint.scheme) {
            true => name.to_string(),
            false => format!("{name}:{}", endpoint.port),
        };
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let request = Request::get(path)
            .header(HOST, host)
            // Without a version: a response may depend on it, and a later version may replay it.
            .header(USER_AGENT, "countersign-builder")
            .header(ACCEPT, "*/*")
            .header(ACCEPT_ENCODING, "identity")
            .body(Empty::<Bytes>::new())
            .map_err(|error| FetchError::Target { url: url.clone(), why: error.to_string() })?;
        let (ours, theirs) = tokio::io::duplex(PIPE);
        tasks.spawn(self.gateway.clone().http(theirs, name, endpoint));
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.map_err(broken)?;
        // An error of the connection shows in the response.
        tasks.spawn(async { drop(connection.await) });
        sender.send_request(request).await.map_err(broken)
    }

    /// The name and the endpoint of a URL.
    fn target(&self, url: &Url) -> Result<(HostName, Endpoint), FetchError> {
        let refuse = |why: String| FetchError::Target { url: url.clone(), why };
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(refuse(format!("{other} is not recorded"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(
                "it holds a user or password, which everybody could read in the provenance".into(),
            ));
        }
        let text = url.host_str().unwrap_or_default();
        let name = HostName::parse(text).map_err(|why| refuse(format!("its host {why}")))?;
        let port = url.port().unwrap_or(url_port(scheme));
        let endpoint =
            self.endpoints.iter().find(|endpoint| endpoint.port == port && endpoint.scheme == scheme);
        let endpoint = endpoint.ok_or_else(|| {
            refuse(format!("port {port} is not captured for {}: name it in countersign.toml", url.scheme()))
        })?;
        Ok((name, *endpoint))
    }
}

fn url_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => Endpoint::HTTP.port,
        Scheme::Https => Endpoint::HTTPS.port,
    }
}

fn redirected(from: &Url, answer: &Response<Incoming>) -> Result<Url, FetchError> {
    let refuse = |why: String| FetchError::Redirect { from: from.clone(), why };
    let location = answer.headers().get(LOCATION).ok_or_else(|| refuse("to nowhere".to_owned()))?;
    let text =
        std::str::from_utf8(location.as_bytes()).map_err(|_| refuse("to what is no URL".to_owned()))?;
    let mut url = from.join(text).map_err(|cause| refuse(format!("to what is no URL: {cause}")))?;
    url.set_fragment(None);
    match (from.scheme(), url.scheme()) {
        ("https", "http") => {
            Err(refuse(format!("from https to {url}, which anyone on the network could change")))
        }
        (_, "http" | "https") => Ok(url),
        (_, other) => Err(refuse(format!("to {other}, which is not recorded"))),
    }
}

async fn read(
    answer: Response<Incoming>,
    url: &Url,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), FetchError> {
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| FetchError::Broken { url: url.clone(), why: chain::line(&error) })?;
        if let Ok(data) = frame.into_data() {
            take(&data).map_err(|source| FetchError::Write { url: url.clone(), source })?;
        }
    }
    Ok(())
}

async fn until(stop: &dyn Fn() -> bool) {
    while !stop() {
        tokio::time::sleep(GLANCE).await;
    }
}
