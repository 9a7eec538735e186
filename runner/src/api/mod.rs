//! The node's own HTTP interface: submit a task, follow it, fetch its result. It listens on a Unix socket, or on a
//! loopback address with a token; never on an address that other machines reach. See `docs/api.md`.

pub mod cli;
pub mod client;
mod listen;
mod node;
mod problem;
mod routes;
mod worker;

use std::{
    future::Future,
    io::{self, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use listen::{Bound, Listen};
pub use node::ServeCommand;
use tokio::sync::watch;

pub use crate::queue::TaskRequest;
use crate::queue::{self, Queue};

/// How long running tasks have to stop, once they are told that the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// What the server does with a task; the program gives the real thing. Every call may block.
pub trait Execute: Send + Sync + 'static {
    /// Judges a task's image and, when it is admitted, runs it to its end or until `cancel` says stop.
    fn execute(&self, task: &TaskRequest, cancel: CancelFlag) -> ExecuteOutcome;

    /// Judges an image without running it.
    ///
    /// # Errors
    /// When there can be no verdict, with a text for the caller; a denial is not an error.
    fn verify(&self, image: &str, function: Option<&str>) -> Result<serde_json::Value, String>;
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecuteOutcome {
    /// With a result.
    Completed {
        /// JSON bytes.
        result: Vec<u8>,
        /// The container's output.
        log: Vec<u8>,
    },
    /// The algorithm ended with an error, or was stopped.
    Crashed {
        /// What is known of why.
        reason: String,
        /// The container's output.
        log: Vec<u8>,
    },
    /// The policy does not admit the image.
    Denied {
        /// Every unmet condition.
        denial: serde_json::Value,
    },
    /// The node could not run it.
    Failed {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Tells a running task to stop, and lets it tell that its container starts.
#[derive(Clone, Default)]
pub struct CancelFlag(Arc<Mutex<Flag>>);

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Flag {
    cancelled: bool,
    stops: Vec<Callback>,
    starts: Option<Callback>,
}

impl CancelFlag {
    /// A flag that nobody has raised.
    pub fn new() -> CancelFlag {
        CancelFlag::default()
    }

    /// Whether the task is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.flag(|flag| flag.cancelled)
    }

    /// Calls `stop` once when the task is to stop; at once when that is already so.
    pub fn on_cancel(&self, stop: impl FnOnce() + Send + 'static) {
        let stop: Callback = Box::new(stop);
        let late = self.flag(|flag| {
            if flag.cancelled {
                Some(stop)
            } else {
                flag.stops.push(stop);
                None
            }
        });
        if let Some(stop) = late {
            stop();
        }
    }

    /// Tells that the image was admitted and its container is about to run.
    pub fn running(&self) {
        if let Some(start) = self.flag(|flag| flag.starts.take()) {
            start();
        }
    }

    /// Raises the flag.
    pub fn cancel(&self) {
        let stops = self.flag(|flag| {
            flag.cancelled = true;
            std::mem::take(&mut flag.stops)
        });
        stops.into_iter().for_each(|stop| stop());
    }

    fn with_start(start: impl FnOnce() + Send + 'static) -> CancelFlag {
        CancelFlag(Arc::new(Mutex::new(Flag { starts: Some(Box::new(start)), ..Flag::default() })))
    }

    fn flag<T>(&self, look: impl FnOnce(&mut Flag) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for CancelFlag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CancelFlag").field(&self.is_cancelled()).finish()
    }
}

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

/// Serves until SIGTERM or SIGINT, from inside a tokio runtime. Prints where it listens, and tells systemd when it is
/// ready. On the signal, running tasks are told to stop and go back into the queue, uncounted.
///
/// # Errors
/// When it cannot listen there, or a signal handler cannot be set.
pub async fn serve(
    listen: Listen,
    queue: Queue,
    execute: Arc<dyn Execute>,
    workers: usize,
) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let bound = listen.bind()?;
    // Whoever started the server and closed its output does not wait for this line.
    let _ = writeln!(std::io::stdout(), "listening on {}", bound.address());
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve_until(bound, queue, execute, workers, stop).await
}

/// As [`serve`], for a program that has no runtime of its own. Does not wait for a task that ignores being told to stop.
///
/// # Errors
/// As [`serve`].
pub fn serve_blocking(
    listen: Listen,
    queue: Queue,
    execute: Arc<dyn Execute>,
    workers: usize,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(listen, queue, execute, workers));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Serves what is already bound until `stop` is ready.
///
/// # Errors
/// When the listener fails.
pub async fn serve_until(
    bound: Bound,
    queue: Queue,
    execute: Arc<dyn Execute>,
    workers: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (stopping, stopped) = watch::channel(false);
    let pool = Arc::new(worker::Pool::new(queue, execute, stopped));
    let working = worker::start(&pool, workers.max(1));
    let router = routes::router(Arc::clone(&pool), bound.guard());
    notify(&[sd_notify::NotifyState::Ready]);
    let ended = tokio::select! {
        ended = bound.serve(router) => ended,
        () = stop => Ok(()),
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    stopping.send_replace(true);
    pool.stop();
    if tokio::time::timeout(STOP_WITHIN, working.join_all()).await.is_err() {
        tracing::warn!("some tasks did not stop in time; they are taken up again at the next start");
    }
    ended
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
