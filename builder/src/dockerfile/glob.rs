//! The patterns of `${name#pattern}` and its kin: `*` and `?` are wild, `\\` takes that away, all else is literal.

use regex::{NoExpand, Regex};

use super::expand::ExpandError;

/// A pattern, in pieces.
pub(super) struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy)]
enum Piece {
    Any,
    One,
    Literal(char),
}

/// How much a `*` takes: `#` and `%` ask for the shortest, `##` and `%%` for the longest.
#[derive(Clone, Copy)]
pub(super) enum Reach {
    Shortest,
    Longest,
}

/// Where something is exchanged: `/` the first time, `//` each time.
#[derive(Clone, Copy)]
pub(super) enum Occurrences {
    First,
    All,
}

/// Where in the value a pattern may fit.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Anywhere,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, ExpandError> {
        let mut pieces = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            pieces.push(match letter {
                '*' => Piece::Any,
                '?' => Piece::One,
                '\\' => match letters.next() {
                    Some(next @ ('*' | '?' | '\\' | '}' | '/')) => Piece::Literal(next),
                    _ => return Err(ExpandError::Pattern(text.to_owned())),
                },
                _ => Piece::Literal(letter),
            });
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    pub(super) fn without_prefix(&self, value: &str, reach: Reach) -> Result<String, ExpandError> {
        let regex = self.regex(self.pieces.iter(), reach, Anchor::Start)?;
        let end = regex.find(value).map_or(0, |found| found.end());
        Ok(value[end..].to_owned())
    }

    /// Both turned round, a suffix is a prefix.
    pub(super) fn without_suffix(&self, value: &str, reach: Reach) -> Result<String, ExpandError> {
        let turned: String = value.chars().rev().collect();
        let regex = self.regex(self.pieces.iter().rev(), reach, Anchor::Start)?;
        let end = regex.find(&turned).map_or(0, |found| found.end());
        Ok(turned[end..].chars().rev().collect())
    }

    pub(super) fn replaced(
        &self,
        value: &str,
        replacement: &str,
        which: Occurrences,
    ) -> Result<String, ExpandError> {
        let regex = self.regex(self.pieces.iter(), Reach::Longest, Anchor::Anywhere)?;
        Ok(match which {
            Occurrences::First => regex.replace(value, NoExpand(replacement)),
            Occurrences::All => regex.replace_all(value, NoExpand(replacement)),
        }
        .into_owned())
    }

    fn regex<'a>(
        &self,
        pieces: impl Iterator<Item = &'a Piece>,
        reach: Reach,
        anchor: Anchor,
    ) -> Result<Regex, ExpandError> {
        let mut text = match anchor {
            Anchor::Start => "^".to_owned(),
            Anchor::Anywhere => String::new(),
        };
        for piece in pieces {
            match piece {
                Piece::Any => text.push_str(match reach {
                    Reach::Longest => ".*",
                    Reach::Shortest => ".*?",
                }),
                Piece::One => text.push('.'),
                Piece::Literal(letter) => text.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4]))),
            }
        }
        Regex::new(&text).map_err(|_| ExpandError::Pattern(self.text.chars().take(64).collect()))
    }
}
