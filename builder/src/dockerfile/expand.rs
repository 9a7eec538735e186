//! Quotes, escapes and variables in an instruction's words, as the Dockerfile reference defines them.

use std::iter::Peekable;
use std::str::Chars;

use super::glob::{Occurrences, Pattern, Reach};

/// The deepest nesting of `${a:-${b:-…}}`; no real file needs more.
const DEPTH_LIMIT: usize = 32;
/// Longest expanded word, in bytes: a kernel's limit for one argument.
const LENGTH_LIMIT: usize = 128 * 1024;

/// A word that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    /// A quote is never closed.
    #[error("a {0} quote is not closed")]
    Quote(&'static str),
    /// A brace is never closed.
    #[error("${{{0} is not closed with a brace")]
    Brace(String),
    /// `${}` or the like.
    #[error("${{{0}}} is not a substitution")]
    Bad(String),
    /// A modifier that is none.
    #[error("${{{name}{modifier}…}} is no substitution: -, +, ?, #, %, / and // are")]
    Modifier {
        /// The variable.
        name: String,
        /// What stands behind its name.
        modifier: String,
    },
    /// `${name:?message}` with the name unset.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The file's own message.
        message: String,
    },
    /// A pattern that is none, or too large.
    #[error("the pattern {0} is not usable: \\ may only stand before *, ?, \\, }} and /")]
    Pattern(String),
    /// Nested over the limit.
    #[error("substitutions are nested more than 32 deep")]
    TooDeep,
    /// Expanded over the limit.
    #[error("the expanded text is longer than 128 KiB")]
    TooLong,
}

/// Looks up a variable; `None` when it is not set.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands `text` to one word, without quotes.
///
/// # Errors
/// See [`ExpandError`].
pub(crate) fn word(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, ExpandError> {
    let mut expander = Expander { rest: text.chars().peekable(), escape, lookup, depth: 0, quotes: true };
    Ok(plain(expander.until(None, Escapes::Go)?))
}

/// Expands the variables of a here-document, in which quotes have no meaning.
///
/// # Errors
/// See [`ExpandError`].
pub(crate) fn document(text: &str, lookup: Lookup<'_>) -> Result<String, ExpandError> {
    let mut expander =
        Expander { rest: text.chars().peekable(), escape: '\\', lookup, depth: 0, quotes: false };
    Ok(plain(expander.until(None, Escapes::Go)?))
}

fn plain(letters: Vec<Letter>) -> String {
    letters.into_iter().map(|(letter, _)| letter).collect()
}

/// Expands `text` and splits it at blanks that are neither quoted nor escaped nor part of a quoted value.
///
/// # Errors
/// See [`ExpandError`].
pub(crate) fn words(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
    let mut expander = Expander { rest: text.chars().peekable(), escape, lookup, depth: 0, quotes: true };
    let mut words = vec![String::new()];
    for (letter, literal) in expander.until(None, Escapes::Go)? {
        match (letter.is_whitespace() && !literal, words.last_mut()) {
            (false, Some(word)) => word.push(letter),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    Ok(words)
}

/// A character, and whether a quote or escape makes it literal.
type Letter = (char, bool);

struct Expander<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
    /// Whether quotes are special.
    quotes: bool,
}

/// What becomes of the escape character: in a pattern it stays, which reads it itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Go,
    Stay,
}

impl Expander<'_> {
    /// Everything up to `stop`, which is consumed, or to the end if there is no stop.
    fn until(&mut self, stop: Option<char>, escapes: Escapes) -> Result<Vec<Letter>, ExpandError> {
        let mut out: Vec<Letter> = Vec::new();
        loop {
            if out.len() > LENGTH_LIMIT {
                return Err(ExpandError::TooLong);
            }
            let Some(letter) = self.rest.next() else {
                return match stop {
                    None => Ok(out),
                    Some(_) => Err(ExpandError::Brace(String::new())),
                };
            };
            match letter {
                _ if Some(letter) == stop => return Ok(out),
                '\'' if self.quotes => self.single_quoted(&mut out)?,
                '"' if self.quotes => self.double_quoted(&mut out)?,
                '$' => out.extend(self.dollar()?.chars().map(|letter| (letter, false))),
                _ if letter == self.escape => {
                    out.extend((escapes == Escapes::Stay).then_some((letter, true)));
                    out.extend(self.rest.next().map(|next| (next, true)));
                }
                _ => out.push((letter, false)),
            }
        }
    }

    fn single_quoted(&mut self, out: &mut Vec<Letter>) -> Result<(), ExpandError> {
        loop {
            match self.rest.next() {
                None => return Err(ExpandError::Quote("single")),
                Some('\'') => return Ok(()),
                Some(letter) => out.push((letter, true)),
            }
        }
    }

    /// Within double quotes the escape character stays, unless a quote, a dollar or itself follows.
    fn double_quoted(&mut self, out: &mut Vec<Letter>) -> Result<(), ExpandError> {
        loop {
            match self.rest.next() {
                None => return Err(ExpandError::Quote("double")),
                Some('"') => return Ok(()),
                Some('$') => out.extend(self.dollar()?.chars().map(|letter| (letter, true))),
                Some(letter) if letter == self.escape => match self.rest.peek().copied() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.rest.next();
                        out.push((next, true));
                    }
                    _ => out.push((letter, true)),
                },
                Some(letter) => out.push((letter, true)),
            }
        }
    }

    /// The expansion after a dollar sign.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        if self.rest.peek() == Some(&'{') {
            self.rest.next();
            self.depth += 1;
            if self.depth > DEPTH_LIMIT {
                return Err(ExpandError::TooDeep);
            }
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        match name.is_empty() {
            true => Ok("$".to_owned()),
            false => Ok((self.lookup)(&name).unwrap_or_default()),
        }
    }

    fn braced(&mut self) -> Result<String, ExpandError> {
        let name = self.name();
        if name.is_empty() {
            return Err(ExpandError::Bad(
                self.rest.by_ref().take_while(|letter| *letter != '}').take(32).collect(),
            ));
        }
        let value = (self.lookup)(&name);
        let mut modifier = String::new();
        match self.rest.next() {
            None => return Err(ExpandError::Brace(name)),
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(letter) => modifier.push(letter),
        }
        let empty_is_unset = modifier == ":";
        if empty_is_unset {
            modifier.extend(self.rest.next());
        }
        let kind = modifier.chars().last().unwrap_or_default();
        match (kind, empty_is_unset) {
            ('-' | '+' | '?', _) => {}
            ('#' | '%', false) => {
                let reach = match self.rest.next_if_eq(&kind) {
                    Some(_) => Reach::Longest,
                    None => Reach::Shortest,
                };
                let pattern = Pattern::parse(&self.part('}', Escapes::Stay, &name)?)?;
                let value = value.unwrap_or_default();
                return match kind {
                    '#' => pattern.without_prefix(&value, reach),
                    _ => pattern.without_suffix(&value, reach),
                };
            }
            ('/', false) => {
                let which = match self.rest.next_if_eq(&'/') {
                    Some(_) => Occurrences::All,
                    None => Occurrences::First,
                };
                let pattern = Pattern::parse(&self.part('/', Escapes::Stay, &name)?)?;
                let replacement = self.part('}', Escapes::Stay, &name)?;
                return pattern.replaced(&value.unwrap_or_default(), &replacement, which);
            }
            _ => return Err(ExpandError::Modifier { name, modifier }),
        }
        let word = self.part('}', Escapes::Go, &name)?;
        let set = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (kind, set) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            _ => Err(ExpandError::Required {
                name,
                message: if word.is_empty() { "is not set".to_owned() } else { word },
            }),
        }
    }

    /// A part of the substitution of `name`, up to `stop`.
    fn part(&mut self, stop: char, escapes: Escapes, name: &str) -> Result<String, ExpandError> {
        self.until(Some(stop), escapes).map(plain).map_err(|error| match error {
            ExpandError::Brace(inner) if inner.is_empty() => ExpandError::Brace(name.to_owned()),
            other => other,
        })
    }

    /// A variable's name: letters, digits and underscores, all digits, or one of the shell's special characters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.rest.peek().copied() {
            let all_digits = name.chars().all(|digit| digit.is_ascii_digit());
            let first = name.is_empty();
            if first && "@*#?-$!".contains(letter) {
                self.rest.next();
                return letter.to_string();
            }
            let fits = match (first, all_digits) {
                (true, _) => letter.is_alphanumeric() || letter == '_',
                (false, true) => letter.is_ascii_digit(),
                (false, false) => letter.is_alphanumeric() || letter == '_',
            };
            if !fits {
                break;
            }
            name.push(letter);
            self.rest.next();
        }
        name
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("value".to_owned()),
            "empty" => Some(String::new()),
            "two" => Some("one  two".to_owned()),
            "quote" => Some("\"".to_owned()),
            "path" => Some("a/b/c.tar.gz".to_owned()),
            "star" => Some("*+".to_owned()),
            "slash" => Some("/".to_owned()),
            "dollars" => Some("ax".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn one_word() {
        let table = [
            ("plain", "plain"),
            ("$a", "value"),
            ("${a}", "value"),
            ("x${a}y", "xvaluey"),
            ("$a_b", ""),
            ("${a}_b", "value_b"),
            ("$none", ""),
            ("${none}", ""),
            ("${none:-other}", "other"),
            ("${empty:-other}", "other"),
            ("${empty-other}", ""),
            ("${none-other}", "other"),
            ("${a:-other}", "value"),
            ("${a:+other}", "other"),
            ("${empty:+other}", ""),
            ("${empty+other}", "other"),
            ("${none:+other}", ""),
            ("${none:-$a}", "value"),
            ("${none:-${none:-deep}}", "deep"),
            ("${none:-'}'}", "}"),
            ("${a:?needed}", "value"),
            ("${a#va}", "lue"),
            ("${a#x}", "value"),
            ("${path#*/}", "b/c.tar.gz"),
            ("${path##*/}", "c.tar.gz"),
            ("${path%.*}", "a/b/c.tar"),
            ("${path%%.*}", "a/b/c"),
            ("${path%/*}", "a/b"),
            ("${path#?}", "/b/c.tar.gz"),
            ("${path/b/x}", "a/x/c.tar.gz"),
            ("${path//\\//-}", "a-b-c.tar.gz"),
            ("${path//./}", "a/b/ctargz"),
            ("${path/t*r/T}", "a/b/c.T.gz"),
            ("${path//$none/x}", "xax/xbx/xcx.xtxaxrx.xgxzx"),
            ("${star#\\*}", "+"),
            ("${none#x}${none%x}${none/x/y}", ""),
            ("${path##*$slash}", "c.tar.gz"),
            ("${dollars/a/$1}", "x"),
            (r"\$a", "$a"),
            (r"\\$a", r"\value"),
            (r"a\ b", "a b"),
            (r"end\", "end"),
            ("'$a'", "$a"),
            (r"'\'", r"\"),
            ("\"$a\"", "value"),
            ("\"a b\"c", "a bc"),
            (r#""\$a""#, "$a"),
            (r#""\"""#, "\""),
            (r#""\n""#, r"\n"),
            ("$", "$"),
            ("a$", "a$"),
            ("$/x", "$/x"),
            ("$1a", "a"),
            ("$quote$quote", "\"\""),
            ("\u{e9}${a}\u{e9}", "\u{e9}value\u{e9}"),
            ("$a\u{e9}", ""),
        ];
        for (text, expected) in table {
            assert_eq!(word(text, '\\', &lookup).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn many_words() {
        let table: [(&str, &[&str]); 5] = [
            ("80 443/tcp", &["80", "443/tcp"]),
            ("$two", &["one", "two"]),
            ("\"$two\"", &["one  two"]),
            (r"a\ b c", &["a b", "c"]),
            ("  ", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(words(text, '\\', &lookup).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn the_other_escape_character() {
        assert_eq!(word(r"C:\x`$a", '`', &lookup).unwrap(), r"C:\x$a");
    }

    #[test]
    fn what_cannot_be_expanded_is_refused() {
        let refused = |text: &str| word(text, '\\', &lookup).unwrap_err();
        assert_eq!(refused("'open"), ExpandError::Quote("single"));
        assert_eq!(refused("\"open"), ExpandError::Quote("double"));
        assert_eq!(refused("${a"), ExpandError::Brace("a".to_owned()));
        assert_eq!(refused("${none:-x"), ExpandError::Brace("none".to_owned()));
        assert!(matches!(refused("${}"), ExpandError::Bad(_)));
        assert!(matches!(refused("${a^x}"), ExpandError::Modifier { .. }));
        assert!(matches!(refused("${a:#x}"), ExpandError::Modifier { .. }));
        assert!(matches!(refused(r"${a#\x}"), ExpandError::Pattern(_)));
        assert_eq!(refused("${a#x"), ExpandError::Brace("a".to_owned()));
        assert_eq!(refused("${a/x}"), ExpandError::Brace("a".to_owned()));
        assert!(matches!(refused("${none:?give it}"), ExpandError::Required { .. }));
    }

    #[test]
    fn nesting_and_growth_are_bounded() {
        let nested = "${x:-".repeat(100_000);
        assert_eq!(word(&nested, '\\', &lookup).unwrap_err(), ExpandError::TooDeep);
        let long = |_: &str| Some("x".repeat(1000));
        assert_eq!(word(&"$a ".repeat(100_000), '\\', &long).unwrap_err(), ExpandError::TooLong);
    }
}
