//! Entries as what they say.

use attestations::run::{Event, Run};
use attestations::{Bundle, Subject};
use tlog::VerifierKey;

use super::Open;
use crate::error::{Error, Kind, Result};

/// What an entry says.
pub(super) struct LogEntry {
    pub(super) subject: Subject,
    pub(super) run: Run,
}

/// Reads an entry, which the log's own key has to have signed.
pub(super) fn entry(index: u64, bytes: &[u8], key: &VerifierKey) -> Result<LogEntry> {
    let wrong =
        || Error::new(Kind::Refused, format!("entry {index} is not a statement that the log's key signed"));
    let bundle = Bundle::parse(bytes).map_err(|cause| wrong().because(cause))?;
    let verified = bundle.verify(key.key()).and_then(|payload| payload.statement());
    let mut statement = verified.map_err(|cause| wrong().because(cause))?.into_value();
    match (statement.predicate.run().cloned(), statement.subject.pop()) {
        (Some(run), Some(subject)) => Ok(LogEntry { subject, run }),
        _ => Err(wrong()),
    }
}

/// The last entry about a task that says such a thing; `what` is that, for people.
pub(super) fn of_task(log: &Open, task: u64, what: &str, is_such: impl Fn(&Event) -> bool) -> Result<u64> {
    for index in (0..log.reader.checkpoint().size).rev() {
        let run = entry(index, &log.reader.entry(index)?, &log.key)?.run;
        if run.task == Some(task) && is_such(&run.event) {
            return Ok(index);
        }
    }
    Err(Error::new(Kind::NotFound, format!("the log has no {what} task {task}"))
        .hint("`countersign-runner log show` lists the entries"))
}
