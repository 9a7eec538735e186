//! Stops a run when the policy comes to revoke what it stands on: the image, a base, a statement or a key.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use admission::Admission;
use attestations::Admitted;
use sandbox::Canceller;

/// How soon a cancellation is passed on.
const TICK: Duration = Duration::from_millis(100);
/// How often the policy is read while something runs.
const LOOK: Duration = Duration::from_secs(2);

/// Does `work` under a canceller of its own, which is used when `outer` is, and when the policy revokes what was admitted.
/// Returns what came of it, and why it was stopped where the policy did so.
pub(crate) fn watched<T>(
    admission: &Admission,
    admitted: &Admitted,
    outer: &Canceller,
    work: impl FnOnce(&Canceller) -> T,
) -> (T, Option<String>) {
    let inner = Canceller::new();
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watching = scope.spawn({
            let inner = &inner;
            move || watch(admission, admitted, (outer, inner), &waiting)
        });
        let result = work(&inner);
        drop(done);
        let revoked = watching.join().unwrap_or_else(|_| {
            tracing::error!("the watch over revocations broke off");
            None
        });
        (result, revoked)
    })
}

/// Until the work is done: why the policy stopped it, if it did.
fn watch(
    admission: &Admission,
    admitted: &Admitted,
    (outer, inner): (&Canceller, &Canceller),
    waiting: &mpsc::Receiver<()>,
) -> Option<String> {
    let mut looked = Instant::now();
    let mut revoked = None;
    loop {
        match waiting.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return revoked,
        }
        if outer.is_cancelled() {
            inner.cancel();
        }
        if revoked.is_some() || looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        match admission.revokes(admitted) {
            Ok(None) => {}
            Ok(Some(reason)) => {
                tracing::warn!(reason, image = %admitted.pinned(), "a running image is revoked: it is stopped");
                inner.cancel();
                revoked = Some(reason);
            }
            // Somebody may be writing it: nothing new starts by it, and what runs was admitted.
            Err(error) => {
                tracing::warn!(error = %errors::chain::line(&error), "the policy cannot be read meanwhile")
            }
        }
    }
}
