use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::User;

/// What to run, as whom, and within which bounds.
#[derive(Debug, Clone)]
pub struct Process {
    /// Program and arguments. A program without `/` is searched in the `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment: nothing of ours is inherited. `HOME` is set from the image's passwd file when absent.
    pub env: Vec<(String, String)>,
    /// Absolute working directory, created by the runtime when it does not exist.
    pub cwd: String,
    /// Whom to run as: see [`crate::resolve_user`].
    pub user: User,
    /// The name in the container's own UTS namespace.
    pub hostname: String,
    /// Files and directories of this machine, bind mounted.
    pub mounts: Vec<Mount>,
    /// Memory file systems.
    pub tmpfs: Vec<Tmpfs>,
    /// What it may use up.
    pub limits: ProcessLimits,
    /// What it may do.
    pub profile: Profile,
    /// Whether something above must reach no disk: what is written down for the runtime then lies in memory.
    pub confidential: bool,
}

impl Process {
    /// A process with root's identity, `/` as its working directory, and no environment, mounts or limits.
    pub fn new(profile: Profile, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".into(),
            user: User::default(),
            hostname: "sandbox".into(),
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            limits: ProcessLimits::default(),
            profile,
            confidential: false,
        }
    }
}

/// A file or directory of this machine that the process sees. Mounted `nosuid,nodev`, without what is mounted beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is on this machine.
    pub source: PathBuf,
    /// Where the process sees it: absolute.
    pub target: String,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// An empty file system in memory, mode 1777, `nosuid,nodev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where the process sees it: absolute.
    pub target: String,
    /// Bytes at most.
    pub size: u64,
    /// Whether it stays empty.
    pub readonly: bool,
}

/// Bounds of the whole process tree; `None` is no bound of ours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessLimits {
    /// Bytes of memory; swap does not add to it.
    pub memory: Option<u64>,
    /// Processes and threads at one time.
    pub pids: Option<u64>,
    /// Processors' worth of time: 1.5 is one and a half.
    pub cpus: Option<f64>,
    /// Time by the clock from start to end, after which the tree is killed.
    pub wall: Option<Duration>,
    /// Open files of one process; 65,536 when not given.
    pub files: Option<u64>,
    /// Bytes of any one file that is written, on whichever file system: also bounds a file mounted for writing.
    pub file_size: Option<u64>,
}

/// What the process may do to its own container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A step of a build: Docker's default capabilities and system calls, and a writable root.
    Build,
    /// A stranger's program beside somebody's data: no capability, and no way to gain one.
    Algorithm {
        /// Whether it may write to its root. Off, only its mounts and tmpfs are writable.
        writable_root: bool,
    },
}

/// Which of the two output streams bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2; what the runtime itself has to say comes here as well.
    Stderr,
}

/// How a process tree ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// The first process returned this code; 127 when there is no such program, 126 when it cannot be executed.
    Code(i32),
    /// A signal ended it. The runtime reports 128+n for both, so a program that itself returns 129–192 reads as this.
    Signal(i32),
    /// The wall time was over and the tree was killed.
    TimedOut,
    /// The kernel killed a process of the tree for memory, and the first process then failed.
    OutOfMemory,
    /// [`Canceller::cancel`] was called and the tree was killed.
    Cancelled,
}

impl Exit {
    /// Whether the process returned 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Ends a running process tree from another thread, such as the one that receives Ctrl-C.
#[derive(Debug, Clone, Default)]
pub struct Canceller(Arc<Cancelled>);

#[derive(Debug, Default)]
struct Cancelled {
    own: AtomicBool,
    /// What ends this one as well.
    above: Option<Canceller>,
}

impl Canceller {
    /// One that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// One for a part of the work: it is used when this one is, but not the other way round.
    #[must_use]
    pub fn part(&self) -> Self {
        Self(Arc::new(Cancelled { own: AtomicBool::new(false), above: Some(self.clone()) }))
    }

    /// Ends every run that was given this canceller, now and later.
    pub fn cancel(&self) {
        self.0.own.store(true, Ordering::Release);
    }

    /// Whether [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.own.load(Ordering::Acquire) || self.is_cancelled_above()
    }

    /// Whether this part alone is ended, and the work that it is a part of goes on.
    pub fn is_left_off(&self) -> bool {
        self.0.own.load(Ordering::Acquire) && self.0.above.is_some() && !self.is_cancelled_above()
    }

    fn is_cancelled_above(&self) -> bool {
        self.0.above.as_ref().is_some_and(Self::is_cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_whole_ends_its_parts_and_not_the_other_way_round() {
        let whole = Canceller::new();
        let [one, other] = [whole.part(), whole.part()];
        one.cancel();
        assert!(one.is_cancelled() && !other.is_cancelled() && !whole.is_cancelled());
        assert!(one.is_left_off() && !other.is_left_off());
        whole.clone().cancel();
        assert!(other.is_cancelled() && other.part().is_cancelled());
        assert!(![one, other, whole].iter().any(Canceller::is_left_off));
    }
}
