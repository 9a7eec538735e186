//! Entry point of the fuzz target `jks`; not a public interface.

use crate::{KeyStore, digest_of};

/// A Java key store without its final digest, which is added here since a fuzzer would not find it. Returns whether it was
/// accepted, and panics when another one is written than was read.
#[must_use]
pub fn jks(content: &[u8]) -> bool {
    let sealed = [content, digest_of(content).as_ref()].concat();
    let Some(list) = KeyStore::parse(&sealed) else { return false };
    assert_eq!(list.to_bytes(), Some(sealed), "another list is written than was read");
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_read() {
        testing::files::run_seeds("jks", super::jks);
    }
}
