//! What can go wrong with images, sorted by whose fault it is.

use std::io;
use std::path::{Path, PathBuf};

use attestations::Digest;

/// Why content could not be read, written, fetched or pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused something at a path.
    #[error("{doing} {}: {cause}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The machine's own word.
        #[source]
        cause: io::Error,
    },
    /// Nothing is stored under this name.
    #[error("{what} is not there")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The bytes are not those their name promises.
    #[error("{what} should have the digest {wanted}, but has {found}")]
    Digest {
        /// What was read.
        what: String,
        /// The digest it was asked for by.
        wanted: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// The bytes are fewer or more than was promised.
    #[error("{what} should have {wanted} bytes, but has {found}")]
    Size {
        /// What was read.
        what: String,
        /// The size that was promised.
        wanted: u64,
        /// The size that came, or a lower bound of it.
        found: u64,
    },
    /// More than is taken from a stranger.
    #[error("{what} has more than {limit} bytes, the most that are read")]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Foreign content of a form that is refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What was read.
        what: String,
        /// Why it is refused.
        reason: String,
    },
    /// The registry, or the way to it, failed.
    #[error("{registry}: {reason}")]
    Registry {
        /// Its host.
        registry: String,
        /// What happened.
        reason: String,
    },
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn refused(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), reason: reason.into() }
    }

    /// What kind of failure it is, in the standard library's words, so that programs can sort it into theirs without
    /// a list of their own: `NotFound`; `HostUnreachable` for a registry or the way to it; `InvalidData` for content;
    /// `Other` for the machine.
    pub fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { .. } => io::ErrorKind::Other,
            Self::NotFound { .. } => io::ErrorKind::NotFound,
            Self::Registry { .. } => io::ErrorKind::HostUnreachable,
            Self::Digest { .. } | Self::Size { .. } | Self::TooLarge { .. } | Self::Refused { .. } => {
                io::ErrorKind::InvalidData
            }
        }
    }

    /// What whoever called the program can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the rights and the space of that path",
            Self::NotFound { .. } => "check the name, and that it was built or pushed",
            Self::Registry { .. } => "check the registry's name, that it runs, and your credentials for it",
            Self::Digest { .. } | Self::Size { .. } => {
                "the content was changed or damaged: fetch it again from a source you trust"
            }
            Self::TooLarge { .. } | Self::Refused { .. } => {
                "the image is malformed or of a kind that is not supported"
            }
        }
    }
}

/// Gives an I/O error the path and the deed it belongs to.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T> {
        // What a reader of ours found wrong comes back as what it is.
        self.map_err(|cause| match cause.into().downcast::<Error>() {
            Ok(ours) => ours,
            Err(cause) => Error::Io { doing, path: path.as_ref().to_owned(), cause },
        })
    }
}
