//! The files of a commit in the form that reviewers see.

use errors::plural;
use git2::{ObjectType, Oid};
use serde::Serialize;

use super::findings::{self, Finding};
use super::visible;
use crate::error::{Error, Kind, Result};
use crate::source::{Home, Pointer, Snapshot};

/// The most bytes of a file that is shown with others; larger ones are shown alone.
pub(crate) const MAX_SHOWN: usize = 1 << 20;

/// The most bytes of a file that is searched for what deceives; larger ones are shown by no option.
pub(super) const MAX_SEARCHED: u64 = 64 << 20;

/// Most entries of a tree.
const MAX_ENTRIES: usize = 200_000;

/// Deepest folder.
const MAX_DEPTH: usize = 256;

/// The end of a line with more characters is easily overlooked.
const LONG_LINE: usize = 500;

/// Shown first, since they decide how the other files are used.
const FIRST: [&str; 2] = ["countersign.toml", "Dockerfile"];

/// One file, link or other entry of the tree.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Item {
    /// Its path, made visible.
    pub(crate) path: String,
    /// Its mode, as git writes it.
    pub(crate) mode: String,
    /// Its size in bytes, or the length of a link's target.
    pub(crate) size: u64,
    /// Its object.
    pub(crate) id: String,
    /// Facts about it that a reviewer must know.
    pub(crate) flags: Vec<Flag>,
    /// A link's target, a submodule's URL and commit, or the digest and size of a file in LFS, made visible.
    pub(crate) target: Option<String>,
    /// What in it can deceive a reader.
    #[serde(skip)]
    pub(crate) findings: Vec<Finding>,
    #[serde(skip)]
    pub(super) entry: Entry,
}

/// An entry as its tree has it; its content is not read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its path.
    pub(super) name: Vec<u8>,
    /// Its mode.
    pub(super) mode: i32,
    /// Its object.
    pub(super) oid: Oid,
}

impl Entry {
    /// Its path, made visible.
    pub(super) fn path(&self) -> String {
        visible::bytes(&self.name)
    }

    /// Its mode, as git writes it.
    pub(super) fn mode(&self) -> String {
        format!("{:06o}", self.mode)
    }

    /// Its object.
    pub(super) fn id(&self) -> String {
        self.oid.to_string()
    }
}

/// A remarkable fact about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Flag {
    /// A symbolic link.
    #[error("symbolic link")]
    Link,
    /// A link that leads out of the repository.
    #[error("LEADS OUT OF THE REPOSITORY")]
    LeadsOut,
    /// Not UTF-8 text: it is not shown.
    #[error("BINARY, not shown")]
    Binary,
    /// Too large to be shown.
    #[error("OVERSIZED, shown only by --path")]
    Oversized,
    /// Another repository's commit: what is in it is read there.
    #[error("SUBMODULE, to be read at its own commit")]
    Submodule,
    /// A pointer to a file that is not shown.
    #[error("GIT LFS POINTER, its file is not shown")]
    LfsPointer,
    /// May be executed.
    #[error("executable")]
    Executable,
    /// Contains characters that a terminal would interpret or hide.
    #[error("HIDDEN OR CONTROL CHARACTERS, shown as ⟨U+…⟩")]
    Deceptive,
    /// Contains characters that can look like others.
    #[error("non-ASCII text")]
    NonAscii,
    /// Contains lines that are too long to be seen completely.
    #[error("lines of more than 500 characters")]
    LongLines,
    /// A mode that git does not write.
    #[error("UNKNOWN MODE")]
    UnknownMode,
}

/// Every entry of the commit's tree, the most important files first, the others in git's order.
///
/// # Errors
/// When the tree cannot be read, or has more entries than can be reviewed.
pub(super) fn entries(snapshot: &Snapshot<'_>) -> Result<Vec<Entry>> {
    let tree = snapshot.git_commit().tree().map_err(unreadable)?;
    let mut entries = Vec::new();
    descend(snapshot, &tree, &mut Vec::new(), 0, &mut entries)?;
    entries.sort_by_key(|entry| rank(&entry.name));
    Ok(entries)
}

fn rank(name: &[u8]) -> usize {
    let base = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
    let text = String::from_utf8_lossy(base).into_owned();
    let is_dockerfile = text.to_ascii_lowercase().contains("dockerfile") || text == ".dockerignore";
    FIRST.iter().position(|first| first.as_bytes() == name).unwrap_or(if is_dockerfile {
        FIRST.len()
    } else {
        FIRST.len() + 1
    })
}

fn descend(
    snapshot: &Snapshot<'_>,
    tree: &git2::Tree<'_>,
    path: &mut Vec<u8>,
    depth: usize,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    for entry in tree {
        if entries.len() >= MAX_ENTRIES || depth > MAX_DEPTH {
            return Err(Error::new(Kind::Input, "the tree has more entries or levels than can be reviewed"));
        }
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(entry.name_bytes());
        if entry.kind() == Some(ObjectType::Tree) {
            let below = snapshot.repository().git().find_tree(entry.id()).map_err(unreadable)?;
            descend(snapshot, &below, path, depth + 1, entries)?;
        } else {
            entries.push(Entry { name: path.clone(), mode: entry.filemode(), oid: entry.id() });
        }
        path.truncate(length);
    }
    Ok(())
}

/// An entry with what a reviewer must know of its content.
///
/// # Errors
/// When it cannot be read.
pub(super) fn item(snapshot: &Snapshot<'_>, entry: Entry) -> Result<Item> {
    let mut item = Item {
        path: entry.path(),
        mode: entry.mode(),
        size: 0,
        id: entry.id(),
        flags: Vec::new(),
        target: None,
        findings: Vec::new(),
        entry,
    };
    let Entry { mode, oid, .. } = item.entry;
    match mode {
        0o160_000 => {
            item.flags.push(Flag::Submodule);
            let home = Home::of(snapshot)?;
            let url = home.written(&item.entry.name).unwrap_or("nowhere that .gitmodules names");
            item.target = Some(visible::line(&format!("{url} at {oid}")));
            return Ok(item);
        }
        0o120_000 => item.flags.push(Flag::Link),
        0o100_755 => item.flags.push(Flag::Executable),
        0o100_644 | 0o100_664 => {}
        _ => item.flags.push(Flag::UnknownMode),
    }
    item.size = size_of(snapshot, oid)?;
    if item.size > MAX_SHOWN as u64 {
        item.flags.push(Flag::Oversized);
    }
    if item.size > MAX_SEARCHED {
        return Ok(item);
    }
    let blob = snapshot.repository().git().find_blob(oid).map_err(unreadable)?;
    if mode == 0o120_000 {
        item.target = Some(visible::bytes(blob.content()));
        if leads_out(&item.entry.name, blob.content()) {
            item.flags.push(Flag::LeadsOut);
        }
    } else {
        let pointer = Pointer::parse(blob.content());
        item.target = pointer.map(|it| format!("{}, {}", it.digest, plural(it.size, "byte")));
        item.findings = findings::of(&item.path, blob.content());
        item.flags.extend(flags_of(blob.content(), &item.findings));
    }
    Ok(item)
}

fn size_of(snapshot: &Snapshot<'_>, oid: Oid) -> Result<u64> {
    let odb = snapshot.repository().git().odb().map_err(unreadable)?;
    Ok(odb.read_header(oid).map_err(unreadable)?.0 as u64)
}

fn flags_of(content: &[u8], findings: &[Finding]) -> Vec<Flag> {
    let mut flags = Vec::new();
    if content.starts_with(b"version https://git-lfs.github.com/spec/") {
        flags.push(Flag::LfsPointer);
    }
    let Some(text) = as_text(content) else {
        flags.push(Flag::Binary);
        return flags;
    };
    if findings.iter().any(|finding| finding.kind.is_hidden()) {
        flags.push(Flag::Deceptive);
    }
    if !text.is_ascii() {
        flags.push(Flag::NonAscii);
    }
    if text.lines().any(|line| line.chars().count() > LONG_LINE) {
        flags.push(Flag::LongLines);
    }
    flags
}

pub(super) fn as_text(content: &[u8]) -> Option<&str> {
    if content.contains(&0) {
        return None;
    }
    std::str::from_utf8(content).ok()
}

/// Whether a symbolic link leads outside the repository.
fn leads_out(name: &[u8], target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return true;
    }
    let mut depth = name.iter().filter(|b| **b == b'/').count();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

impl Item {
    /// The content with everything visible; none if it is not shown. A large file is shown only where it is asked for alone.
    pub(crate) fn shown(&self, snapshot: &Snapshot<'_>, asked: Selection) -> Result<Option<String>> {
        let hidden = [Flag::Binary, Flag::Submodule, Flag::Link];
        let is_hidden = self.flags.iter().any(|flag| hidden.contains(flag));
        let is_large = asked == Selection::WithOthers && self.flags.contains(&Flag::Oversized);
        if is_hidden || is_large || self.size > MAX_SEARCHED {
            return Ok(None);
        }
        let blob = snapshot.repository().git().find_blob(self.entry.oid).map_err(unreadable)?;
        Ok(as_text(blob.content()).map(visible::text))
    }

    /// A line of text about it.
    pub(crate) fn line(&self) -> String {
        let flags: Vec<String> = self.flags.iter().map(ToString::to_string).collect();
        let target = self.target.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
        let flags = if flags.is_empty() { String::new() } else { format!("  [{}]", flags.join("; ")) };
        format!("{} {:>9} {}{target}{flags}", self.mode, self.size, self.path)
    }
}

/// Which contents are shown. The list of entries is always whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Those of no file.
    None,
    /// Those of every file.
    All,
    /// Those of these files, and of all files in these folders.
    Of(Vec<String>),
}

/// How an entry was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// By its own path.
    Alone,
    /// With everything, or with its folder.
    WithOthers,
}

impl Contents {
    /// How the entry with this path, as the list has it, is asked for.
    pub(crate) fn asked(&self, path: &str) -> Option<Selection> {
        match self {
            Self::None => None,
            Self::All => Some(Selection::WithOthers),
            Self::Of(paths) => paths.iter().find_map(|asked| {
                let asked = asked.trim_end_matches('/');
                let is_below = || path.strip_prefix(asked).is_some_and(|rest| rest.starts_with('/'));
                match path == asked {
                    true => Some(Selection::Alone),
                    false => is_below().then_some(Selection::WithOthers),
                }
            }),
        }
    }
}

pub(crate) fn unreadable(error: git2::Error) -> Error {
    Error::new(Kind::Input, "the repository cannot be read").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_seen() {
        for (name, target) in [("a", "/etc/passwd"), ("a", ".."), ("d/a", "../../x"), ("d/a", "x/../../../y")]
        {
            assert!(leads_out(name.as_bytes(), target.as_bytes()), "{name} -> {target}");
        }
        for (name, target) in [("a", "b"), ("d/a", "../b"), ("d/e/a", "../../b"), ("a", "./d/../b")] {
            assert!(!leads_out(name.as_bytes(), target.as_bytes()), "{name} -> {target}");
        }
    }

    #[test]
    fn content_is_flagged() {
        let flags_of = |content: &[u8]| super::flags_of(content, &findings::of("a", content));
        assert_eq!(flags_of(b"plain\n\ttext\n"), []);
        assert_eq!(flags_of(b"\0"), [Flag::Binary]);
        assert_eq!(flags_of(b"caf\xe9"), [Flag::Binary]);
        assert_eq!(flags_of("x = \u{202E}1".as_bytes()), [Flag::Deceptive, Flag::NonAscii]);
        assert_eq!(flags_of(b"a\r\n"), [Flag::Deceptive]);
        assert_eq!(flags_of(&[b'x'; 501]), [Flag::LongLines]);
        assert_eq!(flags_of(b"version https://git-lfs.github.com/spec/v1\n"), [Flag::LfsPointer]);
    }

    #[test]
    fn what_decides_is_first() {
        let mut names = ["src/a", "Dockerfile", "docker/Dockerfile.gpu", "countersign.toml", ".dockerignore"];
        names.sort_by_key(|name| rank(name.as_bytes()));
        assert_eq!(names[..2], ["countersign.toml", "Dockerfile"]);
        assert_eq!(names[4], "src/a");
    }
}
