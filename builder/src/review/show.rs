//! The output of `review show`.

use std::fmt::Write as _;

use attestations::review::Person;
use attestations::{Digest, KeyId};
use serde::Serialize;

use super::contents::{self, Flag, Item};
use super::diff::{self, Change};
use super::findings::Finding;
use super::{Subjects, visible};
use crate::error::{Error, Kind, Result};
use crate::lock::{self, Lock};

pub(crate) use super::contents::Contents;

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
    /// What a request asks for beside the files, or what is said of the whole, a line each.
    pub(crate) asked: Vec<String>,
    /// The committers.
    pub(crate) committers: Vec<Person>,
    /// The ids of the SSH keys that commits are signed with.
    pub(crate) author_keys: Vec<KeyId>,
    /// The commit's message, made visible.
    pub(crate) message: String,
    /// All files, when all are to be read.
    pub(crate) files: Vec<Item>,
    /// The changed files, when only they are.
    pub(crate) changes: Vec<Change>,
    /// What in these files can deceive a reader.
    pub(crate) findings: Vec<Finding>,
    /// The lock of bases and packages, if it is to be read as well.
    pub(crate) lock: Option<ShownLock>,
    #[serde(skip)]
    text: String,
}

/// A lock to review.
#[derive(Debug, Serialize)]
pub(crate) struct ShownLock {
    /// What a review of it names.
    pub(crate) digest: Digest,
    /// Its bases and packages, a line each.
    pub(crate) entries: Vec<String>,
    /// What differs from the lock of the commit that was reviewed before.
    pub(crate) drift: Vec<String>,
}

impl ShownLock {
    /// The lock, and how it differs from the one before.
    pub(crate) fn new(lock: &Lock, before: Option<&Lock>) -> Self {
        let bases =
            lock.bases.iter().map(|(name, base)| format!("base {name} {} {}", base.digest, base.from));
        let line = |(purl, files): (&String, &Vec<Digest>)| {
            let files = files.iter().map(|file| format!(" {file}"));
            format!("{purl}{}", files.collect::<String>())
        };
        let packages = lock.packages.iter().map(line);
        let fetched = lock.fetched.iter().map(|file| format!("fetched {}", line(file)));
        let visible = |lines: Vec<String>| lines.iter().map(|line| visible::line(line)).collect();
        Self {
            digest: lock.digest(),
            entries: visible(bases.chain(packages).chain(fetched).collect()),
            drift: visible(before.map(|before| lock::drift(before, lock)).unwrap_or_default()),
        }
    }
}

impl Subjects<'_> {
    /// Collects what is to be read, with these files' contents.
    ///
    /// # Errors
    /// When the repository cannot be read, no file has an asked path, or there is more text than can be shown at once.
    pub(crate) fn show(&self, contents: &Contents) -> Result<Shown> {
        let writers = self.writers()?;
        let mut shown = Shown {
            repository: visible::line(self.commit.repository().location().uri()),
            commit: self.commit.id().to_string(),
            tree: self.commit.tree()?.to_string(),
            committed_at: self.commit.committed_at(),
            since: self.since.as_ref().map(|since| since.id().to_string()),
            authors: writers.authors,
            committers: writers.committers,
            author_keys: writers.keys.into_iter().collect(),
            message: visible::text(&self.commit.message()),
            asked: Vec::new(),
            files: Vec::new(),
            changes: Vec::new(),
            findings: Vec::new(),
            lock: None,
            text: String::new(),
        };
        match &self.since {
            Some(since) => {
                let (changes, patch) = diff::changes(since, &self.commit, contents)?;
                shown.changes = changes;
                shown.text = bounded(patch)?;
            }
            None => {
                let entries = contents::entries(&self.commit)?.into_iter();
                shown.files =
                    entries.map(|entry| contents::item(&self.commit, entry)).collect::<Result<_>>()?;
                shown.text = self.contents(&shown.files, contents)?;
            }
        }
        shown.findings = shown.items().flat_map(|item| item.findings.iter().cloned()).collect();
        shown.check(contents)?;
        Ok(shown)
    }

    fn contents(&self, files: &[Item], contents: &Contents) -> Result<String> {
        let mut text = String::new();
        for file in files {
            let Some(asked) = contents.asked(&file.path) else { continue };
            let Some(content) = file.shown(&self.commit, asked)? else { continue };
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
        true => Err(Error::new(Kind::Input, "there is more text than can be shown at once")
            .hint("see the files with --list, and read them in parts with --path")),
        false => Ok(text),
    }
}

impl Shown {
    /// The entries as they are now.
    fn items(&self) -> impl Iterator<Item = &Item> {
        self.files.iter().chain(self.changes.iter().filter_map(|change| change.after.as_ref()))
    }

    /// Whether every asked path is one of an entry.
    fn check(&self, contents: &Contents) -> Result<()> {
        let Contents::Of(paths) = contents else { return Ok(()) };
        let before = self.changes.iter().filter_map(|change| change.before.as_ref());
        let known: Vec<&Item> = self.items().chain(before).collect();
        let is_known = |path: &String| {
            let alone = Contents::Of(vec![path.clone()]);
            known.iter().any(|item| alone.asked(&item.path).is_some())
        };
        match paths.iter().find(|path| !is_known(path)) {
            None => Ok(()),
            Some(path) => Err(Error::new(Kind::NotFound, format!("nothing to read has the path {path}"))
                .hint("give a path as --list prints it")),
        }
    }

    /// Flags that a reviewer must not overlook, and how many files have them.
    fn warnings(&self) -> Vec<(Flag, usize)> {
        let items: Vec<&Item> = self.items().collect();
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
        for person in self.committers.iter().filter(|it| !self.authors.contains(it)) {
            let _ = writeln!(
                out,
                "committer   {}",
                visible::line(&format!("{} <{}>", person.name, person.email))
            );
        }
        for key in &self.author_keys {
            let _ = writeln!(out, "signed by   SSH key {key} (not checked)");
        }
        for line in &self.asked {
            let _ = writeln!(out, "{line}");
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
        for finding in &self.findings {
            let _ = writeln!(out, "{}", finding.line());
        }
        if let Some(lock) = &self.lock {
            let _ = writeln!(out, "\nlock {}", lock.digest);
            lock.drift.iter().for_each(|line| _ = writeln!(out, "  changed: {line}"));
            lock.entries.iter().for_each(|line| _ = writeln!(out, "  {line}"));
        }
        out.push_str(&self.text);
        out
    }
}
