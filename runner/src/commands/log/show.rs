//! `log show`.

use attestations::run::{Ended, Ending, Event};
use clap::Args;
use errors::{Form, output};
use serde_json::{Value, json};

use super::Open;
use super::read::{self, LogEntry};
use crate::commands::output::YES;
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct ShowCommand {
    /// Index of the first entry to list; otherwise the last ones are listed.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Most entries to list.
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: u64,
}

impl ShowCommand {
    pub(super) fn run(&self, log: &Open, form: Form) -> Result<u8> {
        let size = log.reader.checkpoint().size;
        let from = self.from.unwrap_or(size.saturating_sub(self.limit));
        let (mut lines, mut values) = (Vec::new(), Vec::new());
        for index in from..size.min(from.saturating_add(self.limit)) {
            let entry = read::entry(index, &log.reader.entry(index)?, &log.key)?;
            lines.push(line(index, &entry));
            values.push(value(index, &entry));
        }
        let text = match lines.is_empty() {
            true => format!("no entries; the log has {size}"),
            false => lines.join("\n"),
        };
        output::result(form, &text, &json!({ "size": size, "entries": values }))?;
        Ok(YES)
    }
}

fn value(index: u64, entry: &LogEntry) -> Value {
    json!({ "index": index, "subject": entry.subject, "run": entry.run })
}

fn line(index: u64, LogEntry { subject, run }: &LogEntry) -> String {
    let task = run.task.map(|task| format!("task {task} ")).unwrap_or_default();
    let digest = subject.digest.values().next().map_or("", String::as_str);
    let digest: String = digest.chars().take(12).collect();
    let at: String = run.at.to_string().chars().take(19).collect();
    format!(
        "{index:>6}  {at}  {:<8} {task}{} ({digest}…){}",
        run.event.name(),
        subject.name,
        details(&run.event)
    )
}

fn details(event: &Event) -> String {
    match event {
        Event::Denied(denied) => format!(": {}", denied.unmet.join(", ")),
        Event::Started(started) => {
            let databases = match started.databases.is_empty() {
                true => "no database".to_owned(),
                false => started.databases.join(", "),
            };
            format!(": {} on {databases}, commit {:.12}", started.function, started.admission.commit.as_str())
        }
        Event::Ended(ended) => format!(": {}, entry {} started it", ending(ended), ended.start),
        Event::Released(_) | Event::Erased(_) => String::new(),
    }
}

pub(super) fn ending(ended: &Ended) -> String {
    match ended.ending {
        Ending::Exited(0) if ended.output.is_none() => "without a usable result".to_owned(),
        Ending::Exited(0) => "with a result".to_owned(),
        Ending::Exited(code) => format!("with exit code {code}"),
        Ending::Signal(signal) => format!("by signal {signal}"),
        Ending::TimedOut => "its time was over".to_owned(),
        Ending::OutOfMemory => "out of memory".to_owned(),
        Ending::Cancelled => "cancelled".to_owned(),
        Ending::Revoked => "the policy revoked it".to_owned(),
        Ending::Failed => "the node failed".to_owned(),
    }
}
