//! What the fuzz targets in `fuzz/` call. Part of no public interface.

use super::head::{DeclaredBody, check, end, first_words};
use super::target::Target;

/// The head of a container's request, up to its empty line.
#[must_use]
pub fn head(bytes: &[u8]) -> bool {
    let _ = first_words(bytes);
    let Some(head) = end(bytes).and_then(|end| bytes.get(..end)) else { return false };
    let Ok(passed) = check(head) else { return false };
    assert!(!passed.target.contains(char::is_whitespace), "a target of several words: {passed:?}");
    let lower = String::from_utf8_lossy(head).to_ascii_lowercase();
    let says_nothing = !lower.contains("\ncontent-length:") && !lower.contains("\ntransfer-encoding:");
    assert!(!says_nothing || passed.body == DeclaredBody::Empty, "a body that no line declares: {passed:?}");
    Target::parse(passed.target).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_read() {
        testing::files::run_seeds("head", super::head);
    }
}
