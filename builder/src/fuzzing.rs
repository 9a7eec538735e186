//! Entry points of the fuzz targets in `fuzz/`; not a public interface.

use std::io::Write as _;

use crate::dockerfile::Dockerfile;
use crate::packages::installed::{Content, kind_of, read};

/// A Dockerfile.
#[must_use]
pub fn dockerfile(bytes: &[u8]) -> bool {
    let Ok(file) = Dockerfile::parse(bytes) else { return false };
    assert!(!file.stages.is_empty(), "a Dockerfile without a stage");
    true
}

/// A record of installed packages: its path, a line break, and its content.
#[must_use]
pub fn installed(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return false };
    let (path, content) = (&bytes[..end], &bytes[end + 1..]);
    let Some(kind) = kind_of(path, 0o755) else { return false };
    let Ok(mut file) = tempfile::tempfile() else { return false };
    if file.write_all(content).is_err() {
        return false;
    }
    let path = String::from_utf8_lossy(path);
    Content::of(&file).is_ok_and(|content| read(kind, &path, content).is_ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_read() {
        testing::files::run_seeds("dockerfile", super::dockerfile);
        testing::files::run_seeds("installed", super::installed);
    }
}
