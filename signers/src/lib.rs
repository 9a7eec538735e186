//! Everything that can sign, for every program: keys in files, PKCS#8 PEM, plain or encrypted, and OpenSSH private keys as
//! people have them; and keys in an SSH agent.
//!
//! Only Ed25519 and ECDSA P-256 with SHA-256. Deliberately absent: RSA, security keys, keyless signing.

mod agent;
mod generate;
mod password;
mod private;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use attestations::keys::Signer;
use errors::{Kind, files, trusted};
use zeroize::Zeroizing;

pub use generate::{Generated, Protection, generate};
pub use password::PasswordSource;

/// Largest key file read, in bytes. Real ones have a few hundred.
const MAX_FILE: u64 = 64 << 10;

/// What can go wrong with a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key file is missing, or others may change it.
    #[error(transparent)]
    Unread(errors::Error),
    /// The key file could not be written.
    #[error("{doing} {}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// `keygen` never overwrites.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// The file is no private key of a known format.
    #[error("{} is not a private key: {problem}", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// A key of a kind that is not used here.
    #[error("{}: {found} keys are not supported", .path.display())]
    Unsupported {
        /// Which file.
        path: PathBuf,
        /// The kind of key.
        found: String,
    },
    /// The key is encrypted and the password does not open it.
    #[error("wrong password for {}", .0.display())]
    WrongPassword(PathBuf),
    /// The SSH agent cannot be used, or has no such key.
    #[error("the SSH agent: {problem}")]
    Agent {
        /// What is wrong.
        problem: String,
    },
    /// No password could be had.
    #[error("no password")]
    NoPassword(#[from] password::Error),
    /// The key could not be made.
    #[error("making the key failed")]
    Generation,
}

impl From<Error> for errors::Error {
    fn from(error: Error) -> errors::Error {
        let error = match error {
            Error::Unread(error) | Error::NoPassword(password::Error::Unread(error)) => return error,
            other => other,
        };
        let (kind, hint) = match &error {
            Error::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                (Kind::NotFound, "")
            }
            Error::File { .. } | Error::Unread(_) => (Kind::Machine, ""),
            Error::Exists(_) => (Kind::Key, "choose another name; a lost key cannot be made again"),
            Error::Malformed { .. } => {
                (Kind::Key, "`openssl pkcs8 -topk8 -in OLD -out NEW` turns other PEM keys into PKCS#8")
            }
            Error::Unsupported { .. } => {
                (Kind::Key, "use an Ed25519 or P-256 key; `countersign-builder keygen` makes one")
            }
            Error::WrongPassword(_) => (Kind::Key, ""),
            Error::NoPassword(_) => {
                (Kind::Key, "give --password-file, set COUNTERSIGN_KEY_PASSWORD, or run it on a terminal")
            }
            Error::Agent { .. } => (
                Kind::Key,
                "`ssh-add -l` lists what the agent has; name a key as ssh-agent:FILE.pub or ssh-agent:COMMENT",
            ),
            Error::Generation => (Kind::Key, ""),
        };
        let new = errors::Error::new(kind, error.to_string());
        let new = if hint.is_empty() { new } else { new.hint(hint) };
        new.because(error)
    }
}

/// Loads the private key at `path`. `password` is asked only if the key is encrypted, and only once.
///
/// # Errors
/// See [`Error`]; a wrong password is [`Error::WrongPassword`].
pub fn load(
    path: &Path,
    password: &mut dyn FnMut() -> Result<Zeroizing<String>, password::Error>,
) -> Result<Box<dyn Signer>, Error> {
    let text = read(path)?;
    private::parse(path, &text, password)
}

/// Loads a key, and warns when others may read its file. `ssh-agent:NAME` is a key in the SSH agent of this process.
///
/// # Errors
/// As [`load`].
pub fn open(
    path: &Path,
    password: &PasswordSource,
    warn: &mut dyn FnMut(&str),
) -> errors::Result<Box<dyn Signer>> {
    open_at(path, password, warn, std::env::var_os("SSH_AUTH_SOCK"))
}

/// As [`open`], with the agent's socket.
///
/// # Errors
/// As [`load`].
pub fn open_at(
    path: &Path,
    password: &PasswordSource,
    warn: &mut dyn FnMut(&str),
    agent: Option<OsString>,
) -> errors::Result<Box<dyn Signer>> {
    if let Some(choice) = agent::choice(path) {
        return Ok(agent::open(&choice, agent)?);
    }
    if let Some(mode) = exposure(path) {
        warn(&format!("others may read {} (mode {mode:03o}); chmod 600 it", path.display()));
    }
    Ok(load(path, &mut || password.existing(path))?)
}

/// The permission bits of a key file that others than its owner may use, if any.
pub fn exposure(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let malformed = |problem: &str| Error::Malformed { path: path.to_owned(), problem: problem.to_owned() };
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let file = trusted::open(path).map_err(Error::Unread)?;
    files::fill(&mut bytes, file, path, MAX_FILE).map_err(|error| match error.kind() {
        Kind::Input => malformed("it is larger than 64 KiB"),
        _ => Error::Unread(error),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("it is not text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests;
