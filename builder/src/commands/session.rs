//! What every command shares, and how its result is printed.

use std::io::Write as _;

use crate::error::{Error, Kind, Result};
use crate::progress::{self, Mode, Progress};
use crate::workspace::Workspace;

/// What a command answered when nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or identical: exit code 0.
    Yes,
    /// Differs: exit code 1.
    No,
}

/// Who reads the result on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// A person: text.
    Text,
    /// A program: one line of JSON.
    Json,
}

/// A workspace, and how the result is printed.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    workspace: Workspace,
    output: Output,
}

impl Session {
    /// A session with its state below `state_dir`.
    pub(crate) fn new(state_dir: impl Into<std::path::PathBuf>, output: Output, progress: Mode) -> Self {
        Self { workspace: Workspace::new(state_dir, Progress::new(progress).into()), output }
    }

    /// The state directory and the reporter, which is all that the parts below the command line get.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// Who reads the result.
    pub(crate) fn output(&self) -> Output {
        self.output
    }

    /// Prints the result of a command: `text` for people, or `value` as one line of JSON.
    ///
    /// # Errors
    /// When standard output cannot be written, so that a lost result is never taken for a success.
    pub(crate) fn result(&self, text: &str, value: &serde_json::Value) -> Result<()> {
        self.workspace.progress().end();
        let mut out = std::io::stdout().lock();
        let written = match self.output {
            Output::Json => writeln!(out, "{}", progress::json(value)),
            // Names of files and of what came over the network stand in it.
            Output::Text => writeln!(out, "{}", progress::lines(text.trim_end_matches('\n'))),
        };
        written
            .and_then(|()| out.flush())
            .map_err(|cause| Error::new(Kind::Machine, "writing the result").because(cause))
    }
}
