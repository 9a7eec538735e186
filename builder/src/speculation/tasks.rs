//! A pool of speculative tasks, which run only on processors that are otherwise idle. A consumer claims a task's
//! result; a task that has not begun by then never will, and the consumer does the work itself.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sandbox::Canceller;

/// Tasks by number, in the order in which their results are likely to be needed.
pub(crate) struct TaskPool<T> {
    processors: usize,
    state: Mutex<PoolState<T>>,
    changed: Condvar,
}

struct PoolState<T> {
    tasks: Vec<TaskState<T>>,
    /// How many processors are in use, by early tasks or by work that is needed for sure.
    processor: usize,
    /// Whether any work that is needed for sure has begun: that comes first.
    has_begun: bool,
}

enum TaskState<T> {
    Waits,
    Goes(Canceller),
    Done(T),
    /// Cancelled or claimed; there is no result, and it is not begun any more.
    Gone,
}

impl<T> TaskPool<T> {
    pub(crate) fn new(tasks: usize, processors: usize) -> Self {
        let state = PoolState {
            tasks: (0..tasks).map(|_| TaskState::Waits).collect(),
            processor: 0,
            has_begun: false,
        };
        Self { processors, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Runs tasks whenever a processor is idle, until none is left to begin. Each task gets a canceller of its own,
    /// which is cancelled once its result is not needed.
    pub(crate) fn work(&self, canceller: &Canceller, task: &dyn Fn(usize, &Canceller) -> T) {
        while let Some((number, own)) = self.next(canceller) {
            let mut going = RunningTask { pool: self, number, result: None };
            going.result = Some(task(number, &own));
        }
    }

    /// Marks a processor as used by work that is needed for sure. Never waits for one.
    pub(crate) fn processor(&self) -> Busy<'_, T> {
        let mut now = self.lock();
        now.processor += 1;
        now.has_begun = true;
        self.changed.notify_all();
        Busy(self)
    }

    /// The result of a task. Waits for one that is running; the caller's processor counts as idle meanwhile. None
    /// when it had not begun, and then it never will.
    pub(crate) fn claim(&self, number: usize, _idle: &Busy<'_, T>) -> Option<T> {
        let mut now = self.lock();
        if matches!(now.tasks[number], TaskState::Goes(_)) {
            now.processor -= 1;
            self.changed.notify_all();
            while matches!(now.tasks[number], TaskState::Goes(_)) {
                now = self.changed.wait(now).unwrap_or_else(PoisonError::into_inner);
            }
            now.processor += 1;
        }
        match std::mem::replace(&mut now.tasks[number], TaskState::Gone) {
            TaskState::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Cancels a task whose result is not needed, without waiting for its end.
    pub(crate) fn cancel(&self, number: usize) {
        match &mut self.lock().tasks[number] {
            TaskState::Goes(canceller) => canceller.cancel(),
            other => *other = TaskState::Gone,
        }
    }

    /// Cancels tasks, waits until they have ended, and returns the results of those that had begun.
    pub(crate) fn abandon(&self, range: Range<usize>) -> Vec<(usize, T)> {
        let mut now = self.lock();
        for task in &mut now.tasks[range.clone()] {
            match task {
                TaskState::Waits => *task = TaskState::Gone,
                TaskState::Goes(canceller) => canceller.cancel(),
                TaskState::Done(_) | TaskState::Gone => {}
            }
        }
        self.changed.notify_all();
        while now.tasks[range.clone()].iter().any(|task| matches!(task, TaskState::Goes(_))) {
            now = self.changed.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
        let result = |number: usize| match std::mem::replace(&mut now.tasks[number], TaskState::Gone) {
            TaskState::Done(result) => Some((number, result)),
            _ => None,
        };
        range.filter_map(result).collect()
    }

    /// Waits until a task may begin, and takes the first; none when all have begun.
    fn next(&self, canceller: &Canceller) -> Option<(usize, Canceller)> {
        let mut now = self.lock();
        loop {
            let first = now.tasks.iter().position(|task| matches!(task, TaskState::Waits))?;
            if now.has_begun && now.processor < self.processors {
                let own = canceller.part();
                now.tasks[first] = TaskState::Goes(own.clone());
                now.processor += 1;
                return Some((first, own));
            }
            now = self.changed.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A processor in use. Dropping it makes it idle again.
pub(crate) struct Busy<'a, T>(&'a TaskPool<T>);

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        self.0.lock().processor -= 1;
        self.0.changed.notify_all();
    }
}

/// A running task. One that panics has no result, so that nobody waits for it for ever.
struct RunningTask<'a, T> {
    pool: &'a TaskPool<T>,
    number: usize,
    result: Option<T>,
}

impl<T> Drop for RunningTask<'_, T> {
    fn drop(&mut self) {
        let mut now = self.pool.lock();
        now.tasks[self.number] = self.result.take().map_or(TaskState::Gone, TaskState::Done);
        now.processor -= 1;
        self.pool.changed.notify_all();
    }
}

/// Cancels all tasks when dropped, so that they end with the scope even if it panics.
pub(crate) struct AbandonOnDrop<'a, T>(pub(crate) &'a TaskPool<T>);

impl<T> Drop for AbandonOnDrop<'_, T> {
    fn drop(&mut self) {
        let count = self.0.lock().tasks.len();
        self.0.abandon(0..count);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Runs tasks with two processors while `done` runs.
    fn beside<R>(
        tasks: usize,
        task: &(dyn Fn(usize, &Canceller) -> usize + Sync),
        done: impl FnOnce(&TaskPool<usize>) -> R,
    ) -> R {
        let (pool, canceller) = (TaskPool::new(tasks, 2), Canceller::new());
        std::thread::scope(|scope| {
            let abandon = AbandonOnDrop(&pool);
            for _ in 0..2 {
                scope.spawn(|| pool.work(&canceller, task));
            }
            let result = done(&pool);
            drop(abandon);
            result
        })
    }

    fn until_cancelled(canceller: &Canceller) {
        while !canceller.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_task_goes_beside_what_is_needed_and_another_while_that_waits() {
        let (begun, begins) = channel();
        let (may, waits) = channel::<()>();
        let waits = Mutex::new(waits);
        let task = |number: usize, _: &Canceller| {
            begun.send(number).unwrap();
            if number == 0 {
                waits.lock().unwrap().recv().unwrap();
            } else if number == 1 {
                may.send(()).unwrap();
            }
            number + 10
        };
        let task: &(dyn Fn(usize, &Canceller) -> usize + Sync) = &task;
        beside(2, task, |pool| {
            // No task begins before work that is needed for sure has begun.
            assert!(begins.recv_timeout(Duration::from_millis(20)).is_err());
            let processor = pool.processor();
            assert_eq!(begins.recv(), Ok(0));
            assert!(begins.recv_timeout(Duration::from_millis(20)).is_err(), "both processors are in use");
            // The first task ends only once the second has begun, which can use the processor of the waiting claim.
            assert_eq!(pool.claim(0, &processor), Some(10));
            assert_eq!(begins.recv(), Ok(1));
            assert_eq!(pool.claim(1, &processor), Some(11));
            assert_eq!(pool.claim(1, &processor), None, "it is given once");
        });
    }

    #[test]
    fn what_is_not_begun_is_left_to_who_needs_it() {
        let task = |_: usize, _: &Canceller| panic!("it was begun");
        let (pool, other) = (TaskPool::<usize>::new(1, 1), Canceller::new());
        let processor = pool.processor();
        assert_eq!(pool.claim(0, &processor), None);
        drop(processor);
        pool.work(&other, &task);
    }

    #[test]
    fn what_is_abandoned_ends_and_is_told() {
        let (begun, begins) = channel();
        let task = |number: usize, canceller: &Canceller| {
            begun.send(number).unwrap();
            if number > 0 {
                until_cancelled(canceller);
            }
            number
        };
        beside(4, &task, |pool| {
            let processor = pool.processor();
            assert_eq!([begins.recv(), begins.recv()], [Ok(0), Ok(1)]);
            // There is no processor for the third, and the fourth comes after it.
            assert_eq!(pool.abandon(1..4), [(1, 1)]);
            assert_eq!(pool.claim(0, &processor), Some(0), "those before stay");
            assert_eq!(pool.claim(2, &processor), None);
        });
    }

    #[test]
    fn what_is_left_off_ends_or_is_not_begun() {
        let (begun, begins) = channel();
        let task = |number: usize, canceller: &Canceller| {
            begun.send(number).unwrap();
            if number == 1 {
                until_cancelled(canceller);
            }
            number
        };
        beside(3, &task, |pool| {
            let processor = pool.processor();
            assert_eq!([begins.recv(), begins.recv()], [Ok(0), Ok(1)]);
            [2, 1].into_iter().for_each(|number| pool.cancel(number));
            assert_eq!([2, 1].map(|number| pool.claim(number, &processor)), [None, Some(1)]);
            pool.cancel(0);
            assert_eq!(pool.claim(0, &processor), None);
        });
    }

    #[test]
    fn the_end_of_the_work_ends_what_goes_on() {
        let (begun, begins) = channel();
        let task = |number: usize, canceller: &Canceller| {
            begun.send(()).unwrap();
            until_cancelled(canceller);
            number
        };
        beside(3, &task, |pool| {
            let _busy = pool.processor();
            begins.recv().unwrap();
        });
    }

    #[test]
    fn nobody_waits_for_what_panicked() {
        let pool = TaskPool::<usize>::new(1, 2);
        let processor = pool.processor();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.work(&Canceller::new(), &|_, _| panic!("a bug"));
        }));
        assert!(ended.is_err());
        assert_eq!(pool.claim(0, &processor), None);
    }
}
