//! Gzip with one member (RFC 1952 allows several) per mebibyte of input. Members are compressed in parallel by
//! libdeflate in the background: a block that finds no free worker is spooled to disk, and the writer continues.
//!
//! Members are split by input size alone, so the result depends neither on the number of processors nor on the size
//! of the writes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libdeflater::{CompressionLvl, Compressor};

/// The bytes of input per member.
pub(super) const MEMBER: usize = 1 << 20;
const LEVEL: i32 = 5;
/// More threads compress faster than the disks of this kind of machine write.
const MOST_WORKERS: usize = 8;
/// The nice value of workers, from 0 to 19, so that threads that others wait for come first.
const NICENESS: i32 = 10;
/// The most bytes of one layer that are spooled to disk; beyond it the writer waits.
const MOST_SPOOLED: u64 = 1 << 30;
/// The interval at which a waiting thread checks whether to stop.
const PAUSE: Duration = Duration::from_millis(50);

/// A writer that compresses its input.
pub(super) struct Members<W> {
    block: Vec<u8>,
    folder: PathBuf,
    most_spooled: u64,
    stage: Stage<W>,
}

enum Stage<W> {
    /// Less than one member so far, which needs no threads.
    Small(W),
    Several(Workers<W>, Spool),
    /// The workers failed and take no more input.
    Broken,
}

/// Compression in progress. Dropping it stops the compression.
pub(super) struct Growing<W>(Remaining<W>);

enum Remaining<W> {
    Done(W),
    Working(Workers<W>),
}

struct Workers<W> {
    shared: Arc<Shared<W>>,
    /// None once all blocks were handed out.
    jobs: Option<Sender<(usize, Block)>>,
    threads: Vec<JoinHandle<()>>,
    /// The number of blocks handed out.
    count: usize,
}

enum Block {
    Held(Vec<u8>),
    Spooled { file: Arc<File>, at: u64, length: usize },
}

struct Shared<W> {
    jobs: Mutex<Receiver<(usize, Block)>>,
    state: Mutex<WriterState<W>>,
    changed: Condvar,
}

struct WriterState<W> {
    /// The member to write next: they are compressed in any order, but written in order.
    next: usize,
    /// The number of blocks in memory.
    held: usize,
    /// The output; none while a member is being written.
    out: Option<W>,
    /// Why writing ended early, if it did.
    end: Option<End>,
}

enum End {
    Failed(io::Error),
    /// The failure was returned, or the output is not wanted any more.
    Returned,
}

impl<W: Write + Send + 'static> Members<W> {
    /// `folder` is where blocks are spooled, in a nameless file.
    pub(super) fn new(out: W, folder: &Path) -> Self {
        let block = Vec::with_capacity(MEMBER);
        Self { block, folder: folder.to_owned(), most_spooled: MOST_SPOOLED, stage: Stage::Small(out) }
    }

    /// Ends the input.
    pub(super) fn finish(mut self) -> io::Result<Growing<W>> {
        if matches!(self.stage, Stage::Several(..)) && !self.block.is_empty() {
            self.submit()?;
        }
        match self.stage {
            Stage::Small(mut out) => {
                out.write_all(&member(&self.block)?)?;
                Ok(Growing(Remaining::Done(out)))
            }
            Stage::Several(mut workers, _) => {
                workers.jobs = None;
                Ok(Growing(Remaining::Working(workers)))
            }
            Stage::Broken => Err(lost()),
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(MEMBER));
        let (mut workers, mut spool) = match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Small(out) => (Workers::start(out)?, Spool { file: None, length: 0 }),
            Stage::Several(workers, spool) => (workers, spool),
            Stage::Broken => return Err(lost()),
        };
        let block = match workers.hold(Full::Says)? {
            true => Block::Held(block),
            false => match spool.put(&block, &self.folder, self.most_spooled)? {
                Some(spooled) => spooled,
                None => {
                    workers.hold(Full::Waits)?;
                    Block::Held(block)
                }
            },
        };
        workers.give(block)?;
        self.stage = Stage::Several(workers, spool);
        Ok(())
    }
}

impl<W: Write + Send + 'static> Write for Members<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(MEMBER - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == MEMBER {
            self.submit()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W> Growing<W> {
    /// Whether compression has ended.
    pub(super) fn is_done(&self) -> bool {
        match &self.0 {
            Remaining::Done(_) => true,
            Remaining::Working(workers) => workers.is_done(&workers.shared.state()),
        }
    }

    /// Waits until everything is compressed and written, or until `stop` returns true: then the error is
    /// `Interrupted`.
    pub(super) fn wait(self, stop: &dyn Fn() -> bool) -> io::Result<W> {
        match self.0 {
            Remaining::Done(out) => Ok(out),
            Remaining::Working(workers) => workers.wait(stop),
        }
    }
}

impl<W: Write + Send + 'static> Workers<W> {
    fn start(out: W) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
        let (sender, receiver) = channel();
        let state = WriterState { next: 0, held: 0, out: Some(out), end: None };
        let shared = Arc::new(Shared {
            jobs: Mutex::new(receiver),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let worker = |_| {
            let shared = shared.clone();
            thread::Builder::new().name("gzip".to_owned()).spawn(move || shared.work())
        };
        let threads = (0..count).map(worker).collect::<io::Result<_>>()?;
        Ok(Self { shared, jobs: Some(sender), threads, count: 0 })
    }
}

/// What is done where no worker has room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    Says,
    Waits,
}

impl<W> Workers<W> {
    /// Reserves room for a block in memory, of which there is one per worker, and returns whether it did.
    fn hold(&self, full: Full) -> io::Result<bool> {
        let mut state = self.shared.state();
        loop {
            if let Some(cause) = state.failure() {
                return Err(cause);
            }
            if state.held < self.threads.len() {
                state.held += 1;
                return Ok(true);
            }
            if full == Full::Says {
                return Ok(false);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give(&mut self, block: Block) -> io::Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(lost)?;
        jobs.send((self.count, block)).map_err(|_| lost())?;
        self.count += 1;
        Ok(())
    }

    fn is_done(&self, state: &WriterState<W>) -> bool {
        state.next == self.count || state.end.is_some()
    }

    fn wait(mut self, stop: &dyn Fn() -> bool) -> io::Result<W> {
        let mut state = self.shared.state();
        while !self.is_done(&state) {
            let changed = self.shared.changed.wait_timeout(state, PAUSE);
            state = changed.unwrap_or_else(PoisonError::into_inner).0;
            if stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        drop(state);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| lost())?;
        }
        let mut state = self.shared.state();
        match state.failure() {
            Some(cause) => Err(cause),
            None => state.out.take().ok_or_else(lost),
        }
    }
}

impl<W> Drop for Workers<W> {
    /// Nobody waited for the result, so the remaining work is cancelled. Each worker ends after its current member.
    fn drop(&mut self) {
        self.jobs = None;
        if self.threads.is_empty() {
            return;
        }
        self.shared.end(End::Returned);
        for thread in self.threads.drain(..) {
            // `wait` reports a worker's panic; here the result is not wanted.
            let _ = thread.join();
        }
    }
}

impl<W> Shared<W> {
    fn state(&self) -> MutexGuard<'_, WriterState<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.changed.notify_all();
    }
}

impl<W: Write> Shared<W> {
    fn work(&self) {
        let _watch = Watch(self);
        // The writer's thread is waited for, while compression can lag behind. Raising the nice value needs no
        // privilege; if it fails all the same, only the priority differs.
        rustix::process::setpriority_process(None, NICENESS).ok();
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((index, block)) = job else { return };
            let is_held = matches!(block, Block::Held(_));
            let packed = block.into_bytes().and_then(|bytes| member(&bytes));
            let mut state = self.state();
            if is_held {
                state.held -= 1;
                self.changed.notify_all();
            }
            while state.next != index && state.end.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.end.is_some() {
                return;
            }
            let Some(mut out) = state.out.take() else { return };
            drop(state);
            let written = packed.and_then(|packed| out.write_all(&packed));
            let mut state = self.state();
            state.out = Some(out);
            match written {
                Ok(()) => state.next += 1,
                Err(cause) => drop(state.end.get_or_insert(End::Failed(cause))),
            }
            self.changed.notify_all();
        }
    }
}

/// Ends the other workers when one panics, so that nobody waits for its member.
struct Watch<'a, W>(&'a Shared<W>);

impl<W> Drop for Watch<'_, W> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(End::Failed(lost()));
        }
    }
}

impl<W> WriterState<W> {
    /// Why writing ended early. The cause is returned only once.
    fn failure(&mut self) -> Option<io::Error> {
        self.end.as_mut().map(|end| match std::mem::replace(end, End::Returned) {
            End::Failed(cause) => cause,
            End::Returned => lost(),
        })
    }
}

/// Blocks that are spooled to disk.
struct Spool {
    file: Option<Arc<File>>,
    length: u64,
}

impl Spool {
    /// Spools a block; none if the spool or the disk is full, since waiting needs no space.
    fn put(&mut self, block: &[u8], folder: &Path, most: u64) -> io::Result<Option<Block>> {
        let (at, length) = (self.length, block.len());
        if at + length as u64 > most {
            return Ok(None);
        }
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.file.insert(Arc::new(tempfile::tempfile_in(folder)?)).clone(),
        };
        match file.write_all_at(block, at) {
            Ok(()) => {}
            Err(cause) if cause.kind() == io::ErrorKind::StorageFull => return Ok(None),
            Err(cause) => return Err(cause),
        }
        self.length += length as u64;
        Ok(Some(Block::Spooled { file, at, length }))
    }
}

impl Block {
    fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Held(bytes) => Ok(bytes),
            Self::Spooled { file, at, length } => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, at)?;
                Ok(bytes)
            }
        }
    }
}

fn member(block: &[u8]) -> io::Result<Vec<u8>> {
    let level =
        CompressionLvl::new(LEVEL).map_err(|_| io::Error::other("libdeflate does not know its own level"))?;
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
    let length = compressor
        .gzip_compress(block, &mut out)
        .map_err(|cause| io::Error::other(format!("libdeflate: {cause:?}")))?;
    out.truncate(length);
    Ok(out)
}

fn lost() -> io::Error {
    io::Error::other("a compressing thread ended early")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    const SIZE: usize = 20 * MEMBER + 12345;

    /// Incompressible bytes (xorshift).
    fn noise() -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..SIZE).map(|_| next()).collect()
    }

    fn packed(most_spooled: u64, piece: usize) -> Vec<u8> {
        let mut members = Members::new(Vec::new(), &std::env::temp_dir());
        members.most_spooled = most_spooled;
        noise().chunks(piece).for_each(|piece| members.write_all(piece).unwrap());
        members.finish().unwrap().wait(&|| false).unwrap()
    }

    #[test]
    fn where_blocks_wait_does_not_show() {
        let all = packed(u64::MAX, 1 << 16);
        for (most, piece) in [(0, 1 << 16), (3 * MEMBER as u64, 1 << 20), (u64::MAX, 54321)] {
            assert!(packed(most, piece) == all, "{most}");
        }
        let mut back = Vec::new();
        flate2::read::MultiGzDecoder::new(&all[..]).read_to_end(&mut back).unwrap();
        assert!(back == noise());
    }

    /// Accepts this many bytes, and no more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        for most_spooled in [0, u64::MAX] {
            let mut members = Members::new(Full(3 * MEMBER), &std::env::temp_dir());
            members.most_spooled = most_spooled;
            let done = members.write_all(&noise()).and_then(|()| members.finish()?.wait(&|| false));
            assert_eq!(done.err().unwrap().kind(), io::ErrorKind::StorageFull, "{most_spooled}");
        }
    }

    /// Accepts nothing before it is allowed to.
    struct Slow {
        may: Arc<(Mutex<bool>, Condvar)>,
        taken: Arc<Mutex<usize>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (may, changed) = &*self.may;
            drop(changed.wait_while(may.lock().unwrap(), |may| !*may).unwrap());
            *self.taken.lock().unwrap() += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_writes_goes_on_and_may_leave_off() {
        let (may, taken) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(Mutex::new(0)));
        let slow = Slow { may: may.clone(), taken: taken.clone() };
        let mut members = Members::new(slow, &std::env::temp_dir());
        members.write_all(&noise()).unwrap();
        let growing = members.finish().unwrap();
        assert!(!growing.is_done());
        let stop = || {
            *may.0.lock().unwrap() = true;
            may.1.notify_all();
            true
        };
        assert_eq!(growing.wait(&stop).map(|_| ()).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(*taken.lock().unwrap() < SIZE);
        // The threads have ended, and with them the other reference to their output.
        assert_eq!(Arc::strong_count(&may), 1);
    }
}
