//! Errors of this crate, by whose fault they are.

use std::io;
use std::path::{Path, PathBuf};

use attestations::Digest;

/// Why content could not be read, written, fetched or pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine failed at a path.
    #[error("{doing} {}: {cause}", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// There is nothing of this name.
    #[error("{what} is not there")]
    NotFound {
        /// The name.
        what: String,
    },
    /// The bytes do not match the requested digest.
    #[error("{what} should have the digest {wanted}, but has {found}")]
    Digest {
        /// What was read.
        what: String,
        /// The requested digest.
        wanted: Digest,
        /// The actual digest.
        found: Digest,
    },
    /// The bytes are fewer or more than the requested size.
    #[error("{what} should have {wanted} bytes, but has {found}")]
    Size {
        /// What was read.
        what: String,
        /// The requested size.
        wanted: u64,
        /// The actual size, or a lower bound of it.
        found: u64,
    },
    /// More than the limit for foreign content.
    #[error("{what} has more than {limit} bytes, the most that are read")]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Foreign content that is refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What was read.
        what: String,
        /// The reason.
        reason: String,
    },
    /// More of something than is looked at. A choice among it could leave out a veto.
    #[error("{what}: {count} are there, and {most} are the most that are looked at")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// How many there are at least.
        count: usize,
        /// The limit.
        most: usize,
    },
    /// The registry does not take what is about this image, perhaps since it does not have the image.
    #[error("what is attached to {what} is refused: {reason}")]
    NoSubject {
        /// The image.
        what: String,
        /// The registry's answer.
        reason: String,
    },
    /// The registry lets nothing be attached to the image.
    #[error("nothing can be attached to images in {repository}: {reason}")]
    CannotAttach {
        /// The repository.
        repository: String,
        /// The reason.
        reason: String,
    },
    /// The registry, or the connection to it, failed.
    #[error("{registry}: {reason}")]
    Registry {
        /// Its host.
        registry: String,
        /// The kind of failure.
        failure: RegistryFailure,
        /// The message, with all causes.
        reason: String,
        /// The underlying error, if any.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// The kinds of failures of a registry, or of the connection to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFailure {
    /// Credentials are missing, unreadable, refused or insufficient (401, 403).
    Unauthorized,
    /// The host name is unknown.
    UnknownHost,
    /// The server's certificate is not trusted, or TLS failed otherwise.
    Tls,
    /// Nothing listens there.
    ConnectionRefused,
    /// It did not answer in time.
    TimedOut,
    /// The connection broke, or could not be made for another reason.
    Connection,
    /// It sent an unexpected response.
    Answer,
}

impl RegistryFailure {
    /// A hint for the user.
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

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn refused(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn registry(registry: &str, failure: RegistryFailure, reason: impl Into<String>) -> Self {
        Self::Registry { registry: registry.to_owned(), failure, reason: reason.into(), source: None }
    }

    /// The program's error when this happened while it was `doing` something.
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
            Self::NoSubject { .. } | Self::CannotAttach { .. } => (
                Kind::Network,
                "push to another registry; or keep the statements as files (`build --bundle-out`), which \
                 `verify --evidence` takes",
            ),
            Self::TooMany { .. } => {
                (Kind::Input, "remove what does not belong to the image from its registry")
            }
            Self::TooLarge { .. } | Self::Refused { .. } => {
                (Kind::Input, "the image is malformed or of a kind that is not supported")
            }
        };
        // The hint is set first, so that a more specific one, such as for a full disk, replaces it.
        errors::Error::new(kind, doing).hint(hint).because(self)
    }
}

/// Adds the path and the operation to an I/O error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T> {
        // An error of our own readers is passed on as it is.
        self.map_err(|cause| match cause.into().downcast::<Error>() {
            Ok(ours) => ours,
            Err(cause) => Error::Io { doing, path: path.as_ref().to_owned(), cause },
        })
    }
}

/// The program's error, with its kind and a hint.
impl From<Error> for errors::Error {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        error.during(what)
    }
}
