//! What can go wrong with a log, and whose fault it is.

use std::path::{Path, PathBuf};

use attestations::{Foreign, SignError};
use errors::Kind;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not of the form that its specification gives.
    #[error("not a well-formed {what}: {problem}")]
    Malformed {
        /// What it was taken for.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A note has no signature by the key that it has to have one of.
    #[error("nothing is signed by the key {0}")]
    Unsigned(String),
    /// A signature that names a known key was not made by it.
    #[error("the signature that names the key {0} was not made by it")]
    Forged(String),
    /// A checkpoint of another log.
    #[error("the checkpoint is of the log `{found}`, not of `{wanted}`")]
    OtherLog {
        /// Which log it is of.
        found: Foreign,
        /// Which one was asked for.
        wanted: String,
    },
    /// Only Ed25519 keys sign checkpoints.
    #[error("checkpoints are signed with Ed25519 keys, and this is a key for {0}")]
    Algorithm(attestations::Algorithm),
    /// A proof, or the log itself, does not give the hash that was signed.
    #[error("the log does not verify: {0}")]
    Unproven(String),
    /// An entry that is not there.
    #[error("the log has no entry {index}: it has {size}")]
    NoEntry {
        /// The entry asked for.
        index: u64,
        /// How many there are.
        size: u64,
    },
    /// An entry that no bundle can hold.
    #[error("an entry of {size} bytes: 65535 are the most")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The files hold more than one append could have left behind: the checkpoint is older than they are.
    #[error("{} holds more entries than the {size} of its checkpoint", .folder.display())]
    Behind {
        /// The log.
        folder: PathBuf,
        /// The entries of the checkpoint.
        size: u64,
    },
    /// There are tiles without a checkpoint, or there is no log at all.
    #[error("{} has no checkpoint", .0.display())]
    NoCheckpoint(PathBuf),
    /// A file cannot be used.
    #[error("{doing} {}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The holder of the log's key refused.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed { what, problem: problem.into() }
    }

    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

impl From<Error> for errors::Error {
    fn from(error: Error) -> Self {
        let (kind, hint) = match &error {
            Error::Malformed { .. } | Error::TooLarge { .. } => (Kind::Input, None),
            Error::NoEntry { .. } => {
                (Kind::NotFound, Some("`countersign-runner log show` lists the entries"))
            }
            Error::Unsigned(_) | Error::Forged(_) | Error::OtherLog { .. } | Error::Unproven(_) => {
                (Kind::Refused, Some("keep the files as they are, and find out who changed them"))
            }
            Error::Algorithm(_) => {
                (Kind::Key, Some("make an Ed25519 key: `countersign-builder keygen --algorithm ed25519`"))
            }
            Error::Behind { .. } => (
                Kind::Machine,
                Some("its checkpoint was put back to an older one: restore the whole folder from one moment"),
            ),
            Error::NoCheckpoint(_) => (Kind::NotFound, Some("restore the whole folder from one moment")),
            Error::File { source, .. } => (Kind::from(source.kind()), None),
            Error::Sign(_) => (Kind::Key, None),
        };
        let new = errors::Error::new(kind, error.to_string());
        let new = hint.into_iter().fold(new, errors::Error::hint);
        match error {
            Error::File { source, .. } => new.because(source),
            _ => new,
        }
    }
}
