//! The HTTP side of a step's network: connections of the step become exchanges with upstream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use errors::chain;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use url::Url;

use super::accept;
use super::authority::Authority;
use super::body::{BoxError, Broken, Pending, Recording, RequestBody, Sent, SentState};
use super::http2::{self, Wire};
use super::names::NameTable;
use super::replayed as stored;
use super::request::{self, Endpoint, Refusal, Scheme};
use crate::host_name::{BadName, HostName};
use crate::step::{IncidentKind, StepRecorder};
use crate::store::{BodyWriter, Replay, StoreWriter};
use crate::upstream::Clients;
use percent_encoding::percent_decode_str;

/// The most connections of a step that are served at once.
const MAX_CONNECTIONS: usize = 512;

/// How long the step's side of a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// How long a connection may be idle, or take to send a request's head.
const IDLE: Duration = Duration::from_secs(600);

/// The most headers of a request, and the most bytes of its head.
const MAX_HEADERS: usize = 128;
pub(crate) const MAX_HEAD: usize = 64 << 10;

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// Serves one step's connections.
pub(crate) struct Gateway {
    pub names: Arc<NameTable>,
    pub authority: Arc<Authority>,
    pub recorder: Arc<StepRecorder>,
    pub source: Source,
    pub max_body: u64,
}

/// The source of responses.
#[derive(Clone)]
pub(crate) enum Source {
    /// The real servers; responses are hashed, and stored if there is a writer.
    Upstream(Clients, Option<StoreWriter>),
    /// A record. There is no client then, so that nothing can be reached.
    Record(Arc<Replay>),
}

impl Gateway {
    /// Accepts connections until the task is aborted; they end with it.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, endpoint: Endpoint) {
        accept::each(listener, MAX_CONNECTIONS, |stream| {
            let this = self.clone();
            async move { this.connection(stream, endpoint).await }
        })
        .await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, endpoint: Endpoint) {
        let _connected = self.recorder.connect();
        let Ok(address) = stream.local_addr().map(|a| a.ip().to_canonical()) else {
            return;
        };
        let Some(name) = self.names.name_of(address) else {
            let detail = "only names are captured, and DNS gave this address to none";
            let target = address.to_string();
            self.recorder.incident(IncidentKind::UnknownAddress, &target, detail, 0);
            return;
        };
        // Small responses must not wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        match endpoint.scheme {
            Scheme::Http => self.http(stream, name, endpoint).await,
            Scheme::Https => match tokio::time::timeout(HANDSHAKE, self.handshake(stream, &name)).await {
                Ok(Ok((stream, Wire::Http1))) => self.http(stream, name, endpoint).await,
                Ok(Ok((stream, Wire::Http2))) => http2::serve(self, stream, name, endpoint).await,
                Ok(Err((kind, detail))) => self.recorder.incident(kind, name.as_str(), &detail, 0),
                Err(_) => {
                    let detail = "the step was too slow";
                    self.recorder.incident(IncidentKind::ClientTls, name.as_str(), detail, 0);
                }
            },
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        name: &HostName,
    ) -> Result<(tokio_rustls::server::TlsStream<TcpStream>, Wire), (IncidentKind, String)> {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = acceptor.await.map_err(|error| (IncidentKind::ClientTls, error.to_string()))?;
        check_sni(start.client_hello().server_name(), name)?;
        let failed = |error: &dyn std::error::Error| (IncidentKind::ClientTls, error.to_string());
        let wire = Wire::of(&start.client_hello());
        let config = self.authority.config_for(name, wire).map_err(|error| failed(&error))?;
        let stream = start.into_stream(config).await.map_err(|error| failed(&error))?;
        Ok((stream, wire))
    }

    /// Serves one connection to a name, over any transport.
    pub(crate) async fn http<S>(self: Arc<Self>, stream: S, name: HostName, endpoint: Endpoint)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let this = self.clone();
        let asked = name.clone();
        let service = service_fn(move |request| {
            let (this, name) = (this.clone(), asked.clone());
            async move { Ok::<_, Infallible>(this.exchange(request, &name, endpoint).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            // The response has upstream's date or none.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        match served {
            Err(error) if error.is_parse_version_h2() => {
                let detail = "HTTP/2 without TLS is not spoken here: use HTTP/1.1, or TLS";
                self.recorder.incident(IncidentKind::UpgradeRefused, name.as_str(), detail, 0);
            }
            Err(error) if error.is_parse() => {
                self.recorder.incident(IncidentKind::BadRequest, name.as_str(), &chain::line(&error), 0);
            }
            _ => {}
        }
    }

    pub(crate) async fn exchange(
        &self,
        request: Request<Incoming>,
        name: &HostName,
        endpoint: Endpoint,
    ) -> Answer {
        match request::check(&request, name, endpoint) {
            Ok(url) if self.holds_secret(request.method().as_str(), &url) => {
                let refusal =
                    Refusal::new(IncidentKind::HoldsSecret, StatusCode::FORBIDDEN, "its URL or method does");
                self.refuse(request.method().as_str(), url.as_str(), refusal)
            }
            Ok(url) if self.recorder.has_room() => match &self.source {
                Source::Upstream(clients, writer) => {
                    self.forward(clients, writer.as_ref(), request, url).await
                }
                Source::Record(replay) => {
                    stored::answer(replay, &self.recorder, request, &url, self.max_body).await
                }
            },
            Ok(url) => {
                let detail = "the step's list is full";
                let refusal =
                    Refusal::new(IncidentKind::TooManyExchanges, StatusCode::SERVICE_UNAVAILABLE, detail);
                self.refuse(request.method().as_str(), url.as_str(), refusal)
            }
            Err(refusal) => {
                let target = format!("{name}{}", request.uri().path());
                self.refuse(request.method().as_str(), &target, refusal)
            }
        }
    }

    /// Both are public in the provenance.
    fn holds_secret(&self, method: &str, url: &Url) -> bool {
        let secrets = self.recorder.secrets();
        let found = |bytes: &[u8]| secrets.find(bytes).is_some();
        let url = url.as_str();
        !secrets.is_empty() && [method.as_bytes(), url.as_bytes(), &decoded(url)].into_iter().any(found)
    }

    fn refuse(&self, method: &str, target: &str, refusal: Refusal) -> Answer {
        // Percent-encoding in a URL can hide a secret in forms that no pattern covers, so the decoded URL is
        // searched.
        let target = match self.recorder.secrets().find(&decoded(target)) {
            Some(_) => format!("{method} {}", target.split(['/', '?']).nth(2).unwrap_or_default()),
            None => format!("{method} {target}"),
        };
        self.recorder.incident(refusal.kind, &target, &refusal.detail, 0);
        say(refusal.status, &format!("{}: {}", refusal.kind, refusal.detail))
    }

    async fn forward(
        &self,
        clients: &Clients,
        writer: Option<&StoreWriter>,
        request: Request<Incoming>,
        url: Url,
    ) -> Answer {
        let (parts, incoming) = request.into_parts();
        let has_body = !incoming.is_end_stream();
        let sent = SentState::new(if has_body { Sent::InFlight } else { Sent::Nothing });
        let is_http2 = parts.version == Version::HTTP_2;
        let headers = request::upstream_headers(parts.headers, parts.version);
        let asked = (parts.method.as_str(), url.as_str(), headers.clone());
        let pending = Pending::begin(&self.recorder, asked, sent.clone(), BodyWriter::new(writer));
        let mut upstream = reqwest::Request::new(parts.method, url);
        *upstream.headers_mut() = headers;
        if has_body {
            let body = RequestBody::new(incoming, self.max_body, sent, self.recorder.secrets());
            *upstream.body_mut() = Some(reqwest::Body::wrap(body));
        }
        match clients.execute(upstream, is_http2).await {
            Ok(response) => self.pass_back(response, pending, is_http2),
            Err(error) => give_up(pending, &error),
        }
    }

    fn pass_back(&self, response: reqwest::Response, mut pending: Pending, is_http2: bool) -> Answer {
        let response: Response<reqwest::Body> = response.into();
        let (mut parts, body) = response.into_parts();
        if parts.status.is_informational() {
            pending.refuse(
                IncidentKind::UpgradeRefused,
                "upstream switched protocols",
                StatusCode::BAD_GATEWAY,
            );
            return say(StatusCode::BAD_GATEWAY, "upstream switched protocols");
        }
        if body.size_hint().lower() > self.max_body {
            pending.refuse(IncidentKind::TooLarge, "as announced", StatusCode::BAD_GATEWAY);
            return say(StatusCode::BAD_GATEWAY, "the answer is larger than the limit");
        }
        request::strip_hop_by_hop(&mut parts.headers);
        if parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED {
            // Without a body the length has no meaning, and is not allowed (RFC 9110, section 8.6).
            parts.headers.remove(CONTENT_LENGTH);
        }
        pending.answered(parts.status, &parts.headers);
        if let Some(header) = pending.header_with_secret() {
            let detail = format!("its header {header} does, which is kept");
            pending.refuse(IncidentKind::HoldsSecret, &detail, StatusCode::FORBIDDEN);
            return say(StatusCode::FORBIDDEN, &detail);
        }
        let mut answer = Response::new(Recording::new(body, pending, self.max_body, is_http2).boxed_unsync());
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        answer
    }
}

/// With TLS, SNI must be present and have the name that DNS was asked for.
fn check_sni(sni: Option<&str>, name: &HostName) -> Result<(), (IncidentKind, String)> {
    let sni =
        sni.ok_or_else(|| (IncidentKind::NamesDisagree, "the handshake names no host (SNI)".to_owned()))?;
    match HostName::parse(sni) {
        Ok(said) if said == *name => Ok(()),
        Ok(said) => Err((IncidentKind::NamesDisagree, format!("DNS says {name}, SNI says {said}"))),
        Err(BadName::Address) => Err((IncidentKind::NameIsAddress, format!("SNI says {sni}"))),
        Err(_) => Err((IncidentKind::BadName, format!("SNI says {sni}"))),
    }
}

fn give_up(pending: Pending, error: &reqwest::Error) -> Answer {
    let detail = chain::line(error);
    let kind = match broken_body(error) {
        Some(kind) => kind,
        None if error.is_timeout() && !error.is_connect() => IncidentKind::Stalled,
        None => IncidentKind::UpstreamFailed,
    };
    let status = match kind {
        IncidentKind::RequestTruncated => StatusCode::BAD_REQUEST,
        IncidentKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        IncidentKind::Stalled => StatusCode::GATEWAY_TIMEOUT,
        IncidentKind::HoldsSecret => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_GATEWAY,
    };
    let text = format!("{kind}: {detail}");
    pending.refuse(kind, &detail, status);
    say(status, &text)
}

/// The failure may come from the request's own body.
fn broken_body(error: &reqwest::Error) -> Option<IncidentKind> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Broken(kind)) = cause.downcast_ref::<Broken>() {
            return Some(*kind);
        }
        source = cause.source();
    }
    None
}

/// An error response of the recorder, after which the connection is closed.
pub(crate) fn say(status: StatusCode, text: &str) -> Answer {
    let text = Full::new(Bytes::from(format!("countersign: {text}\n")));
    let mut answer = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Decodes percent-encoding; everything else stays.
fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}
