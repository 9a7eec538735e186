//! The output for a whole build, in the modes that only add lines.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use attestations::Digest;
use serde_json::Value;

use super::*;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Every event, each with characters that would clear a terminal.
fn tell_all(progress: &Progress) {
    const BAD: &str = "a\u{1b}[2J\u{9b}2J\u{202e}b";
    let digest = Digest::of(b"layer");
    let label = Label { number: 2, total: 6, stage: BAD.to_owned(), is_one_of_several: true };
    let alone = Label { number: 3, total: 6, stage: "build".to_owned(), is_one_of_several: false };
    progress.report(&Event::Platform { platform: "linux/amd64" });
    let moving = progress.moving(Direction::In, BAD);
    progress.moved(Traffic::Expected(2000));
    progress.moved(Traffic::Moved(1500));
    let (bytes, _) = moving.done();
    // These bytes belong to no transfer.
    progress.moved(Traffic::Moved(1));
    let (name, uri) = (BAD, BAD);
    progress.report(&Event::BaseFetched { name, uri, digest, size: 2000, bytes, seconds: 1.25 });
    progress.report(&Event::Step { label: &label, line: 4, instruction: BAD });
    progress.report(&Event::Output { label: &label, text: BAD });
    progress.report(&Event::Output { label: &alone, text: "of one stage alone" });
    progress.report(&Event::Fetching { label: &label, url: BAD });
    progress.report(&Event::Incident { label: &label, text: BAD });
    let done = |is_configuration| Event::StepDone {
        label: &alone,
        line: 5,
        seconds: 2.0,
        diff_id: Some(digest),
        is_configuration,
    };
    progress.report(&done(false));
    progress.report(&done(true));
    progress.report(&Event::Packing { label: &alone });
    progress.report(&Event::Layer { label: &alone, diff_id: digest, digest, size: 4_200_000 });
    progress.report(&Event::StepFailed { label: &label, line: 4, seconds: 0.5 });
    let moving = progress.moving(Direction::Out, BAD);
    let (bytes, _) = moving.done();
    progress.report(&Event::Pushed { name: BAD, digest, bytes, seconds: 3.0 });
    progress.report(&Event::Wrote { path: Path::new(BAD), seconds: 0.1 });
    progress.report(&Event::Repeating { subject: digest, origin: BAD });
    progress.report(&Event::Warning { message: BAD, path: Some(Path::new(BAD)) });
    let step = |number: usize, seconds, layer| SummaryStep {
        label: format!("[{number}/6] {BAD}"),
        instruction: "RUN ".repeat(40),
        seconds,
        layer,
    };
    progress.report(&Event::Summary(&Summary {
        platform: "linux/amd64".to_owned(),
        steps: vec![step(1, 12.34, Some((digest, 4_200_000))), step(2, 0.0, None), step(3, 0.2, None)],
        base_layers: vec![1_000_000, 2_000_000],
        seconds: 13.5,
        exchanges: 3,
        recorded: 1234,
    }));
}

fn output_of(show: impl FnOnce(Box<dyn Write + Send>) -> Box<dyn Show>) -> String {
    let out = Shared::default();
    tell_all(&Progress::of(show(Box::new(out.clone()))));
    out.text()
}

#[test]
fn plain_lines_say_what_happens_and_steer_nothing() {
    let text = output_of(|out| Box::new(plain::Plain::new(out)));
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    const BAD: &str = "a⟨U+001B⟩[2J⟨U+009B⟩2J⟨U+202E⟩b";
    let cut: String = "RUN ".repeat(15);
    for line in [
        "building for linux/amd64",
        &format!("base {BAD}: 2.0 kB, 1.5 kB of it fetched in 1.2 s"),
        &format!("[2/6] {BAD}: {BAD}"),
        &format!("[2/6] {BAD} | {BAD}"),
        "    of one stage alone",
        &format!("[2/6] {BAD} | network: {BAD}"),
        "[3/6] build: done in 2.0 s",
        "[3/6] build: its layer is being compressed",
        &format!("[2/6] {BAD}: failed after 0.5 s"),
        &format!("pushed {BAD}: it has all layers already, 3.0 s"),
        &format!("warning: {BAD}"),
        &format!("     12.3 s     4.2 MB  [1/6] {BAD}  {cut}…"),
        &format!("      0.2 s          -  [3/6] {BAD}  {cut}…"),
        "linux/amd64: 3 steps in 13.5 s; 4.2 MB in 1 layer + 2 of the base, 3.0 MB; 3 exchanges recorded, 1.2 kB",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
    }
    // A step that changes only the configuration is reported once, when it begins.
    assert_eq!(text.matches("[3/6] build: done").count(), 1, "{text}");
}

#[test]
fn json_has_an_event_a_line_and_every_event_is_documented() {
    let text = output_of(|out| Box::new(events::Json::new(out)));
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |name: &str| events.iter().find(|it| it["event"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(find("output")["text"], "a\u{1b}[2J\u{9b}2J\u{202e}b");
    assert_eq!((&find("base-fetched")["bytes"], &find("base-fetched")["size"]), (&1500.into(), &2000.into()));
    assert_eq!(find("step-done")["label"], "[3/6] build");
    assert_eq!(find("summary")["steps"][0]["size"], 4_200_000);
    let documented = include_str!("../../../docs/progress.md");
    let seldom = [
        Event::BaseBytes { name: "", bytes: 0, total: None }.json(),
        Event::PushBytes { name: "", bytes: 0, total: None }.json(),
    ];
    for event in events.iter().chain(&seldom) {
        let name = event["event"].as_str().unwrap();
        let row = documented.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/progress.md"));
        for field in event.as_object().unwrap().keys().filter(|field| *field != "event") {
            assert!(row.contains(&format!("`{field}`")), "{field} of {name} is not in docs/progress.md");
        }
    }
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_lines() {
    // Tests have no terminal at standard error, or one that the environment describes.
    assert_eq!(Mode::Json.here(), Mode::Json);
    assert_eq!(Mode::Quiet.here(), Mode::Quiet);
    assert_eq!(Mode::Auto.here(), Mode::Rich.here());
}
