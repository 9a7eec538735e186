//! Doing what stands in a graph: each task goes on once all that it waits for is done, several side by side.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A task that waits: how far it came, and the numbers of the tasks without which it cannot go on.
pub(crate) struct Waits<S> {
    pub(crate) state: S,
    pub(crate) needs: BTreeSet<usize>,
}

/// What became of a task that was taken up.
pub(crate) enum Turn<S, T> {
    Done(T),
    Waits(Waits<S>),
}

/// What a task waited for, by number.
pub(crate) type Came<T> = Vec<(usize, Arc<T>)>;

/// Takes up the task of a number where it stands, with what it waited for.
pub(crate) type Task<'a, S, T, E> = dyn Fn(usize, S, Came<T>) -> Result<Turn<S, T>, E> + Sync + 'a;

struct GraphState<S, T, E> {
    /// By number; none for what is done or being done.
    waiting: Vec<Option<Waits<S>>>,
    /// By number; none for what is not done yet.
    done: Vec<Option<Arc<T>>>,
    running: usize,
    failed: Option<E>,
    /// Set when a worker panics, which its thread's scope passes on once the others have ended.
    abandoned: bool,
}

/// Does every task. With one worker they are done in the order of their numbers, given that each needs only earlier ones.
/// None when tasks wait for what will never be done.
///
/// # Errors
/// The first failure. `stop` is called then, to end the tasks that are going on; no other is taken up.
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
        while let Some((number, from, came)) = next(&state, &changed) {
            let result = task(number, from, came);
            let mut now = lock(&state);
            now.running -= 1;
            match result {
                Ok(Turn::Done(result)) => now.done[number] = Some(Arc::new(result)),
                Ok(Turn::Waits(waits)) => now.waiting[number] = Some(waits),
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

/// Waits for the first task that can be taken up; none when none ever can.
fn next<S, T, E>(state: &Mutex<GraphState<S, T, E>>, changed: &Condvar) -> Option<(usize, S, Came<T>)> {
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
            let came = needs.into_iter().filter_map(|needed| Some((needed, now.done[needed].clone()?)));
            return Some((number, state, came.collect()));
        }
        // What is being done may become what a waiting task needs, or wait itself.
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
        let results = in_order::<_, _, ()>(tasks, 2, &|| {}, &|number, (), came| {
            if number < 2 {
                // Ends only if the other one is running at the same time.
                both.wait();
            }
            let sum: usize = came.iter().map(|(_, result)| **result).sum();
            Ok(Turn::Done(sum + number + 1))
        });
        let results: Vec<usize> = results.unwrap().unwrap().iter().map(|result| **result).collect();
        assert_eq!(results, [1, 2, 6, 10]);
    }

    #[test]
    fn a_task_waits_in_its_midst_and_goes_on_where_it_was() {
        let both = Barrier::new(2);
        let tasks = [0, 1].map(|_| Waits { state: None, needs: BTreeSet::new() });
        let results = in_order::<_, _, ()>(tasks.into(), 2, &|| {}, &|number, before, came| {
            Ok(match (number, before) {
                // Ends only once the other one has begun.
                (0, None) => {
                    both.wait();
                    Turn::Done(40)
                }
                (1, None) => {
                    both.wait();
                    assert!(came.is_empty());
                    Turn::Waits(Waits { state: Some(2), needs: [0].into() })
                }
                (1, Some(before)) => Turn::Done(before + *came[0].1),
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
            // Each is taken up twice, the second time for all that stands before it.
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
