//! The output of `review show`.

use std::fmt::Write as _;

use attestations::review::Person;
use serde::Serialize;

use super::contents::{self, Flag, Item};
use super::diff::{self, Change};
use super::{Subjects, visible};
use crate::error::{Error, Kind, Result};

/// The most bytes of text printed; more cannot be read at once. The list alone always fits.
const MAX_TEXT: usize = 64 << 20;

/// The content to review.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// The repository's location.
    pub(crate) repository: String,
    /// The commit.
    pub(crate) commit: String,
    /// Its tree.
    pub(crate) tree: String,
    /// When it was committed, in seconds since 1970.
    pub(crate) committed_at: i64,
    /// The commit that was reviewed before, if only changes are shown.
    pub(crate) since: Option<String>,
    /// The authors.
    pub(crate) authors: Vec<Person>,
    /// The commit's message, made visible.
    pub(crate) message: String,
    /// All files, when all are to be read.
    pub(crate) files: Vec<Item>,
    /// The changed files, when only they are.
    pub(crate) changes: Vec<Change>,
    #[serde(skip)]
    text: String,
}

impl Subjects<'_> {
    /// Collects the content; with `list_only`, without the files' contents.
    ///
    /// # Errors
    /// When the repository cannot be read, or there is more text than can be shown.
    pub(crate) fn show(&self, list_only: bool) -> Result<Shown> {
        let mut shown = Shown {
            repository: visible::line(self.commit.repository().location().uri()),
            commit: self.commit.id().to_string(),
            tree: self.commit.tree()?.to_string(),
            committed_at: self.commit.committed_at(),
            since: self.since.as_ref().map(|since| since.id().to_string()),
            authors: self.authors()?,
            message: visible::text(&self.commit.message()),
            files: Vec::new(),
            changes: Vec::new(),
            text: String::new(),
        };
        match &self.since {
            Some(since) => {
                let (changes, patch) = diff::changes(since, &self.commit)?;
                shown.changes = changes;
                if !list_only {
                    shown.text = bounded(patch)?;
                }
            }
            None => {
                shown.files = contents::list(&self.commit)?;
                if !list_only {
                    shown.text = self.contents(&shown.files)?;
                }
            }
        }
        Ok(shown)
    }

    fn contents(&self, files: &[Item]) -> Result<String> {
        let mut text = String::new();
        for file in files {
            let Some(content) = file.shown(&self.commit)? else {
                continue;
            };
            let _ = writeln!(text, "\n=== {}", file.line());
            for (number, line) in content.split_terminator('\n').enumerate() {
                // The number before each line keeps a file from imitating the lines between files.
                let _ = writeln!(text, "{:>5} | {line}", number + 1);
            }
            text = bounded(text)?;
        }
        Ok(text)
    }
}

fn bounded(text: String) -> Result<String> {
    match text.len() > MAX_TEXT {
        true => Err(Error::new(Kind::Input, "there is more text than can be shown")
            .hint("use --list, and read the files in a clone; or review in smaller pieces with --since")),
        false => Ok(text),
    }
}

impl Shown {
    /// Flags that a reviewer must not overlook, and how many files have them.
    fn warnings(&self) -> Vec<(Flag, usize)> {
        let changed = self.changes.iter().filter_map(|change| change.after.as_ref());
        let items: Vec<&Item> = self.files.iter().chain(changed).collect();
        let grave = [
            Flag::Binary,
            Flag::Oversized,
            Flag::Submodule,
            Flag::LfsPointer,
            Flag::Deceptive,
            Flag::LeadsOut,
            Flag::UnknownMode,
        ];
        grave
            .into_iter()
            .map(|flag| (flag, items.iter().filter(|item| item.flags.contains(&flag)).count()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// The output as text.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        let date = jiff::Timestamp::from_second(self.committed_at).map(|t| t.to_string()).unwrap_or_default();
        let _ = writeln!(out, "repository  {}", self.repository);
        let _ = writeln!(out, "commit      {}", self.commit);
        let _ = writeln!(out, "tree        {}", self.tree);
        let _ = writeln!(out, "committed   {date}");
        for author in &self.authors {
            let _ = writeln!(
                out,
                "author      {} <{}>",
                visible::line(&author.name),
                visible::line(&author.email)
            );
        }
        for line in self.message.lines() {
            let _ = writeln!(out, "message     {line}");
        }
        if let Some(since) = &self.since {
            let _ = writeln!(out, "\nchanges since {since}: {}", self.changes.len());
            for change in &self.changes {
                let _ = writeln!(out, "  {}", change.line());
            }
        } else {
            let _ = writeln!(out, "\nfiles: {}", self.files.len());
            for file in &self.files {
                let _ = writeln!(out, "  {}", file.line());
            }
        }
        for (flag, count) in self.warnings() {
            let _ = writeln!(out, "! {count} × {flag}");
        }
        out.push_str(&self.text);
        out
    }
}
