#![allow(clippy::unwrap_used)]
use std::io;
use std::sync::Arc;

use clap::Parser as _;

use super::*;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: Format, filter: &str, work: impl FnOnce()) -> String {
    let kept = Kept::default();
    let Filter(filter) = filter.parse().unwrap();
    let all = tracing_subscriber::registry().with(filter).with(Printer::new(format, kept.clone()));
    tracing::subscriber::with_default(all, work);
    let bytes = kept.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn of_a_task() {
    let _task = tracing::error_span!("task", task = 12).entered();
    tracing::warn!(path = "/var/x", error = %"no \u{1b}[2J\nspace", "left behind");
}

#[test]
fn a_line_of_text_has_time_level_place_message_and_the_tasks_id() {
    let line = logged(Format::Text, "warn", of_a_task);
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
    let wanted = "WARN errors::logs::tests: left behind task=12 path=/var/x error=\"no ⟨U+001B⟩[2J space\"\n";
    assert_eq!(rest.trim_start(), wanted);
}

#[test]
fn journald_gets_priorities_in_place_of_time_and_level() {
    let line = logged(Format::Journald, "trace", || {
        tracing::error!("a");
        tracing::warn!("b");
        tracing::info!("c\n<0>forged");
        tracing::debug!("d");
        tracing::trace!("e");
    });
    let heads: Vec<&str> = line.lines().map(|line| &line[..3]).collect();
    assert_eq!(heads, ["<3>", "<4>", "<6>", "<7>", "<7>"], "{line}");
    assert!(line.contains("<6>errors::logs::tests: c <0>forged\n"), "{line}");
}

#[test]
fn a_line_of_json_is_one_object_that_fields_cannot_overwrite() {
    let line = logged(Format::Json, "info", || {
        let span = tracing::error_span!("task", task = 12, image = tracing::field::Empty);
        span.record("image", "a\u{9b}b");
        span.in_scope(|| tracing::info!(level = "error", count = 3, yes = true, "started"));
    });
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(!line.contains('\u{9b}'), "{line:?}");
    let value: Value = serde_json::from_str(&line).unwrap();
    for (name, wanted) in [
        ("event", Value::from("log")),
        ("level", "info".into()),
        ("message", "started".into()),
        ("task", 12.into()),
        ("image", "a\u{9b}b".into()),
        ("count", 3.into()),
        ("yes", true.into()),
    ] {
        assert_eq!(value[name], wanted, "{line}");
    }
}

#[test]
fn what_is_below_the_level_is_not_written_and_the_tasks_span_is_there_at_any() {
    assert_eq!(logged(Format::Text, "error", of_a_task), "");
    assert_eq!(logged(Format::Text, "off", || tracing::error!("x")), "");
    let line = logged(Format::Text, "off,errors=warn", of_a_task);
    assert!(line.contains("task=12"), "{line}");
}

#[test]
fn a_value_ends_where_it_seems_to_end() {
    let line = logged(Format::Text, "info", || {
        tracing::info!(name = "a b=c", quoted = "\"x\"", empty = "", plain = "sha256:ab", "said");
    });
    assert!(
        line.ends_with("said name=\"a b=c\" quoted=\"\\\"x\\\"\" empty=\"\" plain=sha256:ab\n"),
        "{line}"
    );
}

#[derive(Debug, clap::Parser)]
struct Program {
    #[command(flatten)]
    logs: Arguments,
}

#[test]
fn a_mistyped_level_is_refused() {
    for good in ["warn", "INFO", "off", "warn,sandbox=debug", "runner::egress=trace"] {
        assert!(Program::try_parse_from(["x", "--log-level", good]).is_ok(), "{good}");
    }
    for bad in ["loud", "warn,sandbox", "sandbox=loud"] {
        let error = Program::try_parse_from(["x", "--log-level", bad]).unwrap_err().to_string();
        assert!(error.contains("is no level"), "{error}");
    }
    let parsed = Program::try_parse_from(["x", "--log-format", "journald"]).unwrap();
    assert_eq!(parsed.logs.log_format, Some(Format::Journald));
}
