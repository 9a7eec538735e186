//! Events as lines of JSON.

use std::io::Write;
use std::time::{Duration, Instant};

use errors::terminal;

use super::{Event, Show};

/// The interval of reports about a transfer.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Json {
    out: Box<dyn Write + Send>,
    reported: Instant,
}

impl Json {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, reported: Instant::now() }
    }
}

impl Show for Json {
    fn show(&mut self, event: &Event<'_>) {
        if matches!(event, Event::BaseBytes { .. } | Event::PushBytes { .. }) {
            if self.reported.elapsed() < PAUSE {
                return;
            }
            self.reported = Instant::now();
        }
        // Standard error may be a terminal.
        let line = terminal::json(&event.json());
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}
