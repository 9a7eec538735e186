//! What a step took from the network, and what it tried that was refused.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::patterns::SecretPatterns;
use super::step_id::StepId;
use super::store::{Exchange, Failure, StepExchanges};

/// Incidents kept per step; later ones are only counted.
const MAX_INCIDENTS: usize = 256;

/// Longest text of an incident, in characters.
const MAX_TEXT: usize = 400;

/// Something a step tried that did not become an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// What happened.
    pub kind: IncidentKind,
    /// URL, name or address it was about.
    pub target: String,
    /// What was found, for people.
    pub detail: String,
    /// Bytes of an answer that the step received and no exchange names. KeptResponses are not complete when it is above 0.
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
    /// The connection went to an address that DNS had given to no name.
    #[error("connected to an address that stands for no name")]
    UnknownAddress,
    /// A port or protocol that is not captured.
    #[error("tried what is not captured: nothing answers there")]
    Blocked,
    /// A request or handshake named an IP address instead of a host.
    #[error("names an IP address instead of a host")]
    NameIsAddress,
    /// A name that cannot be a host, or means this machine.
    #[error("is not a host name that can be captured")]
    BadName,
    /// DNS, SNI and Host do not all say the same name.
    #[error("DNS, SNI and Host do not agree")]
    NamesDisagree,
    /// The build asked for too many names.
    #[error("too many names asked for")]
    TooManyNames,
    /// The TLS handshake failed.
    #[error("TLS handshake with the step failed")]
    ClientTls,
    /// The bytes were no HTTP/1 request that can be passed on unambiguously.
    #[error("request refused as malformed")]
    BadRequest,
    /// The request asked for a tunnel.
    #[error("CONNECT refused")]
    ConnectRefused,
    /// The request asked to leave HTTP, such as for a websocket.
    #[error("protocol upgrade refused")]
    UpgradeRefused,
    /// Upstream could not be reached, or did not speak HTTP or present a trusted certificate.
    #[error("upstream failed")]
    UpstreamFailed,
    /// Upstream's answer broke off.
    #[error("upstream's answer broke off")]
    Truncated,
    /// Upstream sent nothing for too long.
    #[error("upstream stalled")]
    Stalled,
    /// A body is larger than the limit.
    #[error("body larger than the limit")]
    TooLarge,
    /// The step hung up before it had sent its whole request body.
    #[error("request body broke off")]
    RequestTruncated,
    /// The step hung up, and too much of the answer was left to fetch for the record.
    #[error("the step hung up in the middle of the answer")]
    HungUp,
    /// The exchange was still going on when the step was over.
    #[error("unfinished when the step ended")]
    Unfinished,
    /// More exchanges than a step may have.
    #[error("too many exchanges")]
    TooManyExchanges,
    /// The store of materials could not keep the answer.
    #[error("the answer could not be kept")]
    NotKept,
    /// A replay was asked for what the record does not hold.
    #[error("not in the record that is replayed")]
    NotRecorded,
    /// It failed when it was recorded, and so it does in the replay.
    #[error("failed when it was recorded, too")]
    FailedBefore,
    /// A recorded answer is no longer what its digest says.
    #[error("the kept answer was changed")]
    Changed,
    /// What would be recorded holds a secret of the step.
    #[error("holds a secret, and so cannot be recorded")]
    HoldsSecret,
}

impl IncidentKind {
    /// Whether a build with such an incident must fail, even if the step that met it did not mind.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::NotKept | Self::NotRecorded | Self::Changed | Self::HoldsSecret)
    }
}

/// Everything one step did with the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// What it asked and was answered, and what it asked in vain, in the order of asking.
    pub step: StepExchanges,
    /// What was refused or failed, in the order it happened.
    pub incidents: Vec<Incident>,
    /// Incidents beyond the bound that are not listed.
    pub incidents_dropped: u64,
}

/// An exchange before it has its place in the list.
pub(crate) struct Complete {
    /// The how-manieth request of the step it was.
    pub order: usize,
    pub exchange: Exchange,
}

/// Collects one step's exchanges and incidents, from many connections at once.
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

    /// Marks an exchange as going on until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        InFlight::new(&self.in_flight)
    }

    /// Marks a connection as being served until the guard is dropped.
    pub(crate) fn connect(&self) -> InFlight {
        InFlight::new(&self.connections)
    }

    /// The step that is recorded.
    pub(crate) fn step(&self) -> &StepId {
        &self.step
    }

    /// What must not be recorded.
    pub(crate) fn secrets(&self) -> &Arc<SecretPatterns> {
        &self.secrets
    }

    /// The number of the request that begins now.
    pub(crate) fn order(&self) -> usize {
        let mut state = self.state();
        state.asked += 1;
        state.asked
    }

    /// A request that upstream did not answer; the step was told so.
    pub(crate) fn failure(&self, order: usize, failure: Failure) {
        let mut state = self.state();
        if state.failures.len() < MAX_INCIDENTS {
            state.failures.push((order, failure));
        }
    }

    /// Whether there is room for one more exchange.
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

    /// Waits until no exchange is going on. False if `grace` was not enough.
    pub(crate) async fn settled(&self, grace: Duration) -> bool {
        none(&self.in_flight, grace).await
    }

    /// The same of connections: what one has to tell of its end is told then.
    pub(crate) async fn disconnected(&self, grace: Duration) -> bool {
        none(&self.connections, grace).await
    }

    /// The step is over: what is still going on is an incident from now on.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until the step is over.
    pub(crate) async fn closed(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// The ordered record; what comes later is lost.
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

/// Something that goes on: counted until this is dropped.
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

/// Shortens, and shows control characters instead of sending them to a terminal.
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
        let request =
            crate::store::Request { method: "GET".into(), url: url.into(), headers: vec![], body: None };
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
