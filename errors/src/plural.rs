//! Counted things in printed texts: `1 package`, `2 packages`.

use std::fmt;

/// A count with its noun, in the plural unless it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<'a> {
    count: u64,
    one: &'a str,
}

/// `count` things that are called `one` in the singular. The plural follows the rules of English spelling; a noun that
/// does not follow them needs a sentence of its own.
pub fn plural(count: impl TryInto<u64>, one: &str) -> Counted<'_> {
    Counted { count: count.try_into().unwrap_or(u64::MAX), one }
}

impl fmt::Display for Counted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, one } = self;
        match (count, one.strip_suffix('y')) {
            (1, _) => write!(out, "{count} {one}"),
            (_, Some(stem)) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => write!(out, "{count} {stem}ies"),
            _ if one.ends_with(['s', 'x']) || one.ends_with("ch") => write!(out, "{count} {one}es"),
            _ => write!(out, "{count} {one}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_everything_else_is_not() {
        for (count, one, text) in [
            (1usize, "package", "1 package"),
            (0, "package", "0 packages"),
            (2, "package", "2 packages"),
            (1, "entry", "1 entry"),
            (3, "entry", "3 entries"),
            (3, "key", "3 keys"),
            (2, "address", "2 addresses"),
            (2, "box", "2 boxes"),
            (2, "match", "2 matches"),
        ] {
            assert_eq!(plural(count, one).to_string(), text);
        }
    }
}
