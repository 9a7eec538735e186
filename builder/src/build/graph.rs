//! Doing what stands in a graph: each task once all that it needs is done, several side by side.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A task's results by number; none for what is not done yet.
pub(super) type Done<T> = Vec<Option<Arc<T>>>;

/// Does the task of a number, with what is done so far.
pub(super) type Task<'a, T, E> = dyn Fn(usize, &Done<T>) -> Result<T, E> + Sync + 'a;

struct State<T, E> {
    done: Done<T>,
    begun: Vec<bool>,
    failed: Option<E>,
    /// Set when a worker panics, which its thread's scope passes on once the others have ended.
    abandoned: bool,
}

/// Does every task: `task` is called with its number and what is done so far, among it all that `needs` says. With one
/// worker they are done in the order of their numbers, given that each needs only earlier ones.
///
/// # Errors
/// The first failure. `stop` is called then, to end the tasks that are going on; nothing new begins.
pub(super) fn in_order<T: Send + Sync, E: Send>(
    needs: &[BTreeSet<usize>],
    workers: usize,
    stop: &(dyn Fn() + Sync),
    task: &Task<'_, T, E>,
) -> Result<Vec<Arc<T>>, E> {
    let state = Mutex::new(State {
        done: needs.iter().map(|_| None).collect(),
        begun: vec![false; needs.len()],
        failed: None,
        abandoned: false,
    });
    let changed = Condvar::new();
    let work = || {
        let guard = Abandon { state: &state, changed: &changed };
        while let Some((number, done)) = next(needs, &state, &changed) {
            let result = task(number, &done);
            drop(done);
            let mut now = lock(&state);
            match result {
                Ok(result) => now.done[number] = Some(Arc::new(result)),
                Err(error) if now.failed.is_none() => {
                    now.failed = Some(error);
                    stop();
                }
                // What fails once it is stopped says nothing.
                Err(_) => {}
            }
            changed.notify_all();
        }
        drop(guard);
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.min(needs.len()) {
            scope.spawn(work);
        }
        work();
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.failed {
        Some(error) => Err(error),
        None => Ok(state.done.into_iter().flatten().collect()),
    }
}

/// Waits for the first task that can be begun; none when there is nothing left to begin.
fn next<T, E>(
    needs: &[BTreeSet<usize>],
    state: &Mutex<State<T, E>>,
    changed: &Condvar,
) -> Option<(usize, Done<T>)> {
    let mut now = lock(state);
    loop {
        if now.failed.is_some() || now.abandoned || now.begun.iter().all(|begun| *begun) {
            return None;
        }
        let is_ready = |number: &usize| {
            !now.begun[*number] && needs[*number].iter().all(|needed| now.done[*needed].is_some())
        };
        if let Some(number) = (0..needs.len()).find(is_ready) {
            now.begun[number] = true;
            return Some((number, now.done.clone()));
        }
        now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock<T, E>(state: &Mutex<State<T, E>>) -> MutexGuard<'_, State<T, E>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Abandon<'a, T, E> {
    state: &'a Mutex<State<T, E>>,
    changed: &'a Condvar,
}

impl<T, E> Drop for Abandon<'_, T, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(self.state).abandoned = true;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    fn needs(table: &[&[usize]]) -> Vec<BTreeSet<usize>> {
        table.iter().map(|needs| needs.iter().copied().collect()).collect()
    }

    #[test]
    fn independent_tasks_run_side_by_side_and_others_wait() {
        let both = Barrier::new(2);
        let needs = needs(&[&[], &[], &[0, 1], &[2]]);
        let results = in_order::<_, ()>(&needs, 2, &|| {}, &|number, done| {
            if number < 2 {
                // Ends only if the other one is running at the same time.
                both.wait();
            }
            let sum: usize = needs[number].iter().map(|needed| **done[*needed].as_ref().unwrap()).sum();
            Ok(sum + number + 1)
        });
        let results: Vec<usize> = results.unwrap().iter().map(|result| **result).collect();
        assert_eq!(results, [1, 2, 6, 10]);
    }

    #[test]
    fn one_worker_keeps_the_order() {
        let order = Mutex::new(Vec::new());
        let table = needs(&[&[], &[], &[0], &[], &[1]]);
        in_order::<_, ()>(&table, 1, &|| {}, &|number, _| {
            order.lock().unwrap().push(number);
            Ok(())
        })
        .unwrap();
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_first_failure_stops_the_others_and_is_the_one_told() {
        let (stopped, ran) = (AtomicBool::new(false), AtomicUsize::new(0));
        let table = needs(&[&[], &[], &[0], &[1]]);
        let stop = || stopped.store(true, Ordering::SeqCst);
        let failed = in_order::<(), _>(&table, 2, &stop, &|number, _| {
            ran.fetch_add(1, Ordering::SeqCst);
            if number == 0 {
                return Err("first");
            }
            while !stopped.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Err("stopped")
        });
        assert_eq!(failed.unwrap_err(), "first");
        assert!(ran.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn a_panic_ends_everything() {
        let table = needs(&[&[], &[0], &[0]]);
        let ended =
            std::panic::catch_unwind(|| in_order::<(), ()>(&table, 3, &|| {}, &|_, _| panic!("a bug")));
        assert!(ended.is_err());
    }
}
