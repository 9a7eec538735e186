//! What went through the proxy and what it refused, for the run's record. Bounded: a container cannot fill it.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Most requests listed one by one; later ones are only counted.
const MAX_ENTRIES: usize = 500;
/// Most characters kept of a method and of a path.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 256;

/// A copy of the counters and the list at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Log {
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
    /// The first 500 requests in order.
    pub entries: Vec<Entry>,
    /// How many more there were.
    pub unlisted: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
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

#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Log>);

impl Recorder {
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
            log.entries.push(Entry { at: jiff::Timestamp::now(), method, path, outcome });
        });
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.with(|log| log.bytes_sent += bytes);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.with(|log| log.bytes_received += bytes);
    }

    pub(super) fn snapshot(&self) -> Log {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
