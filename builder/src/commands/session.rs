//! State shared by all commands, and the printing of their results.

use errors::{Form, output};

use crate::error::Result;
use crate::progress::{Mode, Progress};
use crate::workspace::Workspace;

/// The result of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or identical: exit code 0.
    Yes,
    /// Differs: exit code 1.
    No,
}

/// A workspace and the form of the result.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    workspace: Workspace,
    form: Form,
}

impl Session {
    /// A session with its state below `state_dir`.
    pub(crate) fn new(state_dir: impl Into<std::path::PathBuf>, form: Form, progress: Mode) -> Self {
        Self { workspace: Workspace::new(state_dir, Progress::new(progress).into()), form }
    }

    /// The state directory and the reporter, for the parts below the command line.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// The form of the result.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Prints the result of a command: `text` for people, or `value` as one line of JSON.
    ///
    /// # Errors
    /// When standard output cannot be written, so that a lost result is never taken for a success.
    pub(crate) fn result(&self, text: &str, value: &serde_json::Value) -> Result<()> {
        self.workspace.progress().end();
        output::result(self.form, text, value)
    }
}
