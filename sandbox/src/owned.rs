//! What one living program owns below the state directory.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::mount::{MsFlags, mount};

use crate::directory::make_directory;
use crate::runtime::Runtime;
use crate::{Error, Result, mounts};

/// The file that an owner holds locked for as long as it lives.
pub(crate) const LOCK: &str = "lock";
/// How the names of owners' directories begin.
pub(crate) const PREFIX: &str = "o-";
/// Where an owner's overlays keep what was written, on the disk.
const OVERLAYS: &str = "overlay";
/// Two directories with nothing in them: overlayfs wants each layer to be another.
pub(crate) const EMPTY: [&str; 2] = ["empty-top", "empty-bottom"];
/// The folder in which nothing reaches the disk, and its subdirectories.
pub(crate) const MEMORY: &str = "memory";
const IN_MEMORY: [&str; 5] = ["net", "merged", "run", "runc", "links"];
/// More than thousands of steps need.
const MEMORY_OPTIONS: &str = "mode=0700,size=64m";

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

impl Owned {
    pub(crate) fn create(state: &Path, program: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(state);
        let directory = made.map_err(Error::path("make a directory in", state))?.keep();
        let lock = open_lock(&directory.join(LOCK))?;
        lock.lock().map_err(Error::path("lock", &directory))?;
        for kind in [OVERLAYS, MEMORY] {
            make_private(&directory.join(kind))?;
        }
        for name in EMPTY {
            make_directory(&directory.join(name))?;
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

fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::path("create", path))
}

pub(crate) fn open_lock(path: &Path) -> Result<File> {
    let opened = File::options().create(true).truncate(false).write(true).open(path);
    opened.map_err(Error::path("open", path))
}

pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
