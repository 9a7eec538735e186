//! The options of a command that opens a key.

use std::path::{Path, PathBuf};

use attestations::Signer;
use signers::PasswordSource;

use crate::error::Result;
use crate::progress::Event;
use crate::workspace::Workspace;

/// Where a key's password comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct PasswordArguments {
    /// File whose first line is the key's password; without it, COUNTERSIGN_KEY_PASSWORD is used, or you are asked.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArguments {
    /// The source of the password.
    pub(super) fn source(&self) -> PasswordSource {
        PasswordSource::of(self.password_file.clone())
    }

    /// Opens a key, and warns if other users may read its file.
    ///
    /// # Errors
    /// When the key cannot be opened.
    pub(super) fn open(&self, path: &Path, workspace: &Workspace) -> Result<Box<dyn Signer>> {
        let warn = |message: &str| workspace.report(&Event::Warning { message, path: Some(path) });
        signers::open(path, &self.source(), &mut { warn })
    }
}
