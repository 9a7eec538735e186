use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MsFlags, mount};

use crate::owned::Owned;
use crate::{Error, Result, mounts};

/// A folder that lies in memory and is never swapped out: nothing in it reaches a disk. Dropped, it is gone.
///
/// Nothing bounds it, unless it was made by [`Host::memory_of`](crate::Host::memory_of): it is for what the caller knows to
/// be small.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    /// Kept so that the owner's directory outlives us.
    _owner: Arc<Owned>,
}

impl Memory {
    pub(crate) fn create(owner: Arc<Owned>) -> Result<Self> {
        let path = owner.fresh("run");
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::path("create", &path))?;
        let memory = Self { path, _owner: owner };
        cover(&memory.path)?;
        Ok(memory)
    }

    /// One that holds at most `size` bytes, for what a process may write to. A tmpfs, which may be swapped out.
    pub(crate) fn bounded(owner: Arc<Owned>, size: u64) -> Result<Self> {
        let path = owner.fresh("run");
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::path("create", &path))?;
        let memory = Self { path, _owner: owner };
        let options = format!("mode=0700,size={size}");
        mount(Some("tmpfs"), &memory.path, Some("tmpfs"), FLAGS, Some(options.as_str()))
            .map_err(|error| Error::path("mount memory at", &memory.path)(error.into()))?;
        Ok(memory)
    }

    /// Where it is; of mode 0700.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Lays an empty file system in memory over a folder. A ramfs, since a tmpfs may be swapped out.
pub(crate) fn cover(path: &Path) -> Result<()> {
    mount(Some("ramfs"), path, Some("ramfs"), FLAGS, Some("mode=0700"))
        .map_err(|error| Error::path("mount memory at", path)(error.into()))
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = mounts::remove_tree(&self.path) {
            tracing::warn!(%error, "left in memory, to be cleared later");
        }
    }
}
