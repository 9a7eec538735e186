//! The changes since a commit that was reviewed before.

use git2::{Delta, DiffDelta, DiffHunk, DiffLine, DiffOptions};

use super::contents::{Contents, Entry, Flag, Item, MAX_SEARCHED, MAX_SHOWN, Selection, item, unreadable};
use super::visible;
use crate::error::Result;
use crate::source::Snapshot;

/// One changed entry.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Change {
    /// The kind of change: added, deleted, modified or another one.
    pub(crate) what: &'static str,
    /// The entry before.
    pub(crate) before: Option<Item>,
    /// The entry now.
    pub(crate) after: Option<Item>,
}

impl Change {
    pub(crate) fn line(&self) -> String {
        let line = |item: &Option<Item>| item.as_ref().map(Item::line);
        match (line(&self.before), line(&self.after)) {
            (Some(before), Some(after)) => {
                format!("{}\n    before  {before}\n    after   {after}", self.what)
            }
            (Some(only), None) | (None, Some(only)) => format!("{}\n            {only}", self.what),
            (None, None) => self.what.to_owned(),
        }
    }

    fn is_shown(&self, contents: &Contents) -> bool {
        let mut items = [&self.before, &self.after].into_iter().flatten();
        items.clone().next().is_some_and(|it| contents.asked(&it.path).is_some())
            && !items.any(|it| {
                let hidden = |flag: &Flag| match flag {
                    Flag::Binary | Flag::Submodule => true,
                    Flag::Oversized => contents.asked(&it.path) != Some(Selection::Alone),
                    _ => false,
                };
                it.flags.iter().any(hidden)
            })
    }
}

/// The changed entries between two commits, and a patch of the lines that are asked for, in which everything is visible.
///
/// The repository's attributes cannot hide a file from the patch. A rename is shown as a deleted and an added file.
///
/// # Errors
/// When either tree cannot be read.
pub(crate) fn changes(
    since: &Snapshot<'_>,
    now: &Snapshot<'_>,
    contents: &Contents,
) -> Result<(Vec<Change>, String)> {
    let before = since.git_commit().tree().map_err(unreadable)?;
    let after = now.git_commit().tree().map_err(unreadable)?;
    let mut options = DiffOptions::new();
    let largest = if matches!(contents, Contents::Of(_)) { MAX_SEARCHED } else { MAX_SHOWN as u64 };
    options.force_text(true).context_lines(5).include_typechange(true).max_size(largest as i64);
    let git = now.repository().git();
    let diff = git.diff_tree_to_tree(Some(&before), Some(&after), Some(&mut options)).map_err(unreadable)?;
    let mut changes = Vec::new();
    for delta in diff.deltas() {
        changes.push(change(since, now, &delta)?);
    }
    let shown: std::collections::HashSet<Vec<u8>> = diff
        .deltas()
        .zip(&changes)
        .filter(|(_, change)| change.is_shown(contents))
        .filter_map(|(delta, _)| path_of(&delta).map(<[u8]>::to_vec))
        .collect();
    let mut patch = Patch::default();
    if shown.is_empty() {
        return Ok((changes, patch.text));
    }
    diff.print(git2::DiffFormat::Patch, |delta, hunk, line| {
        if path_of(&delta).is_some_and(|path| shown.contains(path)) {
            patch.add(&delta, hunk.as_ref(), &line);
        }
        true
    })
    .map_err(unreadable)?;
    Ok((changes, patch.text))
}

fn change(since: &Snapshot<'_>, now: &Snapshot<'_>, delta: &DiffDelta<'_>) -> Result<Change> {
    let side = |snapshot: &Snapshot<'_>, file: git2::DiffFile<'_>| -> Result<Option<Item>> {
        let mode = i32::from(file.mode());
        match file.path_bytes() {
            Some(path) if file.exists() && mode != 0 => {
                Ok(Some(item(snapshot, Entry { name: path.to_owned(), mode, oid: file.id() })?))
            }
            _ => Ok(None),
        }
    };
    let what = match delta.status() {
        Delta::Added => "added",
        Delta::Deleted => "deleted",
        Delta::Modified => "modified",
        Delta::Typechange => "changed its type",
        _ => "changed",
    };
    Ok(Change { what, before: side(since, delta.old_file())?, after: side(now, delta.new_file())? })
}

fn path_of<'a>(delta: &DiffDelta<'a>) -> Option<&'a [u8]> {
    delta.new_file().path_bytes().or_else(|| delta.old_file().path_bytes())
}

#[derive(Default)]
struct Patch {
    text: String,
    file: Vec<u8>,
}

impl Patch {
    fn add(&mut self, delta: &DiffDelta<'_>, hunk: Option<&DiffHunk<'_>>, line: &DiffLine<'_>) {
        let path = path_of(delta).unwrap_or_default();
        if self.file != path {
            self.file = path.to_owned();
            self.text.push_str(&format!("\n=== {}\n", visible::bytes(path)));
        }
        let content = String::from_utf8_lossy(line.content());
        let content = content.strip_suffix('\n').unwrap_or(&content);
        match line.origin() {
            origin @ ('+' | '-' | ' ') => {
                self.text.push_str(&format!("{origin}{}\n", visible::text(content)))
            }
            'H' => {
                let header = hunk.map_or((0, 0), |hunk| (hunk.old_start(), hunk.new_start()));
                self.text.push_str(&format!("@@ from line {} before, {} after\n", header.0, header.1));
            }
            // File headers are written above.
            'F' => {}
            _ => self.text.push_str("\\ no newline at the end\n"),
        }
    }
}
