//! How failures of other crates become answers of this program.

pub use errors::{Error, Kind, Result};

/// A failure of the sandbox.
pub(crate) fn sandbox(doing: &str, cause: sandbox::Error) -> Error {
    Error::new(Kind::Machine, doing).because(cause)
}

/// A bug of ours that was noticed in time.
pub(crate) fn bug(what: &str) -> Error {
    Error::new(Kind::Bug, what)
}
