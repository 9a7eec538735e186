//! How failures of the crate `images` become answers of a program.

use errors::{Error, Kind};

/// A failure of the registry, the store or an image, with its kind and what to do about it.
pub fn image_error(doing: &str, cause: images::Error) -> Error {
    use images::{Error as E, RegistryFailure};
    let kind = match &cause {
        E::NotFound { .. } => Kind::NotFound,
        E::Registry { failure: RegistryFailure::Unauthorized, .. } => Kind::Key,
        E::Registry { .. } => Kind::Network,
        E::Io { .. } => Kind::Machine,
        E::Digest { .. } | E::Size { .. } | E::TooLarge { .. } | E::Refused { .. } => Kind::Input,
    };
    let error = Error::new(kind, doing);
    let error = match &cause {
        E::Registry { failure, .. } => error.hint(failure.hint()),
        _ => error,
    };
    // After the hint: a full disk below has its own.
    error.because(cause)
}
