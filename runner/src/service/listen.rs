//! Where the interface listens: a Unix socket that its group may use, or a loopback address that asks for a token.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use errors::trusted;

use super::error::Error;

/// Fewest characters of a token: 128 bits in hexadecimal.
const MIN_TOKEN: usize = 32;
/// Most bytes of a token's file.
const MAX_TOKEN: u64 = 4096;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket, mode 0660: who may open it may submit tasks.
    Unix(PathBuf),
    /// A loopback address. Every local user can reach it, so a token is required.
    Loopback {
        /// The address; port 0 takes a free one.
        address: SocketAddr,
        /// The token's file, mode 0600; made with a fresh token when it does not exist.
        token_file: PathBuf,
    },
}

/// How a caller shows that it may.
#[derive(Clone)]
pub(super) enum Guard {
    /// By being able to open the socket's file.
    Socket,
    /// By the token; and the Host must be ours, so that no web page reaches it through a name of its own.
    Token { token: Arc<str>, port: u16 },
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Guard::Socket => "Guard::Socket",
            Guard::Token { .. } => "Guard::Token(redacted)",
        })
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// This user of the machine, by the kernel's word.
    User(u32),
    /// Nobody in particular: whoever has the token, which several may.
    Unknown,
}

impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tokio::net::UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(credentials) => Peer::User(credentials.uid()),
            Err(error) => {
                // Whom no rule lists.
                tracing::warn!(%error, "the kernel does not say who is at the other end");
                Peer::Unknown
            }
        }
    }
}

impl Connected<IncomingStream<'_, tokio::net::TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, tokio::net::TcpListener>) -> Self {
        Peer::Unknown
    }
}

/// A listener that is bound, but not yet served.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    guard: Guard,
}

#[derive(Debug)]
enum Socket {
    Unix(tokio::net::UnixListener, OwnPath),
    Tcp(tokio::net::TcpListener, SocketAddr),
}

/// The socket's file, removed with the listener.
#[derive(Debug)]
struct OwnPath(PathBuf);

impl Drop for OwnPath {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "the socket could not be removed");
        }
    }
}

impl Listen {
    /// Binds, inside a tokio runtime. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When somebody listens there, the address is not loopback, or the token's file is not private.
    pub fn bind(&self) -> Result<Bound, Error> {
        match self {
            Listen::Unix(path) => {
                let listener = bind_unix(path)?;
                Ok(Bound { socket: Socket::Unix(listener, OwnPath(path.clone())), guard: Guard::Socket })
            }
            Listen::Loopback { address, .. } if !address.ip().is_loopback() => {
                Err(Error::NotLoopback(*address))
            }
            Listen::Loopback { address, token_file } => {
                let token = token(token_file)?;
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let address = listener.local_addr()?;
                let guard = Guard::Token { token: token.into(), port: address.port() };
                Ok(Bound { socket: Socket::Tcp(listener, address), guard })
            }
        }
    }
}

impl Bound {
    /// Where it listens, as text: a path or an address.
    pub fn address(&self) -> String {
        match &self.socket {
            Socket::Unix(_, path) => path.0.display().to_string(),
            Socket::Tcp(_, address) => format!("http://{address}"),
        }
    }

    pub(super) fn guard(&self) -> Arc<Guard> {
        Arc::new(self.guard.clone())
    }

    pub(super) async fn serve(self, router: axum::Router) -> Result<(), Error> {
        match self.socket {
            Socket::Unix(listener, _path) => {
                axum::serve(listener, router.into_make_service_with_connect_info::<Peer>()).await?;
            }
            Socket::Tcp(listener, _) => {
                axum::serve(listener, router.into_make_service_with_connect_info::<Peer>()).await?;
            }
        }
        Ok(())
    }
}

/// Binds in a private folder beside the path, sets the mode, and moves the socket into place: at no moment can anybody
/// but its owner and group open it.
fn bind_unix(path: &Path) -> Result<tokio::net::UnixListener, Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            _ => return Err(Error::InUse(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::File { path: path.to_owned(), source }),
    }
    let fail = |source| Error::File { path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = tempfile::Builder::new().prefix(".s").tempdir_in(parent).map_err(fail)?;
    let beside = private.path().join("s");
    let listener = tokio::net::UnixListener::bind(&beside).map_err(fail)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o660)).map_err(fail)?;
    fs::rename(&beside, path).map_err(fail)?;
    Ok(listener)
}

/// Reads the token, or makes one.
fn token(path: &Path) -> Result<String, Error> {
    let fail = |source| Error::File { path: path.to_owned(), source };
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let mut random = [0u8; 32];
            File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random)).map_err(fail)?;
            let token = hex::encode(random);
            file.write_all(token.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
            drop(file);
            // In a folder that others may write to, it is nobody's secret.
            read_token(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_token(path),
        Err(error) => Err(fail(error)),
    }
}

/// Reads a token's file, which nobody but its owner may read.
fn read_token(path: &Path) -> Result<String, Error> {
    let fail = |source| Error::File { path: path.to_owned(), source };
    let unusable = |reason| Error::Token { path: path.to_owned(), reason };
    let file = trusted::open(path)?;
    if file.metadata().map_err(fail)?.permissions().mode() & 0o077 != 0 {
        return Err(unusable("others can read or write it; set its mode to 0600"));
    }
    let mut text = String::new();
    file.take(MAX_TOKEN).read_to_string(&mut text).map_err(fail)?;
    let token = text.trim_end();
    if token.len() < MIN_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unusable("it must hold at least 32 visible characters and nothing else"));
    }
    Ok(token.to_owned())
}
