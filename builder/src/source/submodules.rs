//! Submodules of a repository that a build fetches. A commit's tree has the commit of each, so that its id covers
//! their content as well; `.gitmodules` has their URLs.
//!
//! Each is fetched into a repository of its own, since git's requests depend on the objects that it has already. The
//! outer repository finds their objects through its list of alternates.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use attestations::Commit;
use git2::ObjectType;
use url::Url;

use super::gitmodules::{self, LIST, Listed};
use super::recorded::{self, RecordedError, RemoteTree, Said};
use super::tree::{DEPTH_LIMIT, SUBMODULE};
use super::{SourceError, commit_id, object_id};

/// The most submodules, including nested ones.
const MOST: usize = 100;

/// A submodule that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submodule {
    /// Its path in the outermost repository, as text.
    pub(crate) path: String,
    /// Where it was fetched from.
    pub(crate) url: Url,
    /// Its commit.
    pub(crate) commit: Commit,
}

/// A repository that may have submodules.
struct Outer {
    /// Its objects.
    git: git2::Repository,
    url: Url,
    commit: Commit,
    /// Its path in the outermost one.
    path: Vec<u8>,
}

/// Fetches the submodules that are in, or around, the requested folder of a commit that is already fetched.
///
/// # Errors
/// One that cannot be fetched, named by its path; more than a hundred.
pub(super) fn fetch<E>(
    wanted: &RemoteTree<'_>,
    commit: &Commit,
    run: &mut dyn FnMut(Command) -> Said<E>,
) -> Result<Vec<Submodule>, RecordedError<E>> {
    let mut found = Vec::new();
    let (git, url) = (git2::Repository::open_bare(wanted.into)?, wanted.url.clone());
    let mut open = VecDeque::from([Outer { git, url, commit: commit.clone(), path: Vec::new() }]);
    while let Some(outer) = open.pop_front() {
        let links = outer.links(wanted.folder.as_bytes())?;
        let listed = match links.is_empty() {
            true => BTreeMap::new(),
            false => gitmodules::of(&outer.git, &outer.tree()?)?,
        };
        for (path, commit) in links {
            let text = String::from_utf8_lossy(&path).into_owned();
            let refuse = |why: String| RecordedError::Submodule { path: text.clone(), why };
            if found.len() == MOST {
                return Err(refuse(format!("one more than the {MOST} that are fetched")));
            }
            let url = outer.url_of(&path, &listed).map_err(refuse)?;
            let name = format!("modules/{}", found.len());
            let place = wanted.into.join(&name);
            make(wanted.into, &place, &name)
                .map_err(|source| SourceError::Cache { path: place.clone(), source })?;
            let git = git2::Repository::init_bare(&place)?;
            let inner = RemoteTree { url: &url, reference: None, folder: "", into: &place, ..*wanted };
            recorded::commit(&inner, &commit, run).map_err(|cause| match cause {
                RecordedError::Git(said) => refuse(format!("{url}: {said}")),
                other => other,
            })?;
            found.push(Submodule { path: text, url: url.clone(), commit: commit.clone() });
            open.push_back(Outer { git, url, commit, path });
        }
    }
    Ok(found)
}

/// Creates a repository, and adds it to the alternates of the outermost one.
fn make(outermost: &Path, place: &Path, name: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(place)?;
    let list = outermost.join("objects/info/alternates");
    std::fs::create_dir_all(outermost.join("objects/info"))?;
    let mut list = std::fs::File::options().create(true).append(true).open(list)?;
    writeln!(list, "../{name}/objects")
}

impl Outer {
    fn tree(&self) -> Result<git2::Tree<'_>, SourceError> {
        Ok(self.git.find_commit(object_id(self.commit.as_str())?)?.tree()?)
    }

    /// The submodules in its tree that are in, or around, a folder of the outermost one.
    fn links(&self, folder: &[u8]) -> Result<Vec<(Vec<u8>, Commit)>, SourceError> {
        let mut found = Vec::new();
        links(&self.git, &self.tree()?, &mut self.path.clone(), 0, &mut found)?;
        found.retain(|(path, _)| folder.is_empty() || is_within(path, folder) || is_within(folder, path));
        Ok(found)
    }

    /// The URL of a submodule. The error says why it is not known, or why it must not be fetched.
    fn url_of(&self, path: &[u8], listed: &BTreeMap<Vec<u8>, Listed>) -> Result<Url, String> {
        let own = path.strip_prefix(&self.path[..]).unwrap_or(path);
        let own = own.strip_prefix(b"/").unwrap_or(own);
        match gitmodules::at(listed, own) {
            None => Err(format!("{LIST} has no URL for it")),
            Some((_, listed)) if listed.is_left_out() => Err("it is not to be checked out".to_owned()),
            Some((_, listed)) => resolve(&self.url, &listed.url),
        }
    }
}

/// Whether a path is a folder, or in it.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn links(
    git: &git2::Repository,
    tree: &git2::Tree<'_>,
    path: &mut Vec<u8>,
    depth: usize,
    found: &mut Vec<(Vec<u8>, Commit)>,
) -> Result<(), SourceError> {
    // Deeper ones are refused when the files are read.
    if depth > DEPTH_LIMIT {
        return Ok(());
    }
    for entry in tree {
        let length = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.name_bytes());
        if entry.filemode() == SUBMODULE {
            found.push((path.clone(), commit_id(entry.id())?));
        } else if entry.kind() == Some(ObjectType::Tree) {
            links(git, &git.find_tree(entry.id())?, path, depth + 1, found)?;
        }
        path.truncate(length);
    }
    Ok(())
}

/// Resolves a URL, or a relative path (`./` or `../`) from the outer repository's URL, as git does.
fn resolve(outer: &Url, written: &str) -> Result<Url, String> {
    let shown: String = written.chars().take(160).collect();
    let mut url = outer.clone();
    if written.starts_with("./") || written.starts_with("../") {
        let mut parts: Vec<&str> = outer.path().trim_end_matches('/').split('/').collect();
        let mut rest = written;
        loop {
            if let Some(up) = rest.strip_prefix("../") {
                rest = up;
                if parts.len() < 2 {
                    return Err(format!("{shown} leads out of {outer}"));
                }
                parts.pop();
            } else if let Some(here) = rest.strip_prefix("./") {
                rest = here;
            } else {
                break;
            }
        }
        parts.push(rest.trim_end_matches('/'));
        url.set_path(&parts.join("/"));
    } else {
        url = Url::parse(written).map_err(|_| format!("{shown} is no URL that can be recorded"))?;
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{shown} is not fetched by http or https, so it could not be recorded"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its URL holds a user or password, which would stand in the provenance".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{shown} has a query or fragment, which no repository has here"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn where_they_are_is_taken_as_git_takes_it() {
        let outer = Url::parse("https://h.example/a/x.git").unwrap();
        for (written, url) in [
            ("../y.git", "https://h.example/a/y.git"),
            ("../../b/y.git/", "https://h.example/b/y.git"),
            ("./y.git", "https://h.example/a/x.git/y.git"),
            ("../.././y", "https://h.example/y"),
            ("http://o.example/y.git", "http://o.example/y.git"),
        ] {
            assert_eq!(resolve(&outer, written).as_ref().map(Url::as_str), Ok(url), "{written}");
        }
        for (written, words) in [
            ("../../../../y", "leads out"),
            ("git@h.example:y.git", "no URL"),
            ("/srv/y.git", "no URL"),
            ("file:///srv/y.git", "not fetched by http"),
            ("ssh://h.example/y.git", "not fetched by http"),
            ("https://user@h.example/y.git", "would stand in the provenance"),
            ("https://h.example/y.git?x", "query"),
            ("", "no URL"),
        ] {
            let why = resolve(&outer, written).unwrap_err();
            assert!(why.contains(words), "{written}: {why}");
        }
    }

    #[test]
    fn folders_hold_whole_names() {
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && !is_within(b"ab", b"a"));
    }
}
