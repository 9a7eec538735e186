//! The machine, and what killed programs left on it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::owned::{LOCK, MEMORY, Owned, PREFIX, name_of, open_lock};
use crate::runtime::Runtime;
use crate::{Canceller, Error, Exit, Memory, MountPoint, Network, Overlay, Process, Result, Stream, Upper};
use crate::{cgroup, mounts, overlay, run};

/// The machine, ready to hold sandboxes. Cheap to use from many threads.
#[derive(Debug)]
pub struct Host {
    owned: Arc<Owned>,
}

impl Host {
    /// Opens the state directory, creating it (mode 0700) when it is not there, and clears what killed programs left
    /// in it: containers, cgroups, mounts, files. Whatever a living program holds is not touched.
    ///
    /// # Errors
    /// When we are not root, when there is no `runc`, and when something cannot be cleared.
    pub fn open(state: &Path) -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            return Err(Error::NotRoot { uid });
        }
        let program = Runtime::find()?;
        let state = make_state(state)?;
        // One opens at a time, so that nobody sees another's directory between its creation and its lock.
        let gate = open_lock(&state.join(LOCK))?;
        gate.lock().map_err(Error::path("lock", &state))?;
        clear_dead(&state, &program)?;
        let owned = Owned::create(&state, &program)?;
        overlay::make_scaffold(&owned.scaffold(), &[])?;
        Ok(Self { owned: Arc::new(owned) })
    }

    /// What the OCI runtime says to `--version`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn runtime_version(&self) -> Result<String> {
        Runtime::version(&Runtime::find()?)
    }

    /// A new network namespace with loopback up and nothing else.
    pub fn network(&self) -> Result<Network> {
        Network::create(self.owned.clone())
    }

    /// A folder that never reaches a disk, for what a process is given in confidence.
    pub fn memory(&self) -> Result<Memory> {
        Memory::create(self.owned.clone())
    }

    /// A folder in memory that holds at most `size` bytes, for small files that a process may write to: what it writes
    /// there is neither on a disk nor there for the next process.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn memory_of(&self, size: u64) -> Result<Memory> {
        Memory::bounded(self.owned.clone(), size)
    }

    /// A writable root over `lowers`, topmost first, with a fresh upper directory.
    ///
    /// Beneath them all lies a scaffold with the places where things are always mounted, so that mounting leaves no
    /// trace in [`Overlay::upper`].
    pub fn overlay(&self, lowers: &[PathBuf]) -> Result<Overlay> {
        Overlay::writable(self.owned.clone(), lowers, &[])
    }

    /// As [`Self::overlay`], with further places to mount at: see [`MountPoint::of`].
    pub fn overlay_with(&self, lowers: &[PathBuf], points: &[MountPoint]) -> Result<Overlay> {
        Overlay::writable(self.owned.clone(), lowers, points)
    }

    /// A root over `lowers` that nobody can write to. It has no upper directory.
    pub fn overlay_readonly(&self, lowers: &[PathBuf]) -> Result<Overlay> {
        Overlay::readonly(self.owned.clone(), lowers, &[])
    }

    /// As [`Self::overlay_readonly`], with further places to mount at, since none can be created later.
    pub fn overlay_readonly_with(&self, lowers: &[PathBuf], points: &[MountPoint]) -> Result<Overlay> {
        Overlay::readonly(self.owned.clone(), lowers, points)
    }

    /// An empty folder that others can lie above and below of, to be filled by hand in overlayfs's own form.
    pub fn folder(&self) -> Result<Upper> {
        Upper::empty(self.owned.clone())
    }

    /// What lies in `lowers` and nothing else, for reading files: nothing can be run in it, since it has no places to
    /// mount at.
    pub fn view(&self, lowers: &[PathBuf]) -> Result<Overlay> {
        Overlay::view(self.owned.clone(), lowers)
    }

    /// Runs a process tree in `root` and `network` until its first process ends, and kills what is left of it then.
    ///
    /// `output` gets both streams as they come, on this thread.
    ///
    /// # Errors
    /// When the runtime cannot set it up. A program that is missing or fails is an [`Exit`].
    pub fn run(
        &self,
        process: &Process,
        root: &Path,
        network: &Network,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Exit> {
        self.run_until(process, root, network, output, &Canceller::new())
    }

    /// As [`Self::run`], until `canceller` is used.
    pub fn run_until(
        &self,
        process: &Process,
        root: &Path,
        network: &Network,
        output: &mut dyn FnMut(Stream, &[u8]),
        canceller: &Canceller,
    ) -> Result<Exit> {
        run::run(&self.owned, process, root, network.path(), output, canceller)
    }
}

/// Clears the directories whose lock nobody holds.
fn clear_dead(state: &Path, program: &Path) -> Result<()> {
    for entry in fs::read_dir(state).map_err(Error::path("list", state))? {
        let directory = entry.map_err(Error::path("list", state))?.path();
        if !name_of(&directory).starts_with(PREFIX) {
            continue;
        }
        let lock = match open_lock(&directory.join(LOCK)) {
            // Its owner ended by itself just now, and took the directory along.
            Err(Error::Path { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        match lock.try_lock() {
            Ok(()) => clear(&directory, program)?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(Error::path("lock", &directory)(error)),
        }
    }
    Ok(())
}

/// Clears what one dead program left, from the inside out: processes, cgroups, mounts, files.
fn clear(directory: &Path, program: &Path) -> Result<()> {
    tracing::info!(directory = %directory.display(), "clearing what a killed program left");
    let containers = directory.join(MEMORY).join("runc");
    let runtime = Runtime::new(program, &containers);
    if containers.exists() {
        for entry in fs::read_dir(&containers).map_err(Error::path("list", &containers))? {
            let entry = entry.map_err(Error::path("list", &containers))?;
            runtime.delete_force(&entry.file_name().to_string_lossy())?;
        }
    }
    cgroup::clear(&format!("{}-", name_of(directory)))?;
    mounts::remove_tree(directory)
}

fn make_state(state: &Path) -> Result<PathBuf> {
    if !state.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
        made.map_err(Error::path("create", state))?;
    }
    spread(state);
    // The kernel lists mounts by real path: only by that do we find them again.
    state.canonicalize().map_err(Error::path("find", state))
}

/// Asks the file system to lay each owner's directory somewhere else on the disk (`chattr +T`): what is made now is then not put where an
/// owner before has just had its files deleted, which costs some file systems a search for each file. One that does not know of it
/// does without.
fn spread(state: &Path) {
    let set = || -> io::Result<()> {
        let folder = File::open(state)?;
        let flags = ioctl_getflags(&folder)?;
        Ok(ioctl_setflags(&folder, flags | IFlags::TOPDIR)?)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, state = %state.display(), "the file system cannot be asked to spread directories");
    }
}
