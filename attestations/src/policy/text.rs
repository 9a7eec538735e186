//! Texts of a policy: where they stand in the file, and what is wrong with them.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::Allowed;

/// Why a text is no policy. Nothing is admitted by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy, line {line}, column {column}: {message}; {hint}")]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// `"any"`, or a list.
#[derive(Deserialize)]
#[serde(untagged, expecting = "neither a list of texts nor \"any\"")]
pub(super) enum ListText {
    Word(String),
    Items(Vec<String>),
}

/// Positions in the text.
#[derive(Clone, Copy)]
pub(super) struct At<'a>(&'a str);

impl<'a> At<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(text)
    }

    pub(super) fn error(self, span: Range<usize>, message: &str, hint: &str) -> PolicyError {
        let before = self.0.get(..span.start).unwrap_or_default();
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        let line = before.matches('\n').count() + 1;
        PolicyError { line, column, message: message.to_owned(), hint: hint.to_owned() }
    }

    pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
        self,
        span: Range<usize>,
        text: &str,
    ) -> Result<T, PolicyError> {
        text.parse().map_err(|error: T::Err| self.error(span, &error.to_string(), "write it whole"))
    }

    pub(super) fn list<T>(
        self,
        text: Spanned<ListText>,
        item: impl Fn(Self, Range<usize>, &str) -> Result<T, PolicyError>,
    ) -> Result<Allowed<T>, PolicyError> {
        let span = text.span();
        match text.into_inner() {
            ListText::Word(word) if word == "any" => Ok(Allowed::Any),
            ListText::Word(_) => {
                Err(self.error(span, "neither a list nor \"any\"", "write [\"…\"] or \"any\""))
            }
            ListText::Items(items) => items
                .iter()
                .map(|it| item(self, span.clone(), it))
                .collect::<Result<_, _>>()
                .map(Allowed::Only),
        }
    }
}
