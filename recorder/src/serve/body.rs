//! Bodies that are hashed while they are forwarded, frame by frame.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use attestations::Digest;
use bytes::Bytes;
use errors::chain;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::patterns::{PatternSearch, SecretPatterns};
use crate::step::{Complete, InFlight, IncidentKind, StepRecorder};
use crate::store as materials;
use crate::store::BodyWriter;

/// The most bytes of a response that are still fetched for the record after the step closed the connection.
const MAX_DRAIN: u64 = 256 << 20;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that did not end properly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub IncidentKind);

/// How a request's body ended.
#[derive(Clone, Copy)]
pub(crate) enum Sent {
    Nothing,
    InFlight,
    Whole(Digest),
    Broken(IncidentKind),
}

/// Shared between the request's body, which upstream's connection owns, and the record of the exchange.
#[derive(Clone)]
pub(crate) struct SentState(Arc<Mutex<Sent>>);

impl SentState {
    pub(crate) fn new(first: Sent) -> SentState {
        SentState(Arc::new(Mutex::new(first)))
    }

    pub(crate) fn get(&self) -> Sent {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, sent: Sent) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sent;
    }
}

/// A request's body on its way upstream.
pub(crate) struct RequestBody {
    inner: Incoming,
    hasher: Sha256,
    size: u64,
    max: u64,
    state: SentState,
    search: PatternSearch,
}

impl RequestBody {
    pub(crate) fn new(
        inner: Incoming,
        max: u64,
        state: SentState,
        secrets: &Arc<SecretPatterns>,
    ) -> RequestBody {
        RequestBody { inner, hasher: Sha256::new(), size: 0, max, state, search: PatternSearch::new(secrets) }
    }

    fn end(&mut self) {
        if matches!(self.state.get(), Sent::InFlight) {
            self.state.set(Sent::Whole(digest_of(&mut self.hasher)));
        }
    }

    fn fail(&mut self, kind: IncidentKind) -> Broken {
        self.state.set(Sent::Broken(kind));
        Broken(kind)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let data = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => {
                    self.end();
                    return Poll::Ready(None);
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(IncidentKind::RequestTruncated)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
            };
            self.size += data.len() as u64;
            if self.size > self.max {
                return Poll::Ready(Some(Err(self.fail(IncidentKind::TooLarge))));
            }
            if self.search.take(&data).is_some() {
                return Poll::Ready(Some(Err(self.fail(IncidentKind::HoldsSecret))));
            }
            self.hasher.update(&data);
            if self.inner.is_end_stream() {
                self.end();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if matches!(self.state.get(), Sent::InFlight) {
            self.state.set(Sent::Broken(IncidentKind::RequestTruncated));
        }
    }
}

/// A running exchange. It ends in either `complete` or `fail`; if it is dropped before, it becomes an incident.
pub(crate) struct Pending {
    pub recorder: Arc<StepRecorder>,
    order: usize,
    method: String,
    url: String,
    asked: HeaderMap,
    request_headers: Vec<(String, String)>,
    response_headers: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
    status: u16,
    sent: SentState,
    body_writer: Option<BodyWriter>,
    search: PatternSearch,
    flight: Option<InFlight>,
}

impl Pending {
    /// `asked` are the headers that are sent upstream.
    pub(crate) fn begin(
        recorder: &Arc<StepRecorder>,
        (method, url, asked): (&str, &str, HeaderMap),
        sent: SentState,
        body_writer: BodyWriter,
    ) -> Pending {
        Pending {
            recorder: recorder.clone(),
            order: recorder.order(),
            method: method.to_owned(),
            url: url.to_owned(),
            asked,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            trailers: Vec::new(),
            status: 0,
            sent,
            body_writer: Some(body_writer),
            search: PatternSearch::new(recorder.secrets()),
            flight: Some(recorder.begin()),
        }
    }

    /// Notes upstream's status and headers, which are forwarded.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = status.as_u16();
        self.request_headers = materials::selecting(&self.asked, headers);
        self.response_headers = materials::listed(headers);
    }

    /// The name of a header or trailer that would be recorded and contains a secret.
    pub(crate) fn header_with_secret(&self) -> Option<String> {
        let secrets = self.recorder.secrets();
        let holds = |(name, value): &&(String, String)| {
            let bytes = materials::bytes_of(value).unwrap_or_default();
            secrets.find(&bytes).or_else(|| secrets.find(name.as_bytes())).is_some()
        };
        let kept = self.request_headers.iter().chain(&self.response_headers).chain(&self.trailers);
        kept.filter(|_| !secrets.is_empty()).find(holds).map(|(name, _)| secrets.redacted(name))
    }

    /// The number of response bytes so far.
    fn size(&self) -> u64 {
        self.body_writer.as_ref().map_or(0, BodyWriter::size)
    }

    /// Adds response bytes; an error says why the exchange cannot be recorded.
    fn update(&mut self, data: &[u8]) -> Result<(), (IncidentKind, String)> {
        if self.search.take(data).is_some() {
            return Err((IncidentKind::HoldsSecret, "the answer does".to_owned()));
        }
        let taken = self.body_writer.as_mut().map_or(Ok(()), |body_writer| body_writer.take(data));
        taken.map_err(|error| (IncidentKind::NotKept, chain::line(&error)))
    }

    pub(crate) fn complete(mut self) {
        let request_body = match self.sent.get() {
            Sent::Nothing => None,
            Sent::Whole(digest) => Some(digest),
            Sent::InFlight => {
                return self.fail(IncidentKind::RequestTruncated, "answered before the request was sent");
            }
            Sent::Broken(kind) => return self.fail(kind, "the request's body"),
        };
        if let Some(trailer) = self.header_with_secret() {
            return self
                .fail(IncidentKind::HoldsSecret, &format!("its trailer {trailer} does, which is kept"));
        }
        let size = self.size();
        let body = match self.body_writer.take().map(BodyWriter::finish) {
            Some(Ok(digest)) => digest,
            Some(Err(error)) => return self.report(IncidentKind::NotKept, &chain::line(&error), size),
            None => return,
        };
        let request = materials::RecordedRequest {
            method: std::mem::take(&mut self.method),
            url: std::mem::take(&mut self.url),
            headers: std::mem::take(&mut self.request_headers),
            body: request_body,
        };
        // These values give access to whoever has them, so they are kept here and not published with an image.
        let has_credentials = request.headers.iter().any(|(_, value)| materials::is_withheld(value));
        let private = has_credentials || !self.recorder.secrets().is_empty();
        let kept = |headers| if private { materials::without_credentials(headers) } else { headers };
        let headers = kept(std::mem::take(&mut self.response_headers));
        let trailers = kept(std::mem::take(&mut self.trailers));
        let response = materials::Response { status: self.status, headers, body, size, trailers };
        let exchange = materials::Exchange { request, response, private };
        self.recorder.complete(Complete { order: self.order, exchange });
        self.flight = None;
    }

    pub(crate) fn fail(mut self, kind: IncidentKind, detail: &str) {
        let size = self.size();
        self.report(kind, detail, size);
    }

    /// Fails the exchange after the step received only the first `bytes` of the response.
    fn fail_after(mut self, bytes: u64, kind: IncidentKind, detail: &str) {
        self.report(kind, detail, bytes);
    }

    /// Fails the exchange with an error response to the step. A replay gives the same one.
    pub(crate) fn refuse(self, kind: IncidentKind, detail: &str, status: StatusCode) {
        let (method, url) = (self.method.clone(), self.url.clone());
        let reason = format!("{kind}: {detail}");
        self.recorder
            .failure(self.order, materials::Failure { method, url, status: status.as_u16(), reason });
        self.fail(kind, detail);
    }

    fn report(&mut self, kind: IncidentKind, detail: &str, bytes: u64) {
        if self.flight.is_some() {
            let target = format!("{} {}", self.method, self.url);
            self.recorder.incident(kind, &target, detail, bytes);
            self.flight = None;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let kind = match self.recorder.is_closed() {
            true => IncidentKind::Unfinished,
            false => IncidentKind::HungUp,
        };
        let size = self.size();
        self.report(kind, "", size);
    }
}

/// A response's body on its way to the step.
///
/// The exchange is recorded before the step receives the last bytes, and a response that is cut off reaches the step
/// as an incomplete one.
pub(crate) struct Recording {
    inner: reqwest::Body,
    pending: Option<Pending>,
    expected: Option<u64>,
    max: u64,
    /// Whether trailers reach the step; with HTTP/1.1 they do not.
    passes_trailers: bool,
    runtime: Handle,
}

impl Recording {
    pub(crate) fn new(inner: reqwest::Body, pending: Pending, max: u64, passes_trailers: bool) -> Recording {
        let expected = inner.size_hint().exact();
        let runtime = Handle::current();
        let mut this = Recording { inner, pending: Some(pending), expected, max, passes_trailers, runtime };
        this.settle_if_over();
        this
    }

    /// Hyper stops polling once the announced length has arrived, so that the end must be detected with the last
    /// frame. If trailers may follow, it polls to the end.
    fn settle_if_over(&mut self) {
        let size = self.pending.as_ref().map(Pending::size);
        let is_full = size.is_some() && size == self.expected && !self.passes_trailers;
        if (self.inner.is_end_stream() || is_full)
            && let Some(pending) = self.pending.take()
        {
            pending.complete();
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Broken> {
        let Some(pending) = &mut self.pending else {
            return Ok(());
        };
        if let Err((kind, detail)) = pending.update(data) {
            return Err(self.fail(kind, &detail));
        }
        if pending.size() > self.max {
            return Err(self.fail(IncidentKind::TooLarge, ""));
        }
        self.settle_if_over();
        Ok(())
    }

    fn fail(&mut self, kind: IncidentKind, detail: &str) -> Broken {
        if let Some(pending) = self.pending.take() {
            pending.fail(kind, detail);
        }
        Broken(kind)
    }

    /// Trailers are always last.
    fn end_with(&mut self, frame: Frame<Bytes>) -> Option<Result<Frame<Bytes>, BoxError>> {
        let trailers = frame.into_trailers().ok()?;
        if let Some(pending) = &mut self.pending {
            pending.trailers = materials::listed(&trailers);
        }
        self.end().or(Some(Ok(Frame::trailers(trailers))))
    }

    fn end(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        let pending = self.pending.take()?;
        if self.expected.is_some_and(|expected| expected != pending.size()) {
            pending.fail(IncidentKind::Truncated, "shorter than announced");
            return Some(Err(Broken(IncidentKind::Truncated).into()));
        }
        pending.complete();
        None
    }
}

impl Body for Recording {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let data = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => return Poll::Ready(self.end()),
                Some(Err(error)) => {
                    let kind = match error.is_timeout() {
                        true => IncidentKind::Stalled,
                        false => IncidentKind::Truncated,
                    };
                    return Poll::Ready(Some(Err(self.fail(kind, &chain::line(&error)).into())));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) if self.passes_trailers => return Poll::Ready(self.end_with(frame)),
                    Err(_trailers) => continue,
                },
            };
            return Poll::Ready(Some(match self.take(&data) {
                Ok(()) => Ok(Frame::data(data)),
                Err(broken) => Err(broken.into()),
            }));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Recording {
    /// The step closed the connection. It received a prefix of the response, and the rest is fetched to record the
    /// whole.
    fn drop(&mut self) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        if pending.recorder.is_closed() {
            return;
        }
        let inner = std::mem::take(&mut self.inner);
        let max = self.max.min(pending.size().saturating_add(MAX_DRAIN));
        let rest = drain(inner, pending, self.expected, max, self.passes_trailers);
        self.runtime.spawn(rest);
    }
}

async fn drain(
    mut body: reqwest::Body,
    mut pending: Pending,
    expected: Option<u64>,
    max: u64,
    passes_trailers: bool,
) {
    let seen_by_step = pending.size();
    let recorder = pending.recorder.clone();
    loop {
        let next = tokio::select! {
            next = body.frame() => next,
            () = recorder.closed() => break,
        };
        match next {
            Some(Ok(frame)) => {
                match frame.into_data() {
                    Ok(data) => {
                        if let Err((kind, detail)) = pending.update(&data) {
                            return pending.fail_after(seen_by_step, kind, &detail);
                        }
                    }
                    Err(frame) => {
                        if let (true, Ok(trailers)) = (passes_trailers, frame.into_trailers()) {
                            pending.trailers = materials::listed(&trailers);
                        }
                    }
                }
                if pending.size() > max {
                    break;
                }
            }
            None if expected.is_none_or(|expected| expected == pending.size()) => return pending.complete(),
            None | Some(Err(_)) => break,
        }
    }
    pending.fail_after(seen_by_step, IncidentKind::HungUp, "the rest could not be fetched for the record");
}

pub(crate) fn digest_of(hasher: &mut Sha256) -> Digest {
    Digest::from_bytes(std::mem::take(hasher).finalize().into())
}
