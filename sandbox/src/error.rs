use std::io;
use std::path::{Path, PathBuf};

/// Why a sandbox could not be made or run.
///
/// A command that ran and failed is not an error: see [`crate::Exit`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces, mounts and cgroups need root.
    #[error("the sandbox needs root, and this process has user id {uid}")]
    NotRoot {
        /// The effective user id found.
        uid: u32,
    },
    /// No OCI runtime is installed.
    #[error("no `runc` in {searched}: install the distribution's runc package")]
    NoRuntime {
        /// The directories that were looked through.
        searched: String,
    },
    /// A file or directory could not be used.
    #[error("{action} {}: {source}", path.display())]
    Path {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A system call that has no path failed.
    #[error("{action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A listener could not be planted.
    #[error("bind {address} in the sandbox's network: {source}")]
    Bind {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The process lives in our own network namespace, which is not a sandbox's.
    #[error("process {pid} shares this machine's network: it is in no sandbox")]
    NotIsolated {
        /// The process asked about.
        pid: u32,
    },
    /// The caller asked for something that cannot be expressed.
    #[error("{what}: {why}")]
    Invalid {
        /// The value at fault.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `USER` names somebody that the image does not have.
    #[error("no {kind} `{name}` in the image's {file}")]
    NoSuchUser {
        /// `user` or `group`.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The file that was read.
        file: &'static str,
    },
    /// The OCI runtime failed before the process ran.
    #[error("runc: {message}")]
    Runtime {
        /// The runtime's own words.
        message: String,
    },
    /// A process tree did not die within the time given after it was killed.
    #[error("the container {id} did not end within {seconds} s after it was killed")]
    Stuck {
        /// The runtime's name for it.
        id: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl Error {
    pub(crate) fn path(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Path { action, path, source }
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
