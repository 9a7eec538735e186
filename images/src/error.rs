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
        /// What kind of failure it is, for whoever decides what to do next.
        failure: RegistryFailure,
        /// What happened, with all its causes.
        reason: String,
        /// The error underneath, where there is one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// How a registry, or the way to it, failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFailure {
    /// Credentials are missing, cannot be read, were refused, or do not reach that far (401, 403).
    Unauthorized,
    /// Nobody knows a host of that name.
    UnknownHost,
    /// The server's certificate is not believed, or TLS failed otherwise.
    Tls,
    /// Nothing listens there.
    ConnectionRefused,
    /// It did not answer in time.
    TimedOut,
    /// The connection broke, or could not be made for another reason.
    Connection,
    /// It answered, but not what was asked for.
    Answer,
}

impl RegistryFailure {
    /// What a person can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Unauthorized => "log in with `docker login REGISTRY`, as somebody who may do this there",
            Self::UnknownHost => "check the registry's name, and this machine's name service",
            Self::Tls => {
                "add the authority of the registry's certificate (PEM), or name the host as one that speaks plain HTTP"
            }
            Self::ConnectionRefused => "check that the registry runs, and its port",
            Self::TimedOut => {
                "check that this machine reaches the registry, or name a mirror that it reaches"
            }
            Self::Connection | Self::Answer => {
                "check the registry's name, that it runs, and your credentials for it"
            }
        }
    }
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn refused(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn registry(registry: &str, failure: RegistryFailure, reason: impl Into<String>) -> Self {
        Self::Registry { registry: registry.to_owned(), failure, reason: reason.into(), source: None }
    }

    /// What a program says when this stopped it while it was `doing` something.
    pub fn during(self, doing: impl Into<String>) -> errors::Error {
        use errors::Kind;
        let (kind, hint) = match &self {
            Self::Io { .. } => (Kind::Machine, "check the rights and the space of that path"),
            Self::NotFound { .. } => (Kind::NotFound, "check the name, and that it was built or pushed"),
            Self::Registry { failure: RegistryFailure::Unauthorized, .. } => {
                (Kind::Key, RegistryFailure::Unauthorized.hint())
            }
            Self::Registry { failure, .. } => (Kind::Network, failure.hint()),
            Self::Digest { .. } | Self::Size { .. } => {
                (Kind::Input, "the content was changed or damaged: fetch it again from a source you trust")
            }
            Self::TooLarge { .. } | Self::Refused { .. } => {
                (Kind::Input, "the image is malformed or of a kind that is not supported")
            }
        };
        // The hint comes first: a full disk below has its own.
        errors::Error::new(kind, doing).hint(hint).because(self)
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

/// What a program says of a failure of this crate: whose fault it is, and what to do next.
impl From<Error> for errors::Error {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        error.during(what)
    }
}
