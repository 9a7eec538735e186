//! Directories that a root may show: with the mode that was meant, whatever the umask, and dated 1970.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::{Error, Result};

/// The mode of a directory that everybody may look into.
pub(crate) const ORDINARY: u32 = 0o755;

pub(crate) fn make_directory(path: &Path) -> Result<()> {
    make_directory_of(path, ORDINARY)
}

pub(crate) fn make_directory_of(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().mode(mode).create(path).map_err(Error::path("create", path))?;
    // The mode above is subject to the umask, and a root directory's mode is seen inside.
    let open = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, open).map_err(Error::path("set the mode of", path))?;
    set_epoch(path)
}

pub(crate) fn set_epoch(path: &Path) -> Result<()> {
    let set: io::Result<()> = File::open(path).and_then(|file| file.set_times(epoch()));
    set.map_err(Error::path("set the time of", path))
}

pub(crate) fn epoch() -> FileTimes {
    FileTimes::new().set_modified(UNIX_EPOCH).set_accessed(UNIX_EPOCH)
}
