//! Runs the tasks of a dependency graph in parallel. A task may discover dependencies while it runs, and is resumed
//! once they are done.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A waiting task: its state so far, and the numbers of the tasks that it needs.
pub(crate) struct Waits<S> {
    pub(crate) state: S,
    pub(crate) needs: BTreeSet<usize>,
}

/// The outcome of one turn of a task.
pub(crate) enum Turn<S, T> {
    Done(T),
    Waits(Waits<S>),
}

/// The results of the tasks that a task needed, by number.
pub(crate) type Results<T> = Vec<(usize, Arc<T>)>;

/// Resumes a task from its state, with the results that it waited for.
pub(crate) type Task<'a, S, T, E> = dyn Fn(usize, S, Results<T>) -> Result<Turn<S, T>, E> + Sync + 'a;

struct GraphState<S, T, E> {
    /// By number; none for tasks that are running or done.
    waiting: Vec<Option<Waits<S>>>,
    /// By number; none for tasks that are not done.
    done: Vec<Option<Arc<T>>>,
    running: usize,
    failed: Option<E>,
    /// Set when a worker panics, so that the others end. The thread scope passes the panic on afterwards.
    abandoned: bool,
}

/// Runs every task. With one worker they run in the order of their numbers, provided that each needs only earlier
/// ones. None when tasks need each other, or a task that does not exist.
///
/// # Errors
/// The first failure. `stop` is called then, to end the running tasks; no further one begins.
pub(crate) fn in_order<S: Send, T: Send + Sync, E: Send>(
    tasks: Vec<Waits<S>>,
    workers: usize,
    stop: &(dyn Fn() + Sync),
    task: &Task<'_, S, T, E>,
) -> Result<Option<Vec<Arc<T>>>, E> {
    let count = tasks.len();
    let state = Mutex::new(GraphState {
        waiting: tasks.into_iter().map(Some).collect(),
        done: (0..count).map(|_| None).collect(),
        running: 0,
        failed: None,
        abandoned: false,
    });
    let changed = Condvar::new();
    let work = || {
        let guard = Abandon { state: &state, changed: &changed };
        while let Some((number, from, results)) = next(&state, &changed) {
            let result = task(number, from, results);
            let mut now = lock(&state);
            now.running -= 1;
            match result {
                Ok(Turn::Done(result)) => now.done[number] = Some(Arc::new(result)),
                Ok(Turn::Waits(waits)) => now.waiting[number] = Some(waits),
                Err(error) if now.failed.is_none() => {
                    now.failed = Some(error);
                    stop();
                }
                // Failures after the stop are its consequence.
                Err(_) => {}
            }
            changed.notify_all();
        }
        drop(guard);
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.min(count) {
            scope.spawn(work);
        }
        work();
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.failed {
        Some(error) => Err(error),
        None => Ok(state.done.into_iter().collect()),
    }
}

/// Waits for a task whose needs are all done; none when there never will be one.
fn next<S, T, E>(state: &Mutex<GraphState<S, T, E>>, changed: &Condvar) -> Option<(usize, S, Results<T>)> {
    let mut now = lock(state);
    loop {
        if now.failed.is_some() || now.abandoned {
            return None;
        }
        let is_ready = |task: &Option<Waits<S>>| {
            let is_done = |needed: &usize| now.done.get(*needed).is_some_and(Option::is_some);
            task.as_ref().is_some_and(|task| task.needs.iter().all(is_done))
        };
        let ready = now.waiting.iter().position(is_ready);
        if let Some((number, Waits { state, needs })) =
            ready.and_then(|number| Some((number, now.waiting[number].take()?)))
        {
            now.running += 1;
            let results = needs.into_iter().filter_map(|needed| Some((needed, now.done[needed].clone()?)));
            return Some((number, state, results.collect()));
        }
        // A running task may complete what a waiting one needs, or start to wait itself.
        if now.running == 0 {
            return None;
        }
        now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock<S, T, E>(state: &Mutex<GraphState<S, T, E>>) -> MutexGuard<'_, GraphState<S, T, E>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Abandon<'a, S, T, E> {
    state: &'a Mutex<GraphState<S, T, E>>,
    changed: &'a Condvar,
}

impl<S, T, E> Drop for Abandon<'_, S, T, E> {
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

    fn tasks(table: &[&[usize]]) -> Vec<Waits<()>> {
        table.iter().map(|needs| Waits { state: (), needs: needs.iter().copied().collect() }).collect()
    }

    #[test]
    fn independent_tasks_run_side_by_side_and_others_wait() {
        let both = Barrier::new(2);
        let tasks = tasks(&[&[], &[], &[0, 1], &[2]]);
        let results = in_order::<_, _, ()>(tasks, 2, &|| {}, &|number, (), results| {
            if number < 2 {
                // Returns only if the other one is running at the same time.
                both.wait();
            }
            let sum: usize = results.iter().map(|(_, result)| **result).sum();
            Ok(Turn::Done(sum + number + 1))
        });
        let results: Vec<usize> = results.unwrap().unwrap().iter().map(|result| **result).collect();
        assert_eq!(results, [1, 2, 6, 10]);
    }

    #[test]
    fn a_task_waits_in_its_midst_and_goes_on_where_it_was() {
        let both = Barrier::new(2);
        let tasks = [0, 1].map(|_| Waits { state: None, needs: BTreeSet::new() });
        let results = in_order::<_, _, ()>(tasks.into(), 2, &|| {}, &|number, before, results| {
            Ok(match (number, before) {
                // Returns only once the other one has begun.
                (0, None) => {
                    both.wait();
                    Turn::Done(40)
                }
                (1, None) => {
                    both.wait();
                    assert!(results.is_empty());
                    Turn::Waits(Waits { state: Some(2), needs: [0].into() })
                }
                (1, Some(before)) => Turn::Done(before + *results[0].1),
                other => panic!("{other:?}"),
            })
        });
        let results: Vec<i32> = results.unwrap().unwrap().iter().map(|result| **result).collect();
        assert_eq!(results, [40, 42]);
    }

    #[test]
    fn one_worker_keeps_the_order() {
        let order = Mutex::new(Vec::new());
        let table = tasks(&[&[], &[], &[0], &[], &[1]]);
        let table = table.into_iter().map(|Waits { needs, .. }| Waits { state: false, needs }).collect();
        in_order::<_, _, ()>(table, 1, &|| {}, &|number, again, _| {
            order.lock().unwrap().push(number);
            // Each has two turns, the second once all tasks before it are done.
            Ok(match again {
                false => Turn::Waits(Waits { state: true, needs: (0..number).collect() }),
                true => Turn::Done(()),
            })
        })
        .unwrap();
        assert_eq!(*order.lock().unwrap(), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn who_waits_for_what_never_comes_is_not_waited_for() {
        let table = tasks(&[&[], &[2], &[1], &[9]]);
        let ended = in_order::<_, _, ()>(table, 2, &|| {}, &|number, (), _| Ok(Turn::Done(number)));
        assert!(ended.unwrap().is_none());
    }

    #[test]
    fn the_first_failure_stops_the_others_and_is_the_one_told() {
        let (stopped, ran) = (AtomicBool::new(false), AtomicUsize::new(0));
        let table = tasks(&[&[], &[], &[0], &[1]]);
        let stop = || stopped.store(true, Ordering::SeqCst);
        let failed = in_order::<_, (), _>(table, 2, &stop, &|number, (), _| {
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
        let table = tasks(&[&[], &[0], &[0]]);
        let ended =
            std::panic::catch_unwind(|| in_order::<_, (), ()>(table, 3, &|| {}, &|_, (), _| panic!("a bug")));
        assert!(ended.is_err());
    }
}
