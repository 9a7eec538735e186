//! What is known of a run: why it was allowed, how it ended, what it asked of the outside and what it printed.

use std::time::Duration;

use attestations::{Admitted, Decision, Denial};
use serde_json::{Value, json};

use super::book::Entries;
use super::output::TaskOutput;
use crate::egress;
use crate::engine::Ending;
use crate::vantage6::Unusable;

/// What is known of a run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// Why it was allowed.
    pub admitted: Admitted,
    /// How it ended.
    pub ending: Ending,
    /// Why the policy stopped it, where it did.
    pub revoked: Option<String>,
    /// Why what it gave is no result, where it ended well.
    pub unusable: Option<Unusable>,
    /// Its result, when it ended well: JSON, as it wrote it.
    pub result: Option<Vec<u8>>,
    /// What it asked of the outside: what its proxy passed and refused.
    pub egress: egress::EgressLog,
    /// What it printed, as far as it is kept.
    pub log: TaskOutput,
    /// From the decision to the end.
    pub took: Duration,
    /// Where the node's log has it.
    pub entries: Entries,
}

impl RunReport {
    /// The report for machines, without the result.
    pub fn to_json(&self) -> Value {
        json!({
            "admitted": self.admitted,
            "ending": self.ending.to_string(),
            "succeeded": self.result.is_some(),
            "revoked": self.revoked,
            "unusable": self.unusable,
            "seconds": self.took.as_secs_f64(),
            "egress": self.egress,
            "log": self.log.text(),
            "logBytesNotKept": self.log.lost(),
            "entries": self.entries,
        })
    }
}

impl RunReport {
    /// How it ended, for people.
    pub(crate) fn ending_text(&self) -> String {
        match (&self.revoked, &self.unusable) {
            (Some(reason), _) => format!("it was stopped, since {reason}"),
            (None, Some(why)) => why.reason.clone(),
            (None, None) => self.ending.to_string(),
        }
    }
}

/// A decision for machines.
pub(crate) fn verdict(decision: &Decision) -> Value {
    match decision {
        Decision::Admitted(admitted) => self::admitted(admitted),
        Decision::Denied(denial) => denied(denial),
    }
}

/// A yes for machines.
pub(crate) fn admitted(admitted: &Admitted) -> Value {
    json!({ "verdict": "admitted", "admitted": admitted })
}

/// A no for machines.
pub(crate) fn denied(denial: &Denial) -> Value {
    json!({ "verdict": "denied", "denial": denial })
}
