//! Patterns over whole repository names: `*` does not cross `/`, `**` does.

use std::fmt;

use regex::Regex;

/// A pattern; it matches a whole name or not at all.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Reads a pattern. None unless it is a name's characters and stars, with a `/` that is not part of a star.
    pub fn new(text: &str) -> Option<Self> {
        let known =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' | b':' | b'*');
        if text.len() > 512 || !text.bytes().all(known) || text.contains("***") || !text.contains('/') {
            return None;
        }
        let parts: Vec<String> = text
            .split("**")
            .map(|part| part.split('*').map(regex::escape).collect::<Vec<_>>().join("[!-.0-~]*"))
            .collect();
        // Names are ASCII; without Unicode's classes the expression is made in microseconds.
        let regex = Regex::new(&format!(r"(?-u)\A(?:{})\z", parts.join("[!-~]*"))).ok()?;
        Some(Self { text: text.to_owned(), regex })
    }

    /// Whether it matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
