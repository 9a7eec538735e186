use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::mount::{MsFlags, mount};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::runtime::Runtime;
use crate::{Canceller, Error, Exit, Memory, MountPoint, Network, Overlay, Process, Result, Stream, Upper};
use crate::{cgroup, mounts, overlay, run};

/// The machine, ready to hold sandboxes. Cheap to use from many threads.
#[derive(Debug)]
pub struct Host {
    owned: Arc<Owned>,
}

/// One program's own directory below the state directory. Everything it makes lies in there, and a lock says it lives.
///
/// What is small and short-lived lies in a file system in memory over its folder `memory`: a disk that has had many files deleted
/// lately takes its time to make new ones.
#[derive(Debug)]
pub(crate) struct Owned {
    directory: PathBuf,
    name: String,
    pub(crate) runtime: Runtime,
    counter: AtomicU64,
    /// The short names of lower directories, by their paths.
    links: Mutex<HashMap<PathBuf, u64>>,
    /// Held for as long as we live; the kernel lets go of it when we are killed.
    _lock: File,
}

const LOCK: &str = "lock";
const PREFIX: &str = "o-";
/// Where an owner's overlays keep what was written, on the disk.
const OVERLAYS: &str = "overlay";
/// Two directories with nothing in them: overlayfs wants each layer to be another.
pub(crate) const EMPTY: [&str; 2] = ["empty-top", "empty-bottom"];
/// The folder in which nothing reaches the disk, and its subdirectories.
const MEMORY: &str = "memory";
const IN_MEMORY: [&str; 5] = ["net", "merged", "run", "runc", "links"];
/// More than thousands of steps need.
const MEMORY_OPTIONS: &str = "mode=0700,size=64m";

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

    /// A new network namespace with loopback up and nothing else.
    pub fn network(&self) -> Result<Network> {
        Network::create(self.owned.clone())
    }

    /// A folder that never reaches a disk, for what a process is given in confidence.
    pub fn memory(&self) -> Result<Memory> {
        Memory::create(self.owned.clone())
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

impl Owned {
    fn create(state: &Path, program: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(state);
        let directory = made.map_err(Error::path("make a directory in", state))?.keep();
        let lock = open_lock(&directory.join(LOCK))?;
        lock.lock().map_err(Error::path("lock", &directory))?;
        for kind in [OVERLAYS, MEMORY] {
            make_private(&directory.join(kind))?;
        }
        for name in EMPTY {
            overlay::make_directory(&directory.join(name))?;
        }
        let memory = directory.join(MEMORY);
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), &memory, Some("tmpfs"), flags, Some(MEMORY_OPTIONS))
            .map_err(|error| Error::path("mount memory at", &memory)(error.into()))?;
        for kind in IN_MEMORY {
            make_private(&memory.join(kind))?;
        }
        let name = name_of(&directory);
        let runtime = Runtime::new(program, &memory.join("runc"));
        let (counter, links) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { directory, name, runtime, counter, links, _lock: lock })
    }

    /// A name of ours that was never used before, unique on this machine.
    pub(crate) fn fresh_id(&self) -> String {
        format!("{}-{}", self.name, self.number())
    }

    /// A number that was never given before.
    fn number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A path in memory, of that kind, where nothing is yet.
    pub(crate) fn fresh(&self, kind: &str) -> PathBuf {
        self.memory(kind).join(self.number().to_string())
    }

    /// The folder for all of a kind, in memory.
    pub(crate) fn memory(&self, kind: &str) -> PathBuf {
        self.directory.join(MEMORY).join(kind)
    }

    /// A path on the disk where nothing is yet, for one overlay.
    pub(crate) fn fresh_on_disk(&self) -> PathBuf {
        self.directory.join(OVERLAYS).join(self.number().to_string())
    }

    /// One of [`EMPTY`].
    pub(crate) fn empty(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The name by which a lower directory is known in the folder of links: so short that hundreds of layers stay within the one page
    /// that mount options may fill, and no path's own commas and colons are in the way.
    pub(crate) fn link(&self, lower: &Path) -> Result<u64> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = links.get(lower) {
            return Ok(*number);
        }
        let real = lower.canonicalize().map_err(Error::path("find the layer", lower))?;
        let number = self.number();
        let link = self.memory("links").join(number.to_string());
        symlink(real, &link).map_err(Error::path("create", &link))?;
        links.insert(lower.to_owned(), number);
        Ok(number)
    }

    /// The lowest layer of every overlay of ours.
    pub(crate) fn scaffold(&self) -> PathBuf {
        self.directory.join("scaffold")
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Err(error) = mounts::remove_tree(&self.directory) {
            tracing::warn!(%error, "left behind, to be cleared later");
        }
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

fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::path("create", path))
}

fn open_lock(path: &Path) -> Result<File> {
    let opened = File::options().create(true).truncate(false).write(true).open(path);
    opened.map_err(Error::path("open", path))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
