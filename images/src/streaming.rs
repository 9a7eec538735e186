//! Files that are written in one go and not read again soon: what is behind the writer goes to the disk at once, and out of memory.
//!
//! Left to itself, the kernel keeps gibibytes of such a file in its cache. That pushes out what others need, makes the flush at the end
//! long, and costs more than the disk does where each page of memory has to be asked of a hypervisor first.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};
use tempfile::NamedTempFile;

/// How much is sent to the disk at one time.
const WINDOW: u64 = 8 << 20;
/// How many windows behind the writer the disk should have what was sent: then memory can be let go of.
const LAG: u64 = 4;
/// How large a file may be that is not worth it: most are read again while they are new.
const KEPT: u64 = 64 << 20;

/// A file that is being written, from its beginning to its end.
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

/// The ends of the windows that were filled meanwhile, of a file that is large by then.
fn passed(before: u64, after: u64) -> impl Iterator<Item = u64> {
    (before / WINDOW + 1..=after / WINDOW).map(|window| window * WINDOW).filter(|at| *at > KEPT)
}

/// The advice starts writing what the disk does not have, and lets go of what it has.
fn behind(file: &File, at: u64) {
    for windows in [1, LAG] {
        let advised = fadvise(file, at - windows * WINDOW, NonZeroU64::new(WINDOW), Advice::DontNeed);
        // It is advice: a file system that takes none writes the same bytes.
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
