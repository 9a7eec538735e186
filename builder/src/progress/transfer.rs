//! Transfers from and to registries.

use std::time::{Duration, Instant};

use images::registry::Traffic;

use super::{Event, Progress};

/// The interval of reports.
const PAUSE: Duration = Duration::from_millis(100);

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// A base is fetched.
    In,
    /// An image is pushed.
    Out,
}

/// The current transfer.
pub(super) struct Transfer {
    direction: Direction,
    name: String,
    bytes: u64,
    total: Option<u64>,
    reported: Instant,
}

impl Transfer {
    pub(super) fn new(direction: Direction, name: &str) -> Self {
        Self { direction, name: name.to_owned(), bytes: 0, total: None, reported: Instant::now() }
    }

    pub(super) fn begun(&self) -> Event<'_> {
        match self.direction {
            Direction::In => Event::Base { name: &self.name },
            Direction::Out => Event::Push { name: &self.name },
        }
    }

    /// Counts bytes; returns whether to report them.
    pub(super) fn moved(&mut self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Expected(bytes) => self.total = Some(self.total.unwrap_or(0).saturating_add(bytes)),
            Traffic::Moved(bytes) => self.bytes = self.bytes.saturating_add(bytes),
        }
        let is_time = self.reported.elapsed() >= PAUSE || matches!(traffic, Traffic::Expected(_));
        if is_time {
            self.reported = Instant::now();
        }
        is_time
    }

    pub(super) fn event(&self) -> Event<'_> {
        let (name, bytes, total) = (&self.name, self.bytes, self.total);
        match self.direction {
            Direction::In => Event::BaseBytes { name, bytes, total },
            Direction::Out => Event::PushBytes { name, bytes, total },
        }
    }
}

/// A running transfer.
pub(crate) struct Moving<'a> {
    progress: &'a Progress,
    begun: Instant,
}

impl<'a> Moving<'a> {
    pub(super) fn new(progress: &'a Progress) -> Self {
        Self { progress, begun: Instant::now() }
    }

    /// Ends it; returns its bytes and its duration in seconds.
    pub(crate) fn done(self) -> (u64, f64) {
        let bytes = self.progress.state().transfer.take().map_or(0, |transfer| transfer.bytes);
        (bytes, self.begun.elapsed().as_secs_f64())
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.progress.state().transfer = None;
    }
}
