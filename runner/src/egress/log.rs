//! What went through the proxy and what it refused, for the run's record. Bounded: a container cannot fill it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use attestations::policy::Budget;
use serde::Serialize;

use super::head::Refusal;

/// Most requests listed one by one; later ones are only counted.
const MAX_ENTRIES: usize = 500;
/// Most characters kept of a method and of a path.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 256;

/// A copy of the counters and the list at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EgressLog {
    /// Requests that the server answered and whose answer was passed on.
    pub passed: u64,
    /// Requests, or answers, that the rules or the limits refused.
    pub refused: u64,
    /// Allowed requests that the server did not answer usably.
    pub failed: u64,
    /// Body bytes towards the server.
    pub bytes_sent: u64,
    /// Body bytes towards the container.
    pub bytes_received: u64,
    /// What the run's budget had no more of when it was asked for.
    pub spent: BTreeSet<Spent>,
    /// The first 500 requests in order.
    pub entries: Vec<EgressEntry>,
    /// How many more there were.
    pub unlisted: u64,
}

/// What a run can use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spent {
    /// Requests.
    Requests,
    /// Bytes towards the server.
    BytesOut,
    /// Bytes of bodies from the server.
    BytesIn,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests",
            Self::BytesOut => "bytes towards the server",
            Self::BytesIn => "bytes from the server",
        })
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EgressEntry {
    /// When it was decided.
    pub at: jiff::Timestamp,
    /// The method as sent, cut at 16 characters.
    pub method: String,
    /// The target as sent, control characters escaped, cut at 256 characters.
    pub path: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Passed on; the server's status.
    Passed {
        /// The server's HTTP status.
        status: u16,
    },
    /// Refused by the rules or the limits.
    Refused {
        /// Why, as the container was told.
        reason: String,
    },
    /// Allowed, but the server did not answer usably.
    Failed {
        /// What happened.
        reason: String,
    },
}

/// The log of a run, and what is left of its budget.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    budget: Budget,
    state: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    log: EgressLog,
    requests: u64,
    bytes_out: u64,
    bytes_in: u64,
}

impl Recorder {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, state: Mutex::default() }
    }

    /// Takes so much of the budget, or nothing of it.
    pub(super) fn spend(&self, what: Spent, amount: u64) -> Result<(), Refusal> {
        let mut state = self.lock();
        let used = self.used(&mut state, what, amount)?;
        *state.of(what) = used;
        Ok(())
    }

    /// Whether so much of the budget is left. Nothing is taken.
    pub(super) fn has(&self, what: Spent, amount: u64) -> Result<(), Refusal> {
        self.used(&mut self.lock(), what, amount).map(drop)
    }

    /// What would be used after this.
    fn used(&self, state: &mut Usage, what: Spent, amount: u64) -> Result<u64, Refusal> {
        let limit = match what {
            Spent::Requests => self.budget.requests,
            Spent::BytesOut => self.budget.bytes_out,
            Spent::BytesIn => self.budget.bytes_in,
        };
        let used = state.of(what).saturating_add(amount);
        match limit.filter(|limit| used > *limit) {
            None => Ok(used),
            Some(limit) => {
                state.log.spent.insert(what);
                Err(Refusal::Spent(what, limit))
            }
        }
    }

    pub(super) fn request(&self, method: &str, path: &str, outcome: Outcome) {
        self.with(|log| {
            match outcome {
                Outcome::Passed { .. } => log.passed += 1,
                Outcome::Refused { .. } => log.refused += 1,
                Outcome::Failed { .. } => log.failed += 1,
            }
            if log.entries.len() >= MAX_ENTRIES {
                log.unlisted += 1;
                return;
            }
            let cut =
                |text: &str, max| text.chars().take(max).flat_map(char::escape_debug).collect::<String>();
            let (method, path) = (cut(method, MAX_METHOD), cut(path, MAX_PATH));
            log.entries.push(EgressEntry { at: jiff::Timestamp::now(), method, path, outcome });
        });
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.with(|log| log.bytes_sent += bytes);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.with(|log| log.bytes_received += bytes);
    }

    pub(super) fn snapshot(&self) -> EgressLog {
        self.lock().log.clone()
    }

    fn with(&self, change: impl FnOnce(&mut EgressLog)) {
        change(&mut self.lock().log);
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    fn of(&mut self, what: Spent) -> &mut u64 {
        match what {
            Spent::Requests => &mut self.requests,
            Spent::BytesOut => &mut self.bytes_out,
            Spent::BytesIn => &mut self.bytes_in,
        }
    }
}
