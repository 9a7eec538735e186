//! Entry points of the fuzz targets in `fuzz/`: one function for each parser of foreign bytes. Each returns whether
//! the bytes were accepted, and panics when the accepted value is inconsistent. Not a public interface.

use std::io::Read as _;

use crate::image::parse_manifest;
use crate::index::Index;
use crate::layer::Entries;

/// An uncompressed layer, read to its end.
#[must_use]
pub fn tar(bytes: &[u8]) -> bool {
    let mut entries = Entries::new(bytes, "a fuzzed layer");
    loop {
        match entries.next() {
            Ok(Some(_)) => {
                // Content cannot be larger than the archive.
                let mut content = Vec::new();
                let read = entries.content().read_to_end(&mut content);
                assert!(content.len() <= bytes.len(), "content that was not in the archive");
                if read.is_err() {
                    return false;
                }
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// A manifest or an index: never both.
#[must_use]
pub fn manifest(bytes: &[u8]) -> bool {
    let is_index = matches!(Index::parse(bytes), Ok(Some(_)));
    let is_image = parse_manifest(bytes).is_ok();
    assert!(!(is_index && is_image), "read as an index by one and as an image by the other");
    is_index || is_image
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_read() {
        testing::files::run_seeds("tar", super::tar);
        testing::files::run_seeds("manifest", super::manifest);
    }
}
