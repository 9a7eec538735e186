//! The folder with everything that a build mounts into its steps.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A folder of this build alone, removed when the build is over. The next build removes what a killed one left.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
    _lock: std::fs::File,
}

impl Scratch {
    pub(crate) fn new(state_dir: &Path) -> Result<Self> {
        let top = state_dir.join("builds");
        let failed = |cause| Error::io("making", &top, cause);
        std::fs::create_dir_all(&top).map_err(failed)?;
        remove_abandoned(&top).map_err(failed)?;
        let folder = tempfile::Builder::new().prefix("build-").tempdir_in(&top).map_err(failed)?;
        let lock = std::fs::File::create(folder.path().join("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    /// Steps can nest folders in mounts arbitrarily deep, so removal may fail; the next build tries again.
    fn drop(&mut self) {
        let _ = sandbox::remove_tree(self.folder.path());
    }
}

fn remove_abandoned(top: &Path) -> std::io::Result<()> {
    let folders: Vec<PathBuf> = std::fs::read_dir(top)?.filter_map(|item| Some(item.ok()?.path())).collect();
    for folder in folders {
        // Without a lock file it may belong to a build that is just starting, so it is left alone.
        if let Ok(lock) = std::fs::File::open(folder.join("lock"))
            && lock.try_lock().is_ok()
        {
            sandbox::remove_tree(&folder).map_err(std::io::Error::other)?;
        }
    }
    Ok(())
}
