//! Writes large files that are not read again soon: written data is sent to disk at once and dropped from the page
//! cache.
//!
//! Otherwise the kernel would keep gibibytes of such a file in the page cache. That would evict other data and make
//! the final flush long. If each page has to be requested from a hypervisor first, it would also take more time than
//! the disk.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};
use tempfile::NamedTempFile;

/// The bytes sent to disk at a time.
const WINDOW: u64 = 8 << 20;
/// The number of windows after which the disk should have written one, so that its pages can be dropped.
const LAG: u64 = 4;
/// Smaller files are left in the page cache, since most are read again soon.
const KEPT: u64 = 64 << 20;

/// A file that is written sequentially.
pub(crate) struct Streaming {
    file: NamedTempFile,
    written: u64,
}

impl Streaming {
    pub(crate) fn new(file: NamedTempFile) -> Self {
        Self { file, written: 0 }
    }

    pub(crate) fn into_inner(self) -> NamedTempFile {
        self.file
    }
}

impl Write for Streaming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        let before = self.written;
        self.written += count as u64;
        for at in passed(before, self.written) {
            behind(self.file.as_file(), at);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The ends of the windows that were filled in between, once the file is large.
fn passed(before: u64, after: u64) -> impl Iterator<Item = u64> {
    (before / WINDOW + 1..=after / WINDOW).map(|window| window * WINDOW).filter(|at| *at > KEPT)
}

/// The advice starts writing dirty pages, and drops those already written.
fn behind(file: &File, at: u64) {
    for windows in [1, LAG] {
        let advised = fadvise(file, at - windows * WINDOW, NonZeroU64::new(WINDOW), Advice::DontNeed);
        // Only an optimisation: the bytes are the same without it.
        advised.ok();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_window_is_passed_once_whatever_the_size_of_the_writes() {
        for size in [1 << 18, WINDOW, 100_000, 20 << 20] {
            let ends: Vec<u64> = (0..=(200 << 20) / size).map(|count| count * size).collect();
            let all: Vec<u64> = ends.windows(2).flat_map(|pair| passed(pair[0], pair[1])).collect();
            let wanted = (KEPT / WINDOW + 1..=ends[ends.len() - 1] / WINDOW).map(|window| window * WINDOW);
            assert_eq!(all, wanted.collect::<Vec<_>>(), "writes of {size}");
        }
        assert!(passed(0, KEPT).next().is_none(), "a small file is left alone");
    }

    #[test]
    fn what_was_let_go_of_is_there() {
        let mut out = Streaming::new(NamedTempFile::new().unwrap());
        let block = |number: u8| vec![number; 1 << 20];
        for number in 0..120 {
            out.write_all(&block(number)).unwrap();
        }
        let bytes = std::fs::read(out.into_inner().path()).unwrap();
        assert_eq!(bytes.len(), 120 << 20);
        assert!(bytes.chunks(1 << 20).zip(0..).all(|(found, number)| found == block(number)));
    }
}
