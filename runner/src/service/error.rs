//! Why the server could not be started, or stopped by itself.

use std::{io, path::PathBuf};

use super::queue;

/// Why the server could not be started, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody already listens there.
    #[error("another server already listens on {}", .0.display())]
    InUse(PathBuf),
    /// The path is taken by something that is not a socket.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The address can be reached by other machines.
    #[error("{0} is not a loopback address; the interface is never opened to other machines")]
    NotLoopback(std::net::SocketAddr),
    /// The token's file can be read by others, or holds no usable token.
    #[error("the token file {} is not usable: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Others may change the token's file.
    #[error(transparent)]
    Untrusted(#[from] errors::Error),
    /// A file or socket could not be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The network or the runtime failed.
    #[error("the server failed: {0}")]
    Io(#[from] io::Error),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] queue::Error),
}
