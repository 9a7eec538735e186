//! Progress reports on standard error, from typed events to output for people or programs.
//!
//! The other modules report an [`Event`]; a [`Mode`] decides how it looks. Untrusted text (a step's output, names in
//! a Dockerfile, a server's messages) can never control the terminal, in any mode: see `errors::terminal`.

mod bytes;
mod event;
mod events;
mod plain;
mod rich;
mod summary;
mod transfer;

use std::io::{IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use images::registry::Traffic;

pub(crate) use bytes::amount;
pub(crate) use errors::terminal::without_sequences;
pub(crate) use event::{Event, Label};
pub(crate) use summary::{Summary, SummaryStep};
pub(crate) use transfer::{Direction, Moving};

use transfer::Transfer;

/// The form of progress reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Mode {
    /// `rich` on a terminal, otherwise `plain`.
    #[default]
    Auto,
    /// One line for each event.
    Plain,
    /// One line for each finished step; running steps are shown below, with their time and latest output.
    Rich,
    /// One JSON object per line.
    Json,
    /// No progress.
    Quiet,
}

impl Mode {
    /// The mode on this terminal: `rich` needs one with a movable cursor, and is `plain` otherwise.
    fn here(self) -> Self {
        let can_move = || {
            std::io::stderr().is_terminal()
                && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
        };
        match self {
            Self::Auto | Self::Rich if can_move() => Self::Rich,
            Self::Auto | Self::Rich => Self::Plain,
            other => other,
        }
    }
}

/// A form of output for events.
trait Show: Send {
    /// Shows one event. Write errors are ignored, so that a closed reader does not stop the build.
    fn show(&mut self, event: &Event<'_>);
    /// Clears temporary output before something else is written.
    fn end(&mut self) {}
}

struct Nobody;

impl Show for Nobody {
    fn show(&mut self, _: &Event<'_>) {}
}

/// The progress reporter, which all threads share.
pub(crate) struct Progress {
    state: Mutex<State>,
}

struct State {
    show: Box<dyn Show>,
    transfer: Option<Transfer>,
}

impl Progress {
    /// A reporter to standard error.
    pub(crate) fn new(mode: Mode) -> Self {
        let errors = || Box::new(std::io::stderr()) as Box<dyn Write + Send>;
        Self::of(match mode.here() {
            Mode::Quiet => Box::new(Nobody),
            Mode::Json => Box::new(events::Json::new(errors())),
            Mode::Rich => Box::new(rich::Rich::new()),
            Mode::Auto | Mode::Plain => Box::new(plain::Plain::new(errors())),
        })
    }

    fn of(show: Box<dyn Show>) -> Self {
        Self { state: Mutex::new(State { show, transfer: None }) }
    }

    /// Reports an event.
    pub(crate) fn report(&self, event: &Event<'_>) {
        self.state().show.show(event);
    }

    /// Begins a transfer from or to a registry, which lasts until the result is dropped or done. [`Progress::moved`]
    /// counts its bytes. There is one transfer at a time.
    pub(crate) fn moving(&self, direction: Direction, name: &str) -> Moving<'_> {
        let transfer = Transfer::new(direction, name);
        let mut state = self.state();
        state.show.show(&transfer.begun());
        state.transfer = Some(transfer);
        Moving::new(self)
    }

    /// Counts transferred bytes, as reported by the registry client.
    pub(crate) fn moved(&self, traffic: Traffic) {
        let mut state = self.state();
        let State { show, transfer } = &mut *state;
        if let Some(transfer) = transfer
            && transfer.moved(traffic)
        {
            show.show(&transfer.event());
        }
    }

    /// Clears temporary output before something else is written to the terminal.
    pub(crate) fn end(&self) {
        self.state().show.end();
    }

    /// The same without waiting for a lock: the program is about to end, whatever other threads are doing.
    pub(crate) fn end_now(&self) {
        match self.state.try_lock() {
            Ok(mut state) => state.show.end(),
            Err(TryLockError::Poisoned(state)) => state.into_inner().show.end(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// A panic in a report does not stop later ones.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Progress")
    }
}

#[cfg(test)]
mod tests;
