//! Where the password of a key comes from.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use errors::{files, trusted};
use zeroize::Zeroizing;

/// The variable that may hold the password.
const VARIABLE: &str = "COUNTERSIGN_KEY_PASSWORD";

/// Longest password, in bytes.
const MAX_PASSWORD: u64 = 4096;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is missing, or others may change it.
    #[error(transparent)]
    Unread(errors::Error),
    /// Nobody can be asked.
    #[error("the key {} is encrypted and there is no terminal to ask for its password", .0.display())]
    NoTerminal(PathBuf),
    /// The terminal failed.
    #[error("asking for the password")]
    Prompt(#[source] std::io::Error),
    /// An empty password protects nothing.
    #[error("the password is empty")]
    Empty,
    /// The two entries of a new password are not the same.
    #[error("the two passwords are not the same")]
    Different,
    /// Longer than any real one, or not text.
    #[error("the password is longer than 4096 bytes, or not text")]
    Malformed,
}

/// Where a password comes from.
pub enum PasswordSource {
    /// The first line of a file.
    File(PathBuf),
    /// Already known.
    Given(Zeroizing<String>),
    /// The person at the terminal.
    Terminal,
}

impl PasswordSource {
    /// A file, if one is given; otherwise what `COUNTERSIGN_KEY_PASSWORD` holds, or the person at the terminal.
    pub fn of(file: Option<PathBuf>) -> Self {
        match (file, std::env::var(VARIABLE)) {
            (Some(path), _) => Self::File(path),
            (None, Ok(password)) => Self::Given(Zeroizing::new(password)),
            (None, Err(_)) => Self::Terminal,
        }
    }

    /// The password of an existing key.
    ///
    /// # Errors
    /// When the source has none.
    pub fn existing(&self, key: &Path) -> Result<Zeroizing<String>, Error> {
        match self {
            PasswordSource::File(path) => first_line(path),
            PasswordSource::Given(password) => not_empty(password.clone()),
            PasswordSource::Terminal => prompt(key, &format!("Password for {}: ", key.display())),
        }
    }

    /// The password for a new key, asked for twice at a terminal.
    ///
    /// # Errors
    /// When the source has none, or the two entries differ.
    pub fn new_one(&self, key: &Path) -> Result<Zeroizing<String>, Error> {
        if !matches!(self, PasswordSource::Terminal) {
            return self.existing(key);
        }
        let first = prompt(key, &format!("New password for {}: ", key.display()))?;
        let second = prompt(key, "The same again: ")?;
        if *first != *second {
            return Err(Error::Different);
        }
        Ok(first)
    }
}

fn prompt(key: &Path, text: &str) -> Result<Zeroizing<String>, Error> {
    // The prompt itself uses the controlling terminal; a standard input that is none means nobody is there.
    if !std::io::stdin().is_terminal() {
        return Err(Error::NoTerminal(key.to_owned()));
    }
    not_empty(Zeroizing::new(rpassword::prompt_password(text).map_err(Error::Prompt)?))
}

fn first_line(path: &Path) -> Result<Zeroizing<String>, Error> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD as usize + 2));
    let file = trusted::open(path).map_err(Error::Unread)?;
    files::fill(&mut bytes, file, path, MAX_PASSWORD).map_err(|error| match error.kind() {
        errors::Kind::Input => Error::Malformed,
        _ => Error::Unread(error),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::Malformed)?;
    not_empty(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn not_empty(password: Zeroizing<String>) -> Result<Zeroizing<String>, Error> {
    if password.is_empty() { Err(Error::Empty) } else { Ok(password) }
}
