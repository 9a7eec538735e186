//! Path patterns of `COPY` and `.dockerignore`, matched character by character; a byte that is not UTF-8 counts as
//! one.
//!
//! `*` and `?` match within one folder, `[a-z]` and `[^a-z]` are classes, `\` escapes the next character. `**`, for
//! any number of folders, is for `.dockerignore` only.

use std::fmt;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// A `[` or `\` without what it needs.
    #[error("the pattern {0} has a class or an escape that is not closed")]
    Open(String),
    /// Nothing that an exception could keep.
    #[error("behind ! stands no pattern")]
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Letter(u32),
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
        ranges: Vec<(u32, u32)>,
    },
}

/// A pattern for whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    parts: Vec<Part>,
}

/// Whether a path contains any special character.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

impl Pattern {
    /// Parses the pattern of a `COPY` source: `**` means the same as `*`.
    ///
    /// # Errors
    /// For a class or an escape that is not closed.
    pub(crate) fn plain(text: &str) -> Result<Self, PatternError> {
        parse(text, DoubledStar::AsOne)
    }

    /// Parses a pattern in which `**` matches any number of folders.
    ///
    /// # Errors
    /// For a class or an escape that is not closed.
    pub(crate) fn deep(text: &str) -> Result<Self, PatternError> {
        parse(text, DoubledStar::AnyFolders)
    }

    /// Whether the pattern matches all of `path`.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        // One bit per part: whether it may come next. Linear in parts times characters for every pattern.
        let mut live = vec![false; self.parts.len() + 1];
        live[0] = true;
        self.skip_empty(&mut live, true);
        for letter in letters(path) {
            let mut next = vec![false; live.len()];
            for (index, part) in self.parts.iter().enumerate().filter(|(index, _)| live[*index]) {
                step(part, letter, index, &mut next);
            }
            self.skip_empty(&mut next, letter == SLASH);
            live = next;
        }
        live[self.parts.len()]
    }

    /// Also enables the parts after those that may match nothing.
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

const SLASH: u32 = '/' as u32;

/// Characters as numbers; bytes that are not UTF-8 have numbers above all characters.
fn letters(path: &[u8]) -> impl Iterator<Item = u32> {
    path.utf8_chunks().flat_map(|chunk| {
        let others = chunk.invalid().iter().map(|byte| 0x11_0000 + u32::from(*byte));
        chunk.valid().chars().map(u32::from).chain(others)
    })
}

fn step(part: &Part, letter: u32, index: usize, next: &mut [bool]) {
    let within = letter != SLASH;
    match part {
        Part::Letter(expected) if *expected == letter => next[index + 1] = true,
        Part::Any if within => next[index + 1] = true,
        Part::Class { negated, ranges } if within => {
            let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter));
            next[index + 1] |= inside != *negated;
        }
        Part::Some if within => next[index] = true,
        Part::Deep | Part::Folders => next[index] = true,
        _ => {}
    }
}

/// What `**` means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DoubledStar {
    AsOne,
    AnyFolders,
}

fn parse(text: &str, doubled: DoubledStar) -> Result<Pattern, PatternError> {
    let failed = || PatternError::Open(text.chars().take(100).collect());
    let mut parts = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            '*' if doubled == DoubledStar::AnyFolders && letters.peek() == Some(&'*') => {
                while letters.peek() == Some(&'*') {
                    letters.next();
                }
                match letters.next_if_eq(&'/') {
                    Some(_) => Part::Folders,
                    None => Part::Deep,
                }
            }
            '*' => Part::Some,
            '?' => Part::Any,
            '[' => class(&mut letters).ok_or_else(failed)?,
            '\\' => Part::Letter(letters.next().ok_or_else(failed)?.into()),
            _ => Part::Letter(letter.into()),
        });
    }
    Ok(Pattern { text: text.to_owned(), parts })
}

fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match letters.next()? {
            ']' if !ranges.is_empty() => return Some(Part::Class { negated, ranges }),
            ']' | '-' => return None,
            '\\' => letters.next()?,
            low => low,
        };
        let high = match letters.next_if_eq(&'-') {
            None => low,
            Some(_) => match letters.next()? {
                ']' | '-' => return None,
                '\\' => letters.next()?,
                high => high,
            },
        };
        ranges.push((low.into(), high.into()));
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
            ("a?c", "aéc", true, true),
            ("a[ä-é]c", "aåc", true, true),
            ("a[^ä-é]c", "aæc", false, false),
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
    fn bytes_that_are_no_text_are_letters() {
        let matches = |pattern: &str, path: &[u8]| Pattern::plain(pattern).unwrap().matches(path);
        assert!(matches("a?c", b"a\xffc") && matches("a[^b]c", b"a\xffc") && matches("a*", b"a\xe2\x82"));
        assert!(!matches("a?c", b"a\xe2\x82c") && matches("a??c", b"a\xe2\x82c"));
        assert!(!matches("a\u{fffd}c", b"a\xffc"));
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
