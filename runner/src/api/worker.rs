//! Workers: each takes the oldest waiting task, has it executed, and writes down how it ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, watch},
    task::{JoinSet, spawn_blocking},
};

use super::{CancelFlag, Execute, ExecuteOutcome, TaskRequest};
use crate::queue::{self, Ending, Queue};
use tracing::Instrument as _;

/// Pause after the queue failed, before it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Judgements at the same time that were asked for without a task.
const VERIFICATIONS: usize = 4;

/// What the workers and the routes share.
pub(super) struct Pool {
    pub(super) queue: Queue,
    pub(super) execute: Arc<dyn Execute>,
    pub(super) verifications: Semaphore,
    wake: Notify,
    at_work: Mutex<HashMap<i64, CancelFlag>>,
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

    /// Tells the workers that something waits.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells a task that is being worked on to stop.
    pub(super) fn cancel(&self, id: i64) {
        let flag = self.at_work(|tasks| tasks.get(&id).cloned());
        if let Some(flag) = flag {
            flag.cancel();
        }
    }

    /// Tells every task to stop.
    pub(super) fn stop(&self) {
        let flags: Vec<CancelFlag> = self.at_work(|tasks| tasks.values().cloned().collect());
        flags.iter().for_each(CancelFlag::cancel);
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn at_work<T>(&self, look: impl FnOnce(&mut HashMap<i64, CancelFlag>) -> T) -> T {
        look(&mut self.at_work.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts the workers; they end when the server stops.
pub(super) fn start(pool: &Arc<Pool>, workers: usize) -> JoinSet<()> {
    let mut set = JoinSet::new();
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
    let queue = pool.queue.clone();
    let span = tracing::Span::current();
    let flag = CancelFlag::with_start(move || {
        let _task = span.enter();
        if let Err(error) = queue.running(id) {
            tracing::warn!(%error, "that the task runs could not be noted");
        }
    });
    pool.at_work(|tasks| tasks.insert(id, flag.clone()));
    // A cancellation or a stop that came between the claim and the line above has found no flag to raise.
    let wished = pool.with_queue(move |queue| queue.get(id)).await.is_ok_and(|task| task.cancel_requested);
    if wished || pool.is_stopping() {
        flag.cancel();
    }
    let (execute, for_task) = (Arc::clone(&pool.execute), flag.clone());
    let outcome = if flag.is_cancelled() {
        stopped_before_start()
    } else {
        let span = tracing::Span::current();
        let joined = spawn_blocking(move || span.in_scope(|| execute.execute(&request, for_task))).await;
        joined.unwrap_or_else(|error| ExecuteOutcome::Failed {
            reason: format!("the runner itself failed: {error}"),
            remedy: "this is a defect of the runner; please report it with the server's log".to_owned(),
        })
    };
    write_down(pool, id, outcome, &flag).await;
    pool.at_work(|tasks| tasks.remove(&id));
}

fn stopped_before_start() -> ExecuteOutcome {
    ExecuteOutcome::Failed {
        reason: "it was stopped before it started".to_owned(),
        remedy: "submit it again".to_owned(),
    }
}

/// Writes the ending down, however long the disk stays full; only a stop ends the waiting, and then the task is taken
/// up again at the next start.
async fn write_down(pool: &Arc<Pool>, id: i64, outcome: ExecuteOutcome, flag: &CancelFlag) {
    let outcome = Arc::new(outcome);
    loop {
        let (outcome, told_to_stop) = (Arc::clone(&outcome), flag.is_cancelled());
        let written = pool.with_queue(move |queue| {
            let ending = match &*outcome {
                ExecuteOutcome::Crashed { .. } | ExecuteOutcome::Failed { .. } if told_to_stop => {
                    return if queue.get(id)?.cancel_requested {
                        queue.finish(id, Ending::Cancelled)
                    } else {
                        queue.put_back(id)
                    };
                }
                other => ending(other),
            };
            queue.finish(id, ending)
        });
        match written.await {
            Ok(()) => return,
            Err(error @ (queue::Error::WrongState { .. } | queue::Error::NotFound(_))) => {
                tracing::error!(%error, "the task's ending was already decided");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the task's ending could not be written down yet")
            }
        }
        if pool.is_stopping() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn ending(outcome: &ExecuteOutcome) -> Ending {
    match outcome.clone() {
        ExecuteOutcome::Completed { result, log } => {
            match serde_json::from_slice::<serde::de::IgnoredAny>(&result) {
                Ok(_) => Ending::Completed { result, log },
                Err(error) => Ending::Crashed { reason: format!("the result is not JSON: {error}"), log },
            }
        }
        ExecuteOutcome::Crashed { reason, log } => Ending::Crashed { reason, log },
        ExecuteOutcome::Denied { denial } => Ending::Denied { denial },
        ExecuteOutcome::Failed { reason, remedy } => Ending::Failed { reason, remedy },
    }
}
