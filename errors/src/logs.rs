//! Logs of both programs, on standard error: a line each, as text, as JSON, or for journald.
//!
//! Fields of the spans around an event stand on its line, so that everything that happens for a task carries its id.

use std::io::Write;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::{Error, Kind, Result, chain, terminal};

/// The options of both programs about logs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Arguments {
    /// Log messages to write to standard error: off, error, warn, info, debug or trace; or a level for all and others
    /// for some crates, as in `warn,sandbox=debug`.
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_LOG",
        value_name = "LEVEL",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    log_level: Option<Filter>,
    /// Format of log messages: text, json, or journald (text with the priorities of sd-daemon(3), without the time).
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    log_format: Option<Format>,
}

/// How a log message is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people, with the time.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// For systemd's journal: as text, with the priority that sd-daemon(3) describes instead of time and level.
    Journald,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "journald" => Ok(Self::Journald),
            _ => Err("it is one of text, json and journald".to_owned()),
        }
    }
}

/// Which messages are written.
#[derive(Debug, Clone)]
pub struct Filter(Targets);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for part in text.split(',') {
            // Targets would take a mistyped level for the name of a crate, and be silent about everything else.
            let level = part.split_once('=').map_or(part, |(_, level)| level);
            if level.parse::<LevelFilter>().is_err() {
                return Err(format!("`{level}` is no level: off, error, warn, info, debug and trace are"));
            }
        }
        text.parse().map(Self).map_err(|error| error.to_string())
    }
}

impl Arguments {
    /// Begins to write logs to standard error, as asked for or else by the defaults.
    ///
    /// # Errors
    /// When logs are written by something else already.
    pub fn install(&self, level: Level, format: Format) -> Result<()> {
        let filter = match &self.log_level {
            Some(Filter(filter)) => filter.clone(),
            None => Targets::new().with_default(level),
        };
        let printer = Printer::new(self.log_format.unwrap_or(format), std::io::stderr());
        let all = tracing_subscriber::registry().with(filter).with(printer);
        tracing::subscriber::set_global_default(all)
            .map_err(|cause| Error::new(Kind::Bug, "setting up the logs").because(cause))
    }
}

/// Writes each event as one line.
struct Printer<W> {
    format: Format,
    out: Mutex<W>,
}

impl<W: Write> Printer<W> {
    fn new(format: Format, out: W) -> Self {
        Self { format, out: Mutex::new(out) }
    }
}

impl<S, W> Layer<S> for Printer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut all = Vec::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                all.extend(fields.all.iter().cloned());
            }
        }
        let mut own = Fields::default();
        event.record(&mut own);
        all.extend(own.all);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let line = line(self.format, level, target, &own.message, &all, jiff::Timestamp::now());
        // There is nobody to tell that nobody can be told.
        let _ = self.out.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

fn line(
    format: Format,
    level: Level,
    target: &str,
    message: &str,
    fields: &[(&'static str, Value)],
    now: jiff::Timestamp,
) -> String {
    let head = match format {
        Format::Text => format!("{now:.3} {level:>5} {target}: "),
        Format::Journald => format!("<{}>{target}: ", priority(level)),
        Format::Json => {
            // Fields first: none can pass itself off as the level or the message.
            let mut line: serde_json::Map<String, Value> =
                fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let level = level.as_str().to_ascii_lowercase();
            let own = [
                ("event", "log".to_owned()),
                ("time", format!("{now:.3}")),
                ("level", level),
                ("target", target.to_owned()),
                ("message", message.to_owned()),
            ];
            line.extend(own.map(|(name, value)| (name.to_owned(), value.into())));
            return format!("{}\n", terminal::json(&Value::Object(line)));
        }
    };
    let mut line = head + &terminal::cell(message);
    for (name, value) in fields {
        line.push_str(&format!(" {name}={}", shown(value)));
    }
    line + "\n"
}

/// A value that ends where it seems to end: in quotes unless it is one plain word.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => match !text.is_empty() && text.chars().all(is_plain) {
            true => text.clone(),
            false => terminal::cell(&Value::from(terminal::cell(text)).to_string()),
        },
        other => other.to_string(),
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_alphanumeric() || "-._/:@+,%".contains(letter)
}

/// The priorities of sd-daemon(3), which are those of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The fields of an event or a span, with the message apart.
#[derive(Default)]
struct Fields {
    message: String,
    all: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.all.retain(|(other, _)| *other != name);
                self.all.push((name, value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, chain::line(value).into());
    }
}

#[cfg(test)]
mod tests;
