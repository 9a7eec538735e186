//! The record of one step's network: its exchanges, and the incidents that did not become exchanges.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::patterns::SecretPatterns;
use super::step_id::StepId;
use super::store::{Exchange, Failure, StepExchanges};

/// Incidents kept per step; further ones are only counted.
const MAX_INCIDENTS: usize = 256;

/// The most characters of an incident's text.
const MAX_TEXT: usize = 400;

/// A network action of a step that did not become an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// The kind.
    pub kind: IncidentKind,
    /// The URL, name or address it was about.
    pub target: String,
    /// Details for people.
    pub detail: String,
    /// Bytes of a response that the step received although no exchange records it. If it is above 0, the recorded
    /// responses are incomplete.
    pub unrecorded_bytes: u64,
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target, self.kind)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        if self.unrecorded_bytes > 0 {
            write!(f, "; {} bytes had reached the step", self.unrecorded_bytes)?;
        }
        Ok(())
    }
}

/// The kinds of incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum IncidentKind {
    /// The connection went to an address that DNS had not given to any name.
    #[error("connected to an address that stands for no name")]
    UnknownAddress,
    /// A port or protocol that is not served.
    #[error("tried what is not captured: nothing answers there")]
    Blocked,
    /// A request or handshake named an IP address instead of a host.
    #[error("names an IP address instead of a host")]
    NameIsAddress,
    /// A name that cannot be a host name, or means this machine.
    #[error("is not a host name that can be captured")]
    BadName,
    /// DNS, SNI and Host do not all have the same name.
    #[error("DNS, SNI and Host do not agree")]
    NamesDisagree,
    /// The build asked for too many names.
    #[error("too many names asked for")]
    TooManyNames,
    /// The TLS handshake failed.
    #[error("TLS handshake with the step failed")]
    ClientTls,
    /// The bytes are not an HTTP/1 request that can be forwarded unambiguously.
    #[error("request refused as malformed")]
    BadRequest,
    /// The request asked for a tunnel.
    #[error("CONNECT refused")]
    ConnectRefused,
    /// The request asked to switch to another protocol, such as websocket.
    #[error("protocol upgrade refused")]
    UpgradeRefused,
    /// Upstream could not be reached, or did not speak HTTP or present a trusted certificate.
    #[error("upstream failed")]
    UpstreamFailed,
    /// Upstream's response was cut off.
    #[error("upstream's answer broke off")]
    Truncated,
    /// Upstream sent nothing for too long.
    #[error("upstream stalled")]
    Stalled,
    /// A body is larger than the limit.
    #[error("body larger than the limit")]
    TooLarge,
    /// The step closed the connection before it had sent its whole request body.
    #[error("request body broke off")]
    RequestTruncated,
    /// The step closed the connection, and too much of the response was left to fetch for the record.
    #[error("the step hung up in the middle of the answer")]
    HungUp,
    /// The exchange was still running when the step ended.
    #[error("unfinished when the step ended")]
    Unfinished,
    /// More exchanges than a step may have.
    #[error("too many exchanges")]
    TooManyExchanges,
    /// The response could not be stored.
    #[error("the answer could not be kept")]
    NotKept,
    /// A replay received a request that the record does not have.
    #[error("not in the record that is replayed")]
    NotRecorded,
    /// The request failed when it was recorded, and so it does in the replay.
    #[error("failed when it was recorded, too")]
    FailedBefore,
    /// A recorded response no longer matches its digest.
    #[error("the kept answer was changed")]
    Changed,
    /// The exchange contains a secret of the step.
    #[error("holds a secret, and so cannot be recorded")]
    HoldsSecret,
}

impl IncidentKind {
    /// Whether the build must fail, even if the step ignored the incident.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::NotKept | Self::NotRecorded | Self::Changed | Self::HoldsSecret)
    }
}

/// Everything one step did on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Its exchanges and failed requests, in the order of the requests.
    pub step: StepExchanges,
    /// Its incidents, in the order they happened.
    pub incidents: Vec<Incident>,
    /// The number of incidents beyond the limit, which are not listed.
    pub incidents_dropped: u64,
}

/// A complete exchange, not yet sorted into the list.
pub(crate) struct Complete {
    /// The number of the request within the step.
    pub order: usize,
    pub exchange: Exchange,
}

/// Collects one step's exchanges and incidents from concurrent connections.
pub(crate) struct StepRecorder {
    step: StepId,
    max_exchanges: usize,
    secrets: Arc<SecretPatterns>,
    state: Mutex<StepState>,
    in_flight: Arc<watch::Sender<usize>>,
    connections: Arc<watch::Sender<usize>>,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct StepState {
    asked: usize,
    exchanges: Vec<Complete>,
    failures: Vec<(usize, Failure)>,
    incidents: Vec<Incident>,
    incidents_dropped: u64,
}

impl StepRecorder {
    pub(crate) fn new(step: &StepId, max_exchanges: usize, secrets: &Arc<SecretPatterns>) -> StepRecorder {
        StepRecorder {
            step: step.clone(),
            max_exchanges,
            secrets: secrets.clone(),
            state: Mutex::default(),
            in_flight: Arc::default(),
            connections: Arc::default(),
            closed: watch::Sender::new(false),
        }
    }

    /// Counts an exchange as running until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        InFlight::new(&self.in_flight)
    }

    /// Counts a connection as served until the guard is dropped.
    pub(crate) fn connect(&self) -> InFlight {
        InFlight::new(&self.connections)
    }

    /// The id of the step.
    pub(crate) fn step(&self) -> &StepId {
        &self.step
    }

    /// The patterns that must not be recorded.
    pub(crate) fn secrets(&self) -> &Arc<SecretPatterns> {
        &self.secrets
    }

    /// The number of a request that begins now.
    pub(crate) fn order(&self) -> usize {
        let mut state = self.state();
        state.asked += 1;
        state.asked
    }

    /// Records a request without a response from upstream, and the error that the step received instead.
    pub(crate) fn failure(&self, order: usize, failure: Failure) {
        let mut state = self.state();
        if state.failures.len() < MAX_INCIDENTS {
            state.failures.push((order, failure));
        }
    }

    /// Whether another exchange is allowed.
    pub(crate) fn has_room(&self) -> bool {
        let going = *self.in_flight.borrow();
        self.state().exchanges.len() + going < self.max_exchanges
    }

    pub(crate) fn complete(&self, exchange: Complete) {
        self.state().exchanges.push(exchange);
    }

    pub(crate) fn incident(&self, kind: IncidentKind, target: &str, detail: &str, bytes: u64) {
        let mut state = self.state();
        if state.incidents.len() >= MAX_INCIDENTS {
            state.incidents_dropped += 1;
            return;
        }
        state.incidents.push(Incident {
            kind,
            target: printable(&self.secrets.redacted(target)),
            detail: printable(&self.secrets.redacted(detail)),
            unrecorded_bytes: bytes,
        });
    }

    /// Waits until no exchange is running. False if `grace` was not enough.
    pub(crate) async fn settled(&self, grace: Duration) -> bool {
        none(&self.in_flight, grace).await
    }

    /// Waits until no connection is served, so that each has reported how it ended. False if `grace` was not enough.
    pub(crate) async fn disconnected(&self, grace: Duration) -> bool {
        none(&self.connections, grace).await
    }

    /// Marks the end of the step: exchanges that are still running become incidents.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits for the end of the step.
    pub(crate) async fn closed(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Takes the record in order; anything later is lost.
    pub(crate) fn take(&self) -> StepRecord {
        let mut state = self.state();
        let mut found = std::mem::take(&mut state.exchanges);
        found.sort_by_key(|complete| complete.order);
        let exchanges = found.into_iter().map(|complete| complete.exchange).collect();
        let mut failures = std::mem::take(&mut state.failures);
        failures.sort_by_key(|(order, _)| *order);
        let failures = failures.into_iter().map(|(_, failure)| failure).collect();
        StepRecord {
            step: StepExchanges { step: self.step.clone(), exchanges, failures },
            incidents: std::mem::take(&mut state.incidents),
            incidents_dropped: state.incidents_dropped,
        }
    }

    fn state(&self) -> MutexGuard<'_, StepState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn none(count: &watch::Sender<usize>, grace: Duration) -> bool {
    let mut watch = count.subscribe();
    let quiet = watch.wait_for(|n| *n == 0);
    matches!(tokio::time::timeout(grace, quiet).await, Ok(Ok(_)))
}

/// Counted as running until it is dropped.
pub(crate) struct InFlight(Arc<watch::Sender<usize>>);

impl InFlight {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

/// Shortens a text, and escapes control characters so that they do not reach a terminal.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == MAX_TEXT {
            out.push('…');
            break;
        }
        if c.is_ascii_graphic() || c == ' ' {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestations::Digest;

    fn exchange(order: usize, url: &str, body: &[u8]) -> Complete {
        let request = crate::store::RecordedRequest {
            method: "GET".into(),
            url: url.into(),
            headers: vec![],
            body: None,
        };
        let (body, size) = (Digest::of(body), body.len() as u64);
        let response = crate::store::Response { status: 200, headers: vec![], body, size, trailers: vec![] };
        Complete { order, exchange: Exchange { request, response, private: false } }
    }

    #[test]
    fn order_does_not_depend_on_arrival() {
        let list: [(&str, &[u8]); 3] = [("http://b/", b"1"), ("http://a/", b"2"), ("http://a/", b"3")];
        let (forth, back) = (
            StepRecorder::new(&StepId::new("s", 1), 9, &Arc::default()),
            StepRecorder::new(&StepId::new("s", 1), 9, &Arc::default()),
        );
        let complete = |to: &StepRecorder, n: usize| to.complete(exchange(n, list[n].0, list[n].1));
        (0..3).for_each(|n| complete(&forth, n));
        (0..3).rev().for_each(|n| complete(&back, n));
        let record = forth.take();
        assert_eq!(record, back.take());
        let urls = |all: Vec<&Exchange>| all.iter().map(|it| it.request.url.clone()).collect::<Vec<_>>();
        let asked = urls(record.step.exchanges.iter().collect());
        assert_eq!(asked, ["http://b/", "http://a/", "http://a/"], "a replay needs the order of asking");
        assert_eq!(urls(record.step.sorted()), ["http://a/", "http://a/", "http://b/"]);
    }

    #[test]
    fn incidents_are_bounded_and_printable() {
        let recorder = StepRecorder::new(&StepId::new("s", 3), 9, &Arc::default());
        for _ in 0..MAX_INCIDENTS + 5 {
            recorder.incident(IncidentKind::BadRequest, "\u{1b}[2J", &"x".repeat(9000), 0);
        }
        let record = recorder.take();
        assert_eq!(record.incidents.len(), MAX_INCIDENTS);
        assert_eq!(record.incidents_dropped, 5);
        assert_eq!(record.incidents[0].target, "\\u{1b}[2J");
        assert_eq!(record.incidents[0].detail.chars().count(), MAX_TEXT + 1);
        assert!(record.incidents[0].to_string().starts_with("\\u{1b}[2J: "));
    }

    #[tokio::test]
    async fn settling_waits_for_what_is_going_on() {
        let recorder = Arc::new(StepRecorder::new(&StepId::new("s", 1), 9, &Arc::default()));
        let flight = recorder.begin();
        assert!(!recorder.settled(Duration::from_millis(20)).await);
        let waiting = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.settled(Duration::from_secs(5)).await }
        });
        drop(flight);
        assert!(waiting.await.unwrap());
    }
}
