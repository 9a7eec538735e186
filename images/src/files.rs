//! Files of people's: read whole, but never more than a limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The bytes of a file that holds at most `limit` of them. None when it holds more.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
