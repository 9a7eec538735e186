//! How the failures of other crates become answers of this program.

pub use admission::image_error;
pub use errors::{Error, Kind, Result};

/// A failure of the sandbox.
pub fn sandbox(doing: &str, cause: sandbox::Error) -> Error {
    Error::new(Kind::Machine, doing).because(cause)
}

/// A failure of the proxy.
pub fn egress(cause: crate::egress::Error) -> Error {
    Error::new(Kind::Machine, "serving the algorithm's way out").because(cause)
}

/// A bug of ours that was noticed in time.
pub fn bug(what: &str) -> Error {
    Error::new(Kind::Bug, what)
}
