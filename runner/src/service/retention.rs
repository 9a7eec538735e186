//! Erasing what was kept long enough.

use std::{sync::Arc, time::Duration};

use attestations::run::Erasure;
use jiff::Timestamp;

use super::worker::Pool;

/// How often it is looked for.
const PERIOD: Duration = Duration::from_secs(3600);
/// The most tasks that are looked at at once.
const AT_ONCE: u32 = 1000;

/// Erases finished tasks that are older than `keep`, until the server stops.
pub(super) async fn erase_old(pool: Arc<Pool>, keep: Duration) {
    while !pool.is_stopping() {
        let before = Timestamp::now() - keep;
        match pool.with_queue(move |queue| queue.over_before(before, AT_ONCE)).await {
            Ok(old) => {
                for id in old {
                    match pool.erase(id, Erasure::Retention).await {
                        Ok(()) => {
                            tracing::info!(task = id, "the time it is kept was over: the task was erased")
                        }
                        Err(error) => tracing::error!(task = id, %error, "the task could not be erased"),
                    }
                }
            }
            Err(error) => tracing::error!(%error, "old tasks could not be looked for"),
        }
        pool.pause(PERIOD).await;
    }
}
