//! A failure: its kind (which decides the exit code), what happened, why, and what to do next.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use crate::{chain, output};

/// A result of the program's own layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure, one exit code each; the same for both programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line contradicts itself.
    Usage,
    /// A Dockerfile, configuration, statement or image is malformed or not supported.
    Input,
    /// A commit, base, image or file does not exist.
    NotFound,
    /// The answer is no: what was asked for was refused, for instance for want of reviews.
    Refused,
    /// A step of the build ended with an error.
    Step,
    /// The network or a registry.
    Network,
    /// A key, password or signature.
    Key,
    /// The machine: not root, no runtime, disk full, a mount.
    Machine,
    /// A bug of ours.
    Bug,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Input => 3,
            Self::NotFound => 4,
            Self::Step => 5,
            Self::Network => 6,
            Self::Key => 7,
            Self::Machine => 8,
            Self::Bug => 70,
        }
    }

    /// The name used in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Usage => "usage",
            Self::Input => "input",
            Self::NotFound => "not-found",
            Self::Step => "step",
            Self::Network => "network",
            Self::Key => "key",
            Self::Machine => "machine",
            Self::Bug => "bug",
        }
    }
}

/// The kind of a failure whose crate knows nothing of kinds, and says in the standard library's words what it was.
impl From<io::ErrorKind> for Kind {
    fn from(kind: io::ErrorKind) -> Self {
        use io::ErrorKind as Io;
        match kind {
            Io::NotFound => Self::NotFound,
            Io::InvalidData | Io::InvalidInput | Io::UnexpectedEof => Self::Input,
            Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted => Self::Network,
            _ => Self::Machine,
        }
    }
}

/// A failure with its kind, its causes and a hint on what to do next.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure that has no deeper cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), hint: None, cause: None }
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds lines that belong to it, such as the last output of a command.
    #[must_use]
    pub fn details(mut self, lines: Vec<String>) -> Self {
        self.details = lines;
        self
    }

    /// Adds the error underneath. A full disk below turns any kind into [`Kind::Machine`].
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause = cause.into();
        if disk_is_full(&*cause) {
            self.kind = Kind::Machine;
            self.hint = Some(
                "the disk is full: free some space, or put the state directory elsewhere with --state-dir"
                    .into(),
            );
        }
        self.cause = Some(cause);
        self
    }

    /// A failed file operation on `path`; the kind follows from the operating system's answer.
    pub fn io(doing: &str, path: &Path, cause: std::io::Error) -> Self {
        let kind = match cause.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Machine,
        };
        let error = Self::new(kind, format!("{doing} {}", path.display()));
        if cause.kind() == std::io::ErrorKind::PermissionDenied {
            return error
                .hint("the program may not touch that path: run it as root, or choose another path")
                .because(cause);
        }
        error.because(cause)
    }

    /// Which kind, and so which exit code.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The lines that belong to it.
    pub fn detail_lines(&self) -> &[String] {
        &self.details
    }

    /// What to do about it, when we know.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The causes below the message, outermost first, without repeating what one above already said.
    pub fn causes(&self) -> Vec<String> {
        chain::causes(self)
    }

    /// Whether it is only that the reader of standard output went away, as `| head` does.
    pub fn is_closed_output(&self) -> bool {
        output::is_closed(self)
    }

    /// The form given with `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "event": "error",
            "kind": self.kind.name(),
            "exit_code": self.kind.exit_code(),
            "message": self.message,
            "details": self.details,
            "causes": self.causes(),
            "hint": self.hint,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.cause {
            Some(cause) => Some(&**cause),
            None => None,
        }
    }
}

fn disk_is_full(error: &(dyn StdError + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    chain::any::<std::io::Error>(error, |io| matches!(io.kind(), StorageFull | QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_below_decides_the_kind() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::new(Kind::Input, "writing the layer").because(full);
        assert_eq!(error.kind().exit_code(), 8);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("disk is full")));
    }

    #[test]
    fn causes_are_told_once() {
        let inner = Error::new(Kind::Input, "line 3: unknown instruction");
        let outer = Error::new(Kind::Input, "line 3: unknown instruction").because(inner);
        assert_eq!(outer.causes(), Vec::<String>::new());
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(Error::io("reading", Path::new("/x"), missing).kind(), Kind::NotFound);
    }
}
