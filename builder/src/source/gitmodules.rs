//! `.gitmodules`, in which a commit says where its submodules are fetched from. Their own commits are in its tree, so that
//! its id covers their content as well.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use super::SourceError;
use super::recorded::isolate;

/// The file that lists a commit's submodules.
pub(super) const LIST: &str = ".gitmodules";
/// The most bytes of such a file.
const MAX_LIST: usize = 1 << 20;

/// An entry.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The submodule's path in the tree.
    pub(super) path: Vec<u8>,
    /// Where it is, as written there.
    pub(super) url: String,
    update: String,
}

impl Listed {
    /// Whether a checkout leaves its folder empty.
    pub(super) fn is_left_out(&self) -> bool {
        self.update == "none"
    }
}

/// Entries by name.
pub(super) type List = BTreeMap<Vec<u8>, Listed>;

/// The entry of the submodule at a path, with its name.
pub(super) fn at<'l>(list: &'l List, path: &[u8]) -> Option<(&'l [u8], &'l Listed)> {
    list.iter().find(|(_, listed)| listed.path == path).map(|(name, listed)| (&name[..], listed))
}

/// The entries of a commit's tree, parsed by git itself, which defines the format.
///
/// # Errors
/// When it cannot be read, is too large or malformed.
pub(super) fn of(git: &git2::Repository, tree: &git2::Tree<'_>) -> Result<List, SourceError> {
    Ok(parse(&listing(git, tree, LIST)?))
}

/// The pairs in a file of git's own form at the top of a tree, as `git config --null --list` prints them; nothing if there
/// is no such file.
///
/// # Errors
/// When it cannot be read, is too large or malformed.
pub(super) fn listing(
    git: &git2::Repository,
    tree: &git2::Tree<'_>,
    file: &str,
) -> Result<Vec<u8>, SourceError> {
    // Git does not accept a symbolic link for it either.
    let is_file = |entry: &git2::TreeEntry<'_>| matches!(entry.filemode(), 0o100_644 | 0o100_755);
    let Some(id) = tree.get_name(file).filter(is_file).map(|entry| entry.id()) else {
        return Ok(Vec::new());
    };
    if git.odb()?.read_header(id)?.0 > MAX_LIST {
        return Err(SourceError::Submodules(format!("{file} has more than {MAX_LIST} bytes")));
    }
    let mut command = Command::new("git");
    let place = git.path();
    command.arg("-C").arg(place).args(["config", "--null", "--list", "--blob", &id.to_string()]);
    isolate(&mut command, place);
    let output = command.stdin(Stdio::null()).output().map_err(SourceError::NoGit)?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(SourceError::Submodules(format!("{file} is malformed"))),
    }
}

/// Parses `git config --null --list`: a key, a newline and a value each. The last value of a key counts.
fn parse(listed: &[u8]) -> List {
    let mut all = List::new();
    for pair in listed.split(|byte| *byte == 0) {
        let mut halves = pair.splitn(2, |byte| *byte == b'\n');
        let (Some(key), Some(value)) = (halves.next(), halves.next()) else { continue };
        let Some(key) = key.strip_prefix(b"submodule.") else { continue };
        let Some(dot) = key.iter().rposition(|byte| *byte == b'.') else { continue };
        let listed = all.entry(key[..dot].to_vec()).or_default();
        let text = || String::from_utf8_lossy(value).into_owned();
        match &key[dot + 1..] {
            b"path" => listed.path = value.to_vec(),
            b"url" => listed.url = text(),
            b"update" => listed.update = text(),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_are_read() {
        let text = b"submodule.a.b.path\nv/x\0submodule.a.b.url\n../x.git\0core.bare\ntrue\0submodule.c.update\nnone\0submodule.c.path\ny\0";
        let listed = parse(text);
        assert_eq!(listed.len(), 2);
        let (name, first) = at(&listed, b"v/x").unwrap();
        assert_eq!((name, first.url.as_str()), (&b"a.b"[..], "../x.git"));
        assert!(at(&listed, b"y").unwrap().1.is_left_out() && !first.is_left_out());
        assert!(at(&listed, b"v").is_none());
    }
}
