//! Patterns over whole names: `*` does not cross the names' separator (`/`, in hosts `.`), `**` does.

use std::fmt;

use regex::Regex;

use crate::purl;

/// Longer patterns are refused.
const MAX_LENGTH: usize = 512;
/// What `*` stands for in names and packages: printable ASCII without `/`.
const NO_SLASH: &str = "[!-.0-~]*";
/// What `*` stands for in hosts: printable ASCII without `.`.
const NO_DOT: &str = r"[!-\-/-~]*";

/// A pattern; it matches a whole name or not at all.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    /// The length of what stands before the first star. Most names differ there already.
    literal: usize,
    regex: Regex,
}

impl Pattern {
    /// A pattern of repositories. None unless it is a name's characters and stars, with a `/` that is not part of a star.
    pub fn new(text: &str) -> Option<Self> {
        let known =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' | b':' | b'*');
        if !text.bytes().all(known) || !text.contains('/') {
            return None;
        }
        Self::compile(text, NO_SLASH)
    }

    /// A pattern of hosts. None unless it is a host's characters and stars, or an IPv6 address in brackets.
    pub fn host(text: &str) -> Option<Self> {
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'*');
        let name =
            !text.is_empty() && text.bytes().all(known) && !text.starts_with('.') && !text.contains("..");
        let address = text.starts_with('[') && url::Host::parse(text).is_ok_and(|it| it.to_string() == text);
        if !name && !address {
            return None;
        }
        Self::compile(text, NO_DOT)
    }

    /// A pattern of packages, over purls up to their qualifiers.
    ///
    /// # Errors
    /// When no canonical purl can match it: it would forbid nothing, and nobody would see that.
    pub fn package(text: &str) -> Result<Self, &'static str> {
        let text = purl::pattern(text)?;
        if !text.contains('@') {
            return Err("it names no version: write @* for every one");
        }
        Self::compile(&text, NO_SLASH).ok_or("it is too long, or has three stars in a row")
    }

    fn compile(text: &str, star: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH || text.contains("***") {
            return None;
        }
        let parts: Vec<String> = text
            .split("**")
            .map(|part| part.split('*').map(regex::escape).collect::<Vec<_>>().join(star))
            .collect();
        // Names are ASCII; without Unicode's classes the expression is made in microseconds.
        let regex = Regex::new(&format!(r"(?-u)\A(?:{})\z", parts.join("[!-~]*"))).ok()?;
        let literal = text.find('*').unwrap_or(text.len());
        Some(Self { text: text.to_owned(), literal, regex })
    }

    /// Whether it matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let begins = self.text.get(..self.literal).is_some_and(|literal| name.starts_with(literal));
        begins && self.regex.is_match(name)
    }

    /// Whether all that `other` matches is matched by this one; some cases of that, and never a false one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        !other.text.contains("**") && self.matches(&other.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
