//! How failures of the crate `images` become answers of a program.

use errors::{Error, Kind};

/// A failure of the registry, the store or an image, with its kind.
pub fn image_error(doing: &str, cause: images::Error) -> Error {
    use images::Error as E;
    let kind = match &cause {
        E::NotFound { .. } => Kind::NotFound,
        E::Registry { .. } => Kind::Network,
        E::Io { .. } => Kind::Machine,
        E::Digest { .. } | E::Size { .. } | E::TooLarge { .. } | E::Refused { .. } => Kind::Input,
    };
    Error::new(kind, doing).because(cause)
}
