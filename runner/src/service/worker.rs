//! Workers: each takes the oldest waiting task, has it executed, and writes down how it ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use attestations::run::Erasure;
use sandbox::Canceller;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::{JoinSet, spawn_blocking},
};
use tracing::Instrument as _;

use super::{
    executor::Execute,
    queue::{self, Ending, Queue, TaskRequest},
};
use crate::{
    error::{self, Error, Kind},
    node::Outcome,
    record::{RecordedTask, RunReport},
};

/// Pause after the queue failed, before it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Decisions at the same time that were asked for without a task.
const VERIFICATIONS: usize = 4;

/// Why something was not given out or erased.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The queue failed or refused.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// What would be done could not be written down before.
    #[error("it could not be written down: {}", errors::chain::line(.0))]
    Record(Error),
}

/// What the workers and the routes share.
pub(super) struct Pool {
    pub(super) queue: Queue,
    pub(super) execute: Arc<dyn Execute>,
    pub(super) verifications: Semaphore,
    wake: Notify,
    at_work: Mutex<HashMap<i64, Canceller>>,
    stopping: watch::Receiver<bool>,
}

impl Pool {
    pub(super) fn new(queue: Queue, execute: Arc<dyn Execute>, stopping: watch::Receiver<bool>) -> Pool {
        let verifications = Semaphore::new(VERIFICATIONS);
        Pool { queue, execute, verifications, wake: Notify::new(), at_work: Mutex::default(), stopping }
    }

    /// Runs one operation of the queue where it may block.
    pub(super) async fn with_queue<T, F>(&self, operation: F) -> Result<T, queue::Error>
    where
        T: Send + 'static,
        F: FnOnce(&Queue) -> Result<T, queue::Error> + Send + 'static,
    {
        let queue = self.queue.clone();
        let joined = spawn_blocking(move || operation(&queue)).await;
        joined.unwrap_or_else(|error| {
            Err(queue::Error::Corrupt(format!("an operation was broken off: {error}")))
        })
    }

    /// Erases a finished task, and writes that down first.
    pub(super) async fn erase(self: &Arc<Self>, id: i64, reason: Erasure) -> Result<(), Failure> {
        let image = self.with_queue(move |queue| queue.erasable(id).and_then(|()| queue.image(id))).await?;
        self.recording(move |execute| execute.erase(id.unsigned_abs(), image, reason)).await?;
        Ok(self.with_queue(move |queue| queue.erase(id)).await?)
    }

    /// A completed task's result, once it is written down that it leaves.
    pub(super) async fn release(self: &Arc<Self>, id: i64) -> Result<Vec<u8>, Failure> {
        let outgoing = self.with_queue(move |queue| queue.outgoing(id)).await?;
        self.recording(move |execute| execute.release(&outgoing).map(|()| outgoing.result)).await
    }

    async fn recording<F, T>(&self, write: F) -> Result<T, Failure>
    where
        F: FnOnce(&dyn Execute) -> error::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let execute = Arc::clone(&self.execute);
        let written = spawn_blocking(move || write(&*execute)).await;
        written
            .unwrap_or_else(|_| Err(error::bug("writing the record was broken off")))
            .map_err(Failure::Record)
    }

    /// Waits until the server stops, at most for `time`.
    pub(super) async fn pause(&self, time: Duration) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }

    /// Tells the workers that something waits.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells a task that is being worked on to stop.
    pub(super) fn cancel(&self, id: i64) {
        let canceller = self.at_work(|tasks| tasks.get(&id).cloned());
        if let Some(canceller) = canceller {
            canceller.cancel();
        }
    }

    /// Tells every task to stop.
    pub(super) fn stop(&self) {
        self.at_work(|tasks| tasks.values().for_each(Canceller::cancel));
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn at_work<T>(&self, look: impl FnOnce(&mut HashMap<i64, Canceller>) -> T) -> T {
        look(&mut self.at_work.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts the workers; they end when the server stops.
pub(super) fn start(pool: &Arc<Pool>, workers: usize) -> JoinSet<()> {
    let mut set = JoinSet::new();
    if let Some(keep) = pool.execute.keep() {
        set.spawn(super::retention::erase_old(Arc::clone(pool), keep));
    }
    for _ in 0..workers {
        set.spawn(work(Arc::clone(pool)));
    }
    set
}

async fn work(pool: Arc<Pool>) {
    let mut stopping = pool.stopping.clone();
    while !pool.is_stopping() {
        let idle = match pool.with_queue(Queue::claim).await {
            Ok(Some((id, request))) => {
                // There may be more than this one: another worker looks while this one works.
                pool.wake();
                // At every level, so that whatever is written about a task carries its number.
                let span = tracing::error_span!("task", task = id);
                one(&pool, id, request).instrument(span).await;
                continue;
            }
            Ok(None) => None,
            Err(error) => {
                tracing::error!(%error, "no task could be taken from the queue");
                Some(RETRY)
            }
        };
        tokio::select! {
            () = pool.wake.notified() => {}
            () = tokio::time::sleep(idle.unwrap_or(Duration::from_secs(30))) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }
}

async fn one(pool: &Arc<Pool>, id: i64, request: TaskRequest) {
    tracing::info!(image = request.image, "the task is taken up");
    let canceller = Canceller::new();
    pool.at_work(|tasks| tasks.insert(id, canceller.clone()));
    // A cancellation or a stop that came between the claim and the line above has found nobody to tell.
    let wished = pool.with_queue(move |queue| queue.get(id)).await.is_ok_and(|task| task.cancel_requested);
    if wished || pool.is_stopping() {
        canceller.cancel();
    }
    let outcome = if canceller.is_cancelled() {
        Err(Error::new(Kind::Machine, "it was stopped before it started").hint("submit it again"))
    } else {
        match pool.with_queue(move |queue| queue.place(id)).await {
            Ok(place) => execute(pool, id, request, place, canceller.clone()).await,
            Err(error) => Err(Error::new(Kind::Machine, "the task could not be looked up").because(error)),
        }
    };
    write_down(pool, id, ending(outcome), &canceller).await;
    pool.at_work(|tasks| tasks.remove(&id));
}

async fn execute(
    pool: &Pool,
    id: i64,
    request: TaskRequest,
    place: RecordedTask,
    canceller: Canceller,
) -> error::Result<Outcome> {
    let (execute, queue) = (Arc::clone(&pool.execute), pool.queue.clone());
    let span = tracing::Span::current();
    let starting = move || {
        if let Err(error) = queue.running(id) {
            tracing::warn!(%error, "that the task runs could not be noted");
        }
    };
    let executing = move || span.in_scope(|| execute.execute(&request, &place, &canceller, &starting));
    spawn_blocking(executing).await.unwrap_or_else(|error| {
        Err(Error::new(Kind::Bug, format!("the runner itself failed: {error}"))
            .hint("this is a defect of the runner; please report it with the server's log"))
    })
}

/// Writes the ending down, however long the disk stays full; only a stop ends the waiting, and then the task is taken
/// up again at the next start. An ending that can never be stored becomes a short failure: the worker has other tasks.
async fn write_down(pool: &Arc<Pool>, id: i64, ending: Ending, canceller: &Canceller) {
    let mut ending = Arc::new(ending);
    let mut is_replaced = false;
    loop {
        let (to_store, told_to_stop) = (Arc::clone(&ending), canceller.is_cancelled());
        match pool.with_queue(move |queue| store(queue, id, &to_store, told_to_stop)).await {
            Ok(()) => {
                tracing::info!("the task's ending is written down");
                return;
            }
            Err(error @ (queue::Error::WrongState { .. } | queue::Error::NotFound(_))) => {
                tracing::error!(%error, "the task's ending was already decided");
                return;
            }
            Err(error) if error.lasts() && is_replaced => {
                tracing::error!(%error, "not even a failure of the task can be written down");
                return;
            }
            Err(error) if error.lasts() => {
                tracing::error!(%error, "the task's ending can never be written down: it ends as failed");
                ending = Arc::new(Ending::Failed {
                    reason: format!("how it ended cannot be stored: {error}"),
                    remedy: "see the server's log for how it ended".to_owned(),
                });
                is_replaced = true;
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "the task's ending could not be written down yet");
            }
        }
        if pool.is_stopping() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Stores an ending. What failed because it was told to stop is cancelled, or taken up again by the next server.
fn store(queue: &Queue, id: i64, ending: &Ending, told_to_stop: bool) -> Result<(), queue::Error> {
    let stopped = match ending {
        Ending::Crashed { report, .. } => Some(Some(report.clone())),
        Ending::Failed { .. } => Some(None),
        Ending::Completed(_) | Ending::Denied(_) | Ending::Cancelled(_) => None,
    };
    match stopped.filter(|_| told_to_stop) {
        None => queue.finish(id, ending),
        Some(report) if queue.get(id)?.cancel_requested => queue.finish(id, &Ending::Cancelled(report)),
        Some(_) => queue.put_back(id),
    }
}

fn ending(outcome: error::Result<Outcome>) -> Ending {
    match outcome {
        Ok(Outcome::Ran(report)) => ran(report),
        Ok(Outcome::Denied(denial)) => Ending::Denied(denial),
        Err(error) => Ending::Failed {
            reason: errors::chain::line(&error),
            remedy: error.hint_text().unwrap_or("see the reason, and the server's log").to_owned(),
        },
    }
}

fn ran(report: Box<RunReport>) -> Ending {
    if report.result.is_some() {
        return Ending::Completed(report);
    }
    let reason = match report.revoked {
        Some(_) => report.ending_text(),
        None => format!("the algorithm failed: {}", report.ending_text()),
    };
    Ending::Crashed { reason, report }
}
