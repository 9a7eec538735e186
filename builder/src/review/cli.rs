//! The subcommand.

use crate::cli::{Answer, Session};
use crate::error::Result;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs it.
///
/// # Errors
/// See [`crate::error::Kind`].
pub fn run(_arguments: Arguments, _session: &Session) -> Result<Answer> {
    unimplemented!()
}
