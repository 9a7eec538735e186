//! Files that are read with a bound, and written as a whole or not at all.

use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Writes a file as a whole or not at all.
///
/// # Errors
/// When its folder cannot be written.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|failed| failed.error)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    write().map_err(|cause: std::io::Error| Error::io("writing", path, cause))
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// When it is missing, larger, or unreadable.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|cause| Error::io("reading", path, cause))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|cause| Error::io("reading", path, cause))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::new(Kind::Input, format!("{} is larger than {limit} bytes", path.display()))),
        false => Ok(bytes),
    }
}
