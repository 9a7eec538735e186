//! Events as lines of JSON.

use std::io::Write;
use std::time::{Duration, Instant};

use errors::terminal;

use super::{Event, Show};

/// Bytes on their way are told once in so long.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Json {
    out: Box<dyn Write + Send>,
    told: Instant,
}

impl Json {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, told: Instant::now() }
    }
}

impl Show for Json {
    fn show(&mut self, event: &Event<'_>) {
        if matches!(event, Event::BaseBytes { .. } | Event::PushBytes { .. }) {
            if self.told.elapsed() < PAUSE {
                return;
            }
            self.told = Instant::now();
        }
        // A terminal may be reading this, too.
        let line = terminal::json(&event.json());
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}
