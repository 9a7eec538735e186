//! Entry points of the fuzz targets in `fuzz/`; not a public interface.

use crate::dockerfile::Dockerfile;

/// A Dockerfile.
#[must_use]
pub fn dockerfile(bytes: &[u8]) -> bool {
    let Ok(file) = Dockerfile::parse(bytes) else { return false };
    assert!(!file.stages.is_empty(), "a Dockerfile without a stage");
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_read() {
        testing::files::run_seeds("dockerfile", super::dockerfile);
    }
}
