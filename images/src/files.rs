//! Reads files of the user completely, up to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The bytes of a file. None if it has more than `limit`.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
