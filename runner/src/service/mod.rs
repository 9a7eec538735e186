//! The node's own service: submit a task, follow it, fetch its result. It listens on a Unix socket, or on a loopback address
//! with a token; never on an address that other machines reach. See `docs/api.md`.

mod api;
pub mod client;
mod error;
mod executor;
mod listen;
mod problem;
pub mod queue;
mod retention;
mod worker;

use std::{future::Future, io::Write as _, sync::Arc, time::Duration};

pub use error::Error;
pub use executor::Execute;
pub(crate) use executor::NodeExecutor;
pub use listen::{Bound, Listen};
use queue::Queue;
use tokio::sync::watch;

/// How long running tasks have to stop, once they are told that the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT, from inside a tokio runtime. Prints where it listens, and tells systemd when it is
/// ready. On the signal, running tasks are told to stop and go back into the queue, uncounted.
///
/// # Errors
/// When it cannot listen there, or a signal handler cannot be set.
pub(crate) async fn serve(
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
    let router = api::router(Arc::clone(&pool), bound.guard());
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
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
