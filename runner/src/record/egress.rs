//! What a run asked of the outside, as it may be kept for ever: how often what was asked, without what was in it.
//!
//! Of an allowed request its rule has fixed every word of the path; numbers in it become `{}`, the query is left out. Of a
//! refused one the algorithm chose every letter: it is counted by its outcome alone.

use std::collections::BTreeMap;

use attestations::run::{Egress, RequestCount};

use crate::egress::{EgressEntry, EgressLog, Outcome};

/// The most kinds of requests in one entry; the rest is counted.
const MAX_KINDS: usize = 64;
/// The most letters of a word of a path.
const MAX_WORD: usize = 32;

/// What is kept of a proxy's log.
pub(super) fn of(log: &EgressLog) -> Egress {
    let mut counted: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for entry in &log.entries {
        *counted.entry(kind(entry)).or_default() += 1;
    }
    let mut egress = Egress {
        requests: Vec::new(),
        unlisted: log.unlisted,
        bytes_sent: log.bytes_sent,
        bytes_received: log.bytes_received,
    };
    for ((method, path, outcome), count) in counted {
        match egress.requests.len() < MAX_KINDS {
            true => egress.requests.push(RequestCount { method, path, outcome, count }),
            false => egress.unlisted += count,
        }
    }
    egress
}

fn kind(entry: &EgressEntry) -> (String, String, String) {
    let outcome = match &entry.outcome {
        Outcome::Passed { status } => status.to_string(),
        Outcome::Failed { .. } => "failed".to_owned(),
        Outcome::Refused { .. } => return ("*".to_owned(), "*".to_owned(), "refused".to_owned()),
    };
    (entry.method.clone(), template(&entry.path), outcome)
}

/// A path without its query, in which `{}` stands for whatever is not a plain word.
fn template(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts = path.split('/').map(|part| if is_word(part) { part } else { "{}" });
    parts.collect::<Vec<_>>().join("/")
}

fn is_word(part: &str) -> bool {
    part.len() <= MAX_WORD
        && part.bytes().all(|letter| letter.is_ascii_lowercase() || matches!(letter, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(method: &str, path: &str, outcome: Outcome) -> EgressEntry {
        EgressEntry {
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            method: method.into(),
            path: path.into(),
            outcome,
        }
    }

    #[test]
    fn numbers_queries_and_whatever_was_refused_stay_out() {
        let passed = || Outcome::Passed { status: 200 };
        let refused = || Outcome::Refused { reason: "the path is not listed".into() };
        let log = EgressLog {
            entries: vec![
                entry("GET", "/task/17/status?page=patient-4", passed()),
                entry("GET", "/task/18/status", passed()),
                entry("GET", "/run", Outcome::Failed { reason: "it hung up".into() }),
                entry("POST", "/john-doe-born-in-may", refused()),
                entry("BORN", "/in/may", refused()),
            ],
            unlisted: 3,
            bytes_sent: 5,
            ..EgressLog::default()
        };
        let egress = of(&log);
        let told: Vec<_> = egress
            .requests
            .iter()
            .map(|it| format!("{} {} {} {}", it.count, it.method, it.path, it.outcome))
            .collect();
        assert_eq!(told, ["2 * * refused", "1 GET /run failed", "2 GET /task/{}/status 200"]);
        assert_eq!((egress.unlisted, egress.bytes_sent), (3, 5));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let entries = (0..100_u8).map(|n| {
            let word: String = [n / 10, n % 10].iter().map(|digit| char::from(b'a' + digit)).collect();
            entry("GET", &format!("/{word}"), Outcome::Passed { status: 200 })
        });
        let egress = of(&EgressLog { entries: entries.collect(), ..EgressLog::default() });
        assert_eq!((egress.requests.len(), egress.unlisted), (MAX_KINDS, 100 - MAX_KINDS as u64));
    }
}
