//! Tasks that are begun before anybody knows whether they are worth it, on processors that have nothing else to do. Whoever
//! needs what came of one claims it; one that was not begun by then is left to them.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sandbox::Canceller;

/// Tasks by number, in the order in which they are likely to be needed.
pub(crate) struct TaskPool<T> {
    processors: usize,
    state: Mutex<PoolState<T>>,
    changed: Condvar,
}

struct PoolState<T> {
    tasks: Vec<TaskState<T>>,
    /// How many processors are in use, by tasks or by what is sure to be needed.
    processor: usize,
    /// Whether anything that is sure to be needed was begun: that comes first.
    has_begun: bool,
}

enum TaskState<T> {
    Waits,
    Goes(Canceller),
    Done(T),
    /// Nobody begins it any more, or needs what came of it.
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

    /// Begins tasks whenever a processor is idle, until the last one was. Each gets what ends it once it is not worth going on.
    pub(crate) fn work(&self, canceller: &Canceller, task: &dyn Fn(usize, &Canceller) -> T) {
        while let Some((number, own)) = self.next(canceller) {
            let mut going = RunningTask { pool: self, number, result: None };
            going.result = Some(task(number, &own));
        }
    }

    /// Takes a processor for what is sure to be needed. It never waits for one.
    pub(crate) fn processor(&self) -> Busy<'_, T> {
        let mut now = self.lock();
        now.processor += 1;
        now.has_begun = true;
        self.changed.notify_all();
        Busy(self)
    }

    /// What came of a task, which is waited for if it goes on: the processor of who waits is idle meanwhile. None when it was
    /// not begun; then it never will be.
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

    /// Ends a task that nobody needs any more, without waiting for that.
    pub(crate) fn cancel(&self, number: usize) {
        match &mut self.lock().tasks[number] {
            TaskState::Goes(canceller) => canceller.cancel(),
            other => *other = TaskState::Gone,
        }
    }

    /// Ends some tasks, and waits until they have ended; what came of those that were begun.
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

    /// Waits for the first task that may be begun; none when all were.
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

/// A processor in use. Dropped, it is idle.
pub(crate) struct Busy<'a, T>(&'a TaskPool<T>);

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        self.0.lock().processor -= 1;
        self.0.changed.notify_all();
    }
}

/// A task that goes on. One that panics came to nothing, and nobody waits for it.
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

/// Ends what goes on when the work is over, however it is.
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

    /// Works with two processors while something is done.
    fn beside<R>(
        tasks: usize,
        task: &(dyn Fn(usize, &Canceller) -> usize + Sync),
        done: impl FnOnce(&TaskPool<usize>) -> R,
    ) -> R {
        let (pool, canceller) = (TaskPool::new(tasks, 2), Canceller::new());
        std::thread::scope(|scope| {
            let predict_above = AbandonOnDrop(&pool);
            for _ in 0..2 {
                scope.spawn(|| pool.work(&canceller, task));
            }
            let result = done(&pool);
            drop(predict_above);
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
            // Before anything that is needed was begun, nothing is.
            assert!(begins.recv_timeout(Duration::from_millis(20)).is_err());
            let processor = pool.processor();
            assert_eq!(begins.recv(), Ok(0));
            assert!(begins.recv_timeout(Duration::from_millis(20)).is_err(), "both processors are in use");
            // The first task ends only once the second was begun, for which there is room while it is waited for.
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
            // There is no processor for the third; the fourth is behind it.
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
