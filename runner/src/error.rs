//! How the failures of the other rooms become answers of this program.

pub use errors::{Error, Kind, Result};

/// A failure of the images' room, with its kind.
pub fn images(doing: &str, cause: images::Error) -> Error {
    Error::new(cause.io_kind().into(), doing).hint(cause.remedy()).because(cause)
}

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
