//! Path patterns of `COPY` and `.dockerignore`, matched byte by byte.
//!
//! `*` and `?` stay within one folder, `[a-z]` and `[^a-z]` are classes, `\` takes the next letter as it is. `**`, for any
//! number of folders, is for `.dockerignore` only.

use std::fmt;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {0} has a class or an escape that is not closed")]
pub struct PatternError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Byte(u8),
    /// `?`
    Any,
    /// `*`
    Some,
    /// `**`
    Deep,
    /// `**/`: nothing, or folders up to a slash.
    Folders,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

/// A pattern for whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

/// Whether a path holds any letter with a meaning of its own.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

impl Pattern {
    /// Parses the pattern of a `COPY` source: `**` means the same as `*`.
    ///
    /// # Errors
    /// For a class or an escape that is not closed.
    pub fn plain(text: &str) -> Result<Self, PatternError> {
        parse(text, false)
    }

    /// Parses a pattern in which `**` goes through folders.
    ///
    /// # Errors
    /// For a class or an escape that is not closed.
    pub fn deep(text: &str) -> Result<Self, PatternError> {
        parse(text, true)
    }

    /// Whether the whole of `path` is as the pattern says.
    pub fn matches(&self, path: &[u8]) -> bool {
        // One bit per part: which of them may come next. Linear in parts times bytes, whatever the pattern.
        let mut live = vec![false; self.parts.len() + 1];
        live[0] = true;
        self.skip_empty(&mut live, true);
        for (at, byte) in path.iter().enumerate() {
            let mut next = vec![false; live.len()];
            for (index, part) in self.parts.iter().enumerate().filter(|(index, _)| live[*index]) {
                step(part, *byte, index, &mut next);
            }
            let after_slash = path[at] == b'/';
            self.skip_empty(&mut next, after_slash);
            live = next;
        }
        live[self.parts.len()]
    }

    /// Parts that may stand for nothing are passed over.
    fn skip_empty(&self, live: &mut [bool], at_folder_start: bool) {
        for (index, part) in self.parts.iter().enumerate() {
            let empty = match part {
                Part::Some | Part::Deep => true,
                Part::Folders => at_folder_start,
                _ => false,
            };
            if live[index] && empty {
                live[index + 1] = true;
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn step(part: &Part, byte: u8, index: usize, next: &mut [bool]) {
    let within = byte != b'/';
    match part {
        Part::Byte(expected) if *expected == byte => next[index + 1] = true,
        Part::Any if within => next[index + 1] = true,
        Part::Class { negated, ranges } if within => {
            let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte));
            next[index + 1] |= inside != *negated;
        }
        Part::Some if within => next[index] = true,
        Part::Deep | Part::Folders => next[index] = true,
        _ => {}
    }
}

fn parse(text: &str, deep: bool) -> Result<Pattern, PatternError> {
    let failed = || PatternError(text.chars().take(100).collect());
    let mut parts = Vec::new();
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        parts.push(match byte {
            b'*' if deep && bytes.peek() == Some(&b'*') => {
                while bytes.peek() == Some(&b'*') {
                    bytes.next();
                }
                match bytes.next_if_eq(&b'/') {
                    Some(_) => Part::Folders,
                    None => Part::Deep,
                }
            }
            b'*' => Part::Some,
            b'?' => Part::Any,
            b'[' => class(&mut bytes).ok_or_else(failed)?,
            b'\\' => Part::Byte(bytes.next().ok_or_else(failed)?),
            _ => Part::Byte(byte),
        });
    }
    Ok(Pattern { text: text.to_owned(), parts })
}

fn class(bytes: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Option<Part> {
    let negated = bytes.next_if_eq(&b'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match bytes.next()? {
            b']' if !ranges.is_empty() => return Some(Part::Class { negated, ranges }),
            b']' | b'-' => return None,
            b'\\' => bytes.next()?,
            low => low,
        };
        let high = match bytes.next_if_eq(&b'-') {
            None => low,
            Some(_) => match bytes.next()? {
                b']' | b'-' => return None,
                b'\\' => bytes.next()?,
                high => high,
            },
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn matching() {
        let table = [
            ("a*.txt", "abc.txt", true, true),
            ("a*.txt", "a/c.txt", false, false),
            ("*", "a/b", false, false),
            ("?", "/", false, false),
            ("[a-c]x", "bx", true, true),
            ("[^a-c]x", "bx", false, false),
            ("[^a-c]x", "dx", true, true),
            (r"\*", "*", true, true),
            (r"\*", "a", false, false),
            ("**/x", "a/b/x", false, true),
            ("**/x", "x", false, true),
            ("**/x", "ax", false, false),
            ("a/**/x", "a/x", false, true),
            ("a/**/x", "a/b/c/x", false, true),
            ("a/**", "a/b/c", false, true),
            ("**", "a/b", false, true),
            ("**.py", "a/b.py", false, true),
            ("glm", "glm-evil", false, false),
        ];
        for (pattern, path, plain, deep) in table {
            assert_eq!(
                Pattern::plain(pattern).unwrap().matches(path.as_bytes()),
                plain,
                "plain {pattern} {path}"
            );
            assert_eq!(
                Pattern::deep(pattern).unwrap().matches(path.as_bytes()),
                deep,
                "deep {pattern} {path}"
            );
        }
    }

    #[test]
    fn unclosed_patterns_are_refused() {
        for pattern in ["[a", "[]", "a\\", "[a-]", "[-a]"] {
            assert!(Pattern::plain(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer() {
        let pattern = Pattern::deep(&"**/*".repeat(200)).unwrap();
        assert!(!pattern.matches(&[b'a'; 2000]) || pattern.matches(b"a"));
    }
}
