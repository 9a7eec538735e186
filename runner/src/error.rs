//! How the failures of the other rooms become answers of this program.

pub use errors::{Error, Kind, Result};

/// A failure of the images' room, with its kind.
pub fn images(doing: &str, cause: images::Error) -> Error {
    use images::{Error as E, RegistryFailure};
    let kind = match &cause {
        E::NotFound { .. } => Kind::NotFound,
        E::Registry { failure: RegistryFailure::Unauthorized, .. } => Kind::Key,
        E::Registry { .. } => Kind::Network,
        E::Io { .. } => Kind::Machine,
        E::Digest { .. } | E::Size { .. } | E::TooLarge { .. } | E::Refused { .. } => Kind::Input,
    };
    let hint = match &cause {
        E::Registry { failure, .. } => Some(failure.hint()),
        _ => None,
    };
    let error = Error::new(kind, doing);
    let error = match hint {
        Some(hint) => error.hint(hint),
        None => error,
    };
    // After the hint: a full disk below has its own.
    error.because(cause)
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
