//! What a run printed, as far as it is kept.

use std::collections::VecDeque;

/// What a run printed, within a limit: the first half and the last half of it. How it began stands at the beginning, and
/// errors stand at the end; what is between is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskOutput {
    limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    lost: u64,
}

impl TaskOutput {
    /// An empty one that keeps `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Adds what was printed.
    pub fn push(&mut self, bytes: &[u8]) {
        let half = self.limit / 2;
        let (first, rest) = bytes.split_at(half.saturating_sub(self.head.len()).min(bytes.len()));
        self.head.extend_from_slice(first);
        let room = self.limit - half;
        let kept = &rest[rest.len().saturating_sub(room)..];
        let over = (self.tail.len() + kept.len()).saturating_sub(room);
        self.tail.drain(..over);
        self.tail.extend(kept);
        self.lost += (over + rest.len() - kept.len()) as u64;
    }

    /// The same, by the same rule, within a smaller limit.
    #[must_use]
    pub fn within(&self, limit: usize) -> Self {
        if self.head.len() + self.tail.len() <= limit {
            return self.clone();
        }
        let mut smaller = Self::new(limit);
        smaller.push(&self.head);
        let (first, second) = self.tail.as_slices();
        smaller.push(first);
        smaller.push(second);
        smaller.lost += self.lost;
        smaller
    }

    /// How many bytes were left out.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What was kept, with a line in the middle that says how many bytes were left out, where any were.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = self.head.clone();
        if self.lost > 0 {
            all.extend_from_slice(format!("\n[{} bytes were left out here]\n", self.lost).as_bytes());
        }
        let (first, second) = self.tail.as_slices();
        all.extend_from_slice(first);
        all.extend_from_slice(second);
        all
    }

    /// The same as text; what would move a terminal's cursor is shown instead of done.
    pub fn text(&self) -> String {
        let bytes = self.bytes();
        let text = String::from_utf8_lossy(&bytes);
        text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(limit: usize, parts: &[&str]) -> TaskOutput {
        let mut log = TaskOutput::new(limit);
        parts.iter().for_each(|part| log.push(part.as_bytes()));
        log
    }

    #[test]
    fn both_ends_are_kept_and_what_is_between_is_counted() {
        assert_eq!(log(8, &["abc", "defgh"]).text(), "abcdefgh");
        let cut = "abcd\n[3 bytes were left out here]\nhijk";
        assert_eq!(log(8, &["abcdefghijk"]).text(), cut);
        let bytewise: Vec<String> = "abcdefghijk".chars().map(String::from).collect();
        assert_eq!(log(8, &bytewise.iter().map(String::as_str).collect::<Vec<_>>()).text(), cut);
        assert_eq!(log(8, &["abcdef", "ghijk"]).text(), cut);
        assert_eq!(log(0, &["abc"]).text(), "\n[3 bytes were left out here]\n");
    }

    #[test]
    fn a_smaller_limit_cuts_by_the_same_rule() {
        let whole = log(100, &["abcdefghijk"]);
        assert_eq!(whole.within(11), whole);
        assert_eq!(whole.within(8), log(8, &["abcdefghijk"]));
        assert_eq!(log(10, &["abcdefghijklm"]).within(4).text(), "ab\n[9 bytes were left out here]\nlm");
    }
}
