//! Reading files of the administrator, with a bound.

use std::io::Read as _;
use std::path::Path;

use errors::{Error, Kind, Result};

/// The most bytes of a policy or of one bundle that are read.
const MAX_FILE: u64 = 16 << 20;

/// Reads a file of at most [`MAX_FILE`] bytes.
///
/// # Errors
/// When it is missing or larger.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(|cause| Error::io("reading", path, cause))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|cause| Error::io("reading", path, cause))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::new(
            Kind::Input,
            format!("{} is larger than {} MiB", path.display(), MAX_FILE >> 20),
        ));
    }
    Ok(bytes)
}
