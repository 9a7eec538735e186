//! Events as lines for people and logs; written lines never change.

use std::io::Write;
use std::time::{Duration, Instant};

use errors::terminal;

use super::{Event, Label, Show, amount};

/// The interval of reports about a transfer.
const PAUSE: Duration = Duration::from_secs(10);

/// Why the early result of a step is discarded.
pub(super) const DROPPED: &str = "an earlier step made another layer than predicted, so this runs again";

pub(super) struct Plain {
    out: Box<dyn Write + Send>,
    reported: Instant,
}

impl Plain {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, reported: Instant::now() }
    }

    /// Whether a transfer should be reported again.
    fn is_time(&mut self) -> bool {
        let is_time = self.reported.elapsed() >= PAUSE;
        if is_time {
            self.reported = Instant::now();
        }
        is_time
    }
}

impl Show for Plain {
    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Base { .. } | Event::Push { .. } => self.reported = Instant::now(),
            Event::BaseBytes { .. } | Event::PushBytes { .. } if !self.is_time() => return,
            _ => {}
        }
        let mut text = String::new();
        for line in lines(event) {
            text.push_str(&line);
            text.push('\n');
        }
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// The prefix of a step's output lines.
fn margin(label: &Label) -> String {
    if label.is_one_of_several {
        format!("{} | ", terminal::cell(&label.to_string()))
    } else {
        "    ".to_owned()
    }
}

fn lines(event: &Event<'_>) -> Vec<String> {
    let cell = terminal::cell;
    vec![match *event {
        Event::Platform { platform } => format!("building for {}", cell(platform)),
        Event::Base { name } => format!("base {}", cell(name)),
        Event::BaseBytes { name, bytes, total } => {
            format!("base {}: fetched {}", cell(name), of_total(bytes, total))
        }
        Event::BaseFetched { name, size, bytes, seconds, .. } => {
            format!("base {}: {}", cell(name), fetched(size, bytes, seconds))
        }
        Event::Step { label, instruction, .. } => {
            format!("{}: {}", cell(&label.to_string()), begin_of(instruction))
        }
        Event::Fetching { label, url } => format!("{}fetching {}", margin(label), cell(url)),
        Event::Output { label, text } => format!("{}{}", margin(label), cell(text)),
        // The summary has the layer sizes.
        Event::StepDone { is_configuration: true, .. } | Event::Layer { .. } => return Vec::new(),
        Event::StepDone { label, seconds, .. } => {
            format!("{}: done in {seconds:.1} s", cell(&label.to_string()))
        }
        Event::Packing { label } => format!("{}: its layer is being compressed", cell(&label.to_string())),
        Event::StepFailed { label, seconds, .. } => {
            format!("{}: failed after {seconds:.1} s", cell(&label.to_string()))
        }
        Event::StepDropped { label, .. } => format!("{}: {DROPPED}", cell(&label.to_string())),
        Event::Incident { label, text } => format!("{}network: {}", margin(label), cell(text)),
        Event::Asked { url, verdict, done, total } => format!("[{done}/{total}] {verdict}: {}", cell(url)),
        Event::Push { name } => format!("pushing {}", cell(name)),
        Event::PushBytes { name, bytes, total } => {
            format!("pushing {}: sent {}", cell(name), of_total(bytes, total))
        }
        Event::Pushed { name, bytes, seconds, .. } => {
            format!("pushed {}: {}", cell(name), sent(bytes, seconds))
        }
        Event::Wrote { path, seconds } => {
            format!("wrote {} in {seconds:.1} s", cell(&path.display().to_string()))
        }
        Event::Summary(summary) => return summary.text(),
        Event::Repeating { subject, origin } => format!("repeating {subject} from {}", cell(origin)),
        Event::Warning { message, .. } => format!("warning: {}", cell(message)),
    }]
}

/// How an instruction begins: the whole of a long command would hide what it prints.
fn begin_of(instruction: &str) -> String {
    const SHOWN: usize = 200;
    match instruction.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", terminal::cell(&instruction[..cut])),
        None => terminal::cell(instruction),
    }
}

/// `12.3 MB of 45.6 MB`
pub(super) fn of_total(bytes: u64, total: Option<u64>) -> String {
    match total {
        // A transfer that starts again is counted again.
        Some(total) => format!("{} of {}", amount(bytes.min(total)), amount(total)),
        None => amount(bytes),
    }
}

/// The result of fetching a base.
pub(super) fn fetched(size: u64, bytes: u64, seconds: f64) -> String {
    match bytes {
        0 => format!("{}, here", amount(size)),
        bytes => format!("{}, {} of it fetched in {seconds:.1} s", amount(size), amount(bytes)),
    }
}

/// The result of pushing.
pub(super) fn sent(bytes: u64, seconds: f64) -> String {
    match bytes {
        0 => format!("it has all layers already, {seconds:.1} s"),
        bytes => format!("{} in {seconds:.1} s", amount(bytes)),
    }
}
