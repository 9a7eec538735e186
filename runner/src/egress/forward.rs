//! One checked request to the one server, and its answer back.

use std::sync::{Arc, OnceLock};

use attestations::policy::Method;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;
use url::Url;

use super::{
    Proxy, Upstream,
    body::{Bounded, Bounds, CutOff, Direction, Reason},
    head::{DeclaredBody, Head, Refusal},
    log::{Outcome, Recorder, Spent},
    target::Target,
};

/// Request headers that are passed on; everything else could carry data or credentials past the rules.
const REQUEST_HEADERS: [header::HeaderName; 2] = [header::ACCEPT, header::CONTENT_TYPE];
/// Response headers that are passed back.
const RESPONSE_HEADERS: [header::HeaderName; 3] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::RETRY_AFTER];

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, CutOff>>;

pub(super) struct Forwarder {
    pub(super) proxy: Proxy,
    pub(super) recorder: Arc<Recorder>,
    /// Built with the first allowed request: reading the trusted roots takes time that most runs never need.
    client: OnceLock<reqwest::Client>,
}

/// A request that the rules allow, and where it goes.
#[derive(Debug)]
pub(super) struct Allowed {
    method: Method,
    url: Url,
}

enum Failure {
    Refused(Refusal),
    Server(StatusCode, String),
}

impl Forwarder {
    pub(super) fn new(proxy: Proxy) -> Forwarder {
        let recorder = Arc::new(Recorder::new(proxy.budget));
        Forwarder { proxy, recorder, client: OnceLock::new() }
    }

    /// Decides about a head, before anything of the body is read.
    pub(super) fn decide(&self, head: &Head<'_>) -> Result<Allowed, Refusal> {
        let target = Target::parse(head.target)?;
        let method = self.proxy.rules.permit(head.method, &target)?;
        if let Some(ceiling) = &self.proxy.ceiling {
            let beyond = |refusal| Refusal::BeyondCeiling(Box::new(refusal));
            ceiling.permit(head.method, &target).map_err(beyond)?;
        }
        let Upstream::Url(base) = &self.proxy.upstream else { return Err(Refusal::NoUpstream) };
        match head.body {
            DeclaredBody::Empty => {}
            _ if !method.carries_body() => return Err(Refusal::UnexpectedBody),
            DeclaredBody::Length(length) if length > self.proxy.limits.request_body => {
                return Err(Refusal::RequestTooLarge(self.proxy.limits.request_body));
            }
            DeclaredBody::Length(length) => self.recorder.has(Spent::BytesOut, length)?,
            DeclaredBody::Chunked => {}
        }
        // What is written in targets leaves the node, too.
        self.recorder.spend(Spent::BytesOut, head.target.len() as u64)?;
        self.recorder.spend(Spent::Requests, 1)?;
        Ok(Allowed { method, url: join(base, &target) })
    }

    /// Sends an allowed request and records what became of it.
    pub(super) async fn forward(
        &self,
        allowed: &Allowed,
        path: &str,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Answer {
        let (answer, outcome) = match self.exchange(allowed, headers, body).await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                (answer, Outcome::Passed { status })
            }
            Err(Failure::Refused(refusal)) => {
                let reason = refusal.to_string();
                (message(StatusCode::FORBIDDEN, &reason), Outcome::Refused { reason })
            }
            Err(Failure::Server(status, reason)) => (message(status, &reason), Outcome::Failed { reason }),
        };
        self.recorder.request(allowed.method.as_str(), path, outcome);
        answer
    }

    async fn exchange(
        &self,
        allowed: &Allowed,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.proxy.limits.total;
        let reason = Reason::default();
        let request = self.request(allowed, headers, body, deadline, &reason)?;
        let answer = match tokio::time::timeout_at(deadline, request.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return Err(reason.take().map_or_else(|| unreachable(&error), Failure::Refused));
            }
            Err(_) => {
                return Err(Failure::Server(
                    StatusCode::GATEWAY_TIMEOUT,
                    "the server did not answer in time".into(),
                ));
            }
        };
        self.answer(answer, deadline)
    }

    fn request(
        &self,
        allowed: &Allowed,
        headers: &HeaderMap,
        body: Incoming,
        deadline: Instant,
        reason: &Reason,
    ) -> Result<reqwest::RequestBuilder, Failure> {
        let method = http::Method::from_bytes(allowed.method.as_str().as_bytes())
            .map_err(|_| Failure::Refused(Refusal::MethodNotListed))?;
        let mut request = self.client(&allowed.url)?.request(method, allowed.url.clone());
        for name in &REQUEST_HEADERS {
            if let Some(value) = headers.get(name).filter(|value| value.len() <= 256) {
                let spent = self.recorder.spend(Spent::BytesOut, value.len() as u64);
                spent.map_err(Failure::Refused)?;
                request = request.header(name, value);
            }
        }
        if let Some(authorization) = &self.proxy.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_end_stream() {
            return Ok(request);
        }
        let limits = &self.proxy.limits;
        let bounds =
            Bounds { direction: Direction::ToServer, max: limits.request_body, idle: limits.idle, deadline };
        let bounded = Bounded::new(body, bounds, Arc::clone(&self.recorder), reason.clone());
        Ok(request.body(reqwest::Body::wrap(bounded)))
    }

    fn answer(&self, answer: reqwest::Response, deadline: Instant) -> Result<Answer, Failure> {
        let limits = &self.proxy.limits;
        let status = answer.status();
        if status.is_redirection() || status.is_informational() {
            let reason = format!("the server answered {}, and redirects are not followed", status.as_u16());
            return Err(Failure::Server(StatusCode::BAD_GATEWAY, reason));
        }
        if answer.content_length().is_some_and(|length| length > limits.response_body) {
            return Err(Failure::Refused(Refusal::ResponseTooLarge(limits.response_body)));
        }
        if let Some(length) = answer.content_length() {
            self.recorder.has(Spent::BytesIn, length).map_err(Failure::Refused)?;
        }
        let mut builder = Response::builder().status(status);
        for name in &RESPONSE_HEADERS {
            if let Some(value) = answer.headers().get(name) {
                builder = builder.header(name, value);
            }
        }
        let bounds = Bounds {
            direction: Direction::ToContainer,
            max: limits.response_body,
            idle: limits.idle,
            deadline,
        };
        let body = reqwest::Body::from(answer);
        let body = Bounded::new(body, bounds, Arc::clone(&self.recorder), Reason::default());
        let broken = |error: http::Error| Failure::Server(StatusCode::BAD_GATEWAY, error.to_string());
        builder.body(body.boxed_unsync()).map_err(broken)
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .user_agent(concat!("countersign-runner/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.proxy.limits.idle);
        if url.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| unreachable(&error))?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// An answer of the proxy's own.
pub(super) fn message(status: StatusCode, text: &str) -> Answer {
    let body = serde_json::json!({ "msg": text }).to_string();
    let mut answer =
        Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The base address plus exactly the parts that were checked, never the container's own text of them.
fn join(base: &Url, target: &Target<'_>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), target.segments.join("/")));
    if !target.query.is_empty() {
        let pairs: Vec<String> = target.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        url.set_query(Some(&pairs.join("&")));
    }
    url
}

/// The container learns that the server is out of reach, not the addresses and causes inside the hospital's network.
fn unreachable(error: &reqwest::Error) -> Failure {
    tracing::warn!(error = %error, "the server could not be reached for a container");
    Failure::Server(StatusCode::BAD_GATEWAY, "the server could not be reached".to_owned())
}
