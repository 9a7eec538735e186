//! What is told while something goes on, on standard error: one place, from typed events to what people or machines see.
//!
//! Whoever works tells an [`Event`]; how it looks is a [`Mode`]. Text of strangers (what a step prints, names in a Dockerfile, what a
//! server sent) never steers the terminal, in any mode: see `errors::terminal`.

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

/// How progress looks.
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
    /// What it comes to here: `rich` needs a terminal that can move its cursor, and is `plain` without one.
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

/// One way of showing events.
trait Show: Send {
    /// Shows one event. A reader that went away does not stop the work.
    fn show(&mut self, event: &Event<'_>);
    /// Takes away what is shown for the moment: something else is to be written.
    fn end(&mut self) {}
}

struct Nobody;

impl Show for Nobody {
    fn show(&mut self, _: &Event<'_>) {}
}

/// Where progress is told. Shared by all that work at the same time.
pub(crate) struct Progress {
    state: Mutex<State>,
}

struct State {
    show: Box<dyn Show>,
    transfer: Option<Transfer>,
}

impl Progress {
    /// Shows what is told on standard error.
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

    /// Tells what happened.
    pub(crate) fn report(&self, event: &Event<'_>) {
        self.state().show.show(event);
    }

    /// Bytes are on their way from or to a registry, until the answer is dropped or done; what [`Progress::moved`] hears belongs to
    /// it. There is one at a time.
    pub(crate) fn moving(&self, direction: Direction, name: &str) -> Moving<'_> {
        let transfer = Transfer::new(direction, name);
        let mut state = self.state();
        state.show.show(&transfer.begun());
        state.transfer = Some(transfer);
        Moving::new(self)
    }

    /// What the registry's client says of bytes on their way.
    pub(crate) fn moved(&self, traffic: Traffic) {
        let mut state = self.state();
        let State { show, transfer } = &mut *state;
        if let Some(transfer) = transfer
            && transfer.moved(traffic)
        {
            show.show(&transfer.event());
        }
    }

    /// Takes away what is shown for the moment, before something else is written to the terminal.
    pub(crate) fn end(&self) {
        self.state().show.end();
    }

    /// The same for who cannot wait: the program is about to end, whatever others are doing.
    pub(crate) fn end_now(&self) {
        match self.state.try_lock() {
            Ok(mut state) => state.show.end(),
            Err(TryLockError::Poisoned(state)) => state.into_inner().show.end(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// A panic while something was shown is no reason to say nothing more.
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
