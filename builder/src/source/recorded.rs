//! A repository that a build itself fetches, for ADD. What git asks has to be the same each time, whichever version of it asks,
//! on whichever machine: it is recorded, and a replay answers nothing else.
//!
//! Branches, tags and commits are fetched without their history. Which branch or tag is meant is found as `git checkout`
//! does: a branch before a tag. Deliberately absent: submodules and LFS, whose content the commit's id does not cover.

use std::path::{Path, PathBuf};
use std::process::Command;

use attestations::Commit;
use git2::{ObjectType, TreeWalkMode, TreeWalkResult};
use url::Url;

use super::{Location, Repository, Snapshot, SourceError, Walk, fetch as cache_fetch};

/// Where a fetched reference is kept.
const TAKEN: &str = "refs/countersign/taken";

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Where it is: `http` or `https`.
    pub url: &'a Url,
    /// A branch, tag, reference or commit; its `HEAD` by default.
    pub reference: Option<&'a str>,
    /// A folder; "" is the whole.
    pub folder: &'a str,
    /// A folder of the build for the repository, which does not exist yet.
    pub into: &'a Path,
    /// The certificates that are trusted, as PEM.
    pub certificates: &'a Path,
}

/// Why it could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError<E> {
    /// The program could not be run.
    #[error("git could not be run")]
    Run(E),
    /// The repository refuses, or has no such thing.
    #[error("{0}")]
    Git(String),
    /// A submodule in what is wanted.
    #[error("{0} is a submodule, which the commit's id does not cover")]
    Submodule(String),
    /// What was fetched cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl<E> From<git2::Error> for RecordedError<E> {
    fn from(cause: git2::Error) -> Self {
        Self::Source(cause.into())
    }
}

/// A fetched commit.
pub struct Found {
    repository: Repository,
    commit: Commit,
}

/// How a command of git ended: nothing, or what it said.
type Said<E> = Result<Result<(), String>, E>;

/// Fetches by what `run` makes of commands, which have an environment of their own and are to see the recorder's network.
///
/// # Errors
/// See [`RecordedError`].
pub fn fetch<E>(
    wanted: &Wanted<'_>,
    run: &mut dyn FnMut(Command) -> Said<E>,
) -> Result<Found, RecordedError<E>> {
    git2::Repository::init_bare(wanted.into)?;
    let id = wanted.reference.and_then(|text| text.parse::<Commit>().ok());
    match (&id, wanted.reference) {
        (Some(id), _) => commit(wanted, id, run)?,
        (None, None) => only(wanted, "HEAD", run)?,
        (None, Some(name)) => named(wanted, name, run)?,
    }
    let git = git2::Repository::open_bare(wanted.into)?;
    let commit = match id {
        Some(id) => id,
        None => {
            let commit = git.find_reference(TAKEN)?.peel(ObjectType::Commit).map_err(|_| {
                RecordedError::Git(format!("{} names no commit", wanted.reference.unwrap_or("HEAD")))
            })?;
            let text = commit.id().to_string();
            text.parse().map_err(|_| RecordedError::Git(format!("{text} is no commit's id")))?
        }
    };
    let location = Location::parse(wanted.url.as_str())?;
    Ok(Found { repository: Repository { git, location, cache: PathBuf::from(wanted.into) }, commit })
}

/// A commit by its id; where the server gives none by id, all branches and tags are fetched to find it.
fn commit<E>(
    wanted: &Wanted<'_>,
    id: &Commit,
    run: &mut dyn FnMut(Command) -> Said<E>,
) -> Result<(), RecordedError<E>> {
    let refused =
        match run(command(wanted, Some(1), &[&format!("+{id}:{TAKEN}")])).map_err(RecordedError::Run)? {
            Ok(()) => return Ok(()),
            Err(said) => said,
        };
    if !refused.contains("not our ref") && !refused.contains("unadvertised object") {
        return Err(failed(&refused));
    }
    let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    let all = run(command(wanted, None, &all)).map_err(RecordedError::Run)?;
    all.map_err(|said| failed(&said))?;
    let git = git2::Repository::open_bare(wanted.into)?;
    match git.find_commit(super::object_id(id.as_str())?) {
        Ok(_) => Ok(()),
        Err(_) => Err(RecordedError::Git(format!("commit {id} is in none of its branches and tags"))),
    }
}

fn named<E>(
    wanted: &Wanted<'_>,
    name: &str,
    run: &mut dyn FnMut(Command) -> Said<E>,
) -> Result<(), RecordedError<E>> {
    let full = [format!("refs/heads/{name}"), format!("refs/tags/{name}")];
    let candidates = match name.starts_with("refs/") {
        true => vec![name.to_owned()],
        false => full.into(),
    };
    for candidate in &candidates {
        let refspec = format!("+{candidate}:{TAKEN}");
        match run(command(wanted, Some(1), &[&refspec])).map_err(RecordedError::Run)? {
            Ok(()) => return Ok(()),
            Err(said) if said.contains("couldn't find remote ref") => {}
            Err(said) => return Err(failed(&said)),
        }
    }
    Err(RecordedError::Git(format!("it has neither a branch nor a tag {name}")))
}

fn only<E>(
    wanted: &Wanted<'_>,
    name: &str,
    run: &mut dyn FnMut(Command) -> Said<E>,
) -> Result<(), RecordedError<E>> {
    let said = run(command(wanted, Some(1), &[&format!("+{name}:{TAKEN}")])).map_err(RecordedError::Run)?;
    said.map_err(|said| failed(&said))
}

fn failed<E>(said: &str) -> RecordedError<E> {
    let said = cache_fetch::last_lines(said);
    match cache_fetch::malformed(&said) {
        true => RecordedError::Git(format!("it holds a malformed object: {said}")),
        false => RecordedError::Git(format!("git says: {said}")),
    }
}

/// Nothing of the machine's or the caller's configuration shows in what is asked: neither git's version, nor which
/// compressions its library knows.
fn command(wanted: &Wanted<'_>, depth: Option<u32>, refspecs: &[&str]) -> Command {
    let settings =
        ["protocol.version=2", "http.version=HTTP/1.1", "http.extraHeader=Accept-Encoding: identity"];
    let mut command = cache_fetch::command(wanted.into, &settings);
    let own: Vec<(std::ffi::OsString, std::ffi::OsString)> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command.env_clear().envs(own);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .env("HOME", wanted.into)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ALLOW_PROTOCOL", "http:https")
        .env("GIT_USER_AGENT", "git/countersign")
        .env("GIT_SSL_CAINFO", wanted.certificates);
    command.args(depth.map(|depth| format!("--depth={depth}")));
    command.arg("--").arg(wanted.url.as_str()).args(refspecs);
    command
}

impl Found {
    /// The commit that was meant.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Its tree, and everything below a folder of it.
    ///
    /// # Errors
    /// A folder that is not there, and what an image cannot be given: submodules, LFS pointers.
    pub fn walk<E>(&self, folder: &str) -> Result<(Snapshot<'_>, Walk), RecordedError<E>> {
        let snapshot = self.repository.present(&self.commit)?;
        if let Some(path) = self.submodule(folder)? {
            return Err(RecordedError::Submodule(path));
        }
        let walk = snapshot.walk(folder, &|_| true)?;
        Ok((snapshot, walk))
    }

    /// The first submodule in a folder; a folder that is not there has none.
    fn submodule(&self, folder: &str) -> Result<Option<String>, git2::Error> {
        let git = &self.repository.git;
        let mut tree = git.find_commit(git2::Oid::from_str(self.commit.as_str())?)?.tree()?;
        if !folder.is_empty() {
            let Ok(entry) = tree.get_path(Path::new(folder)) else { return Ok(None) };
            let Ok(inner) = git.find_tree(entry.id()) else { return Ok(None) };
            tree = inner;
        }
        let mut found = None;
        let walked = tree.walk(TreeWalkMode::PreOrder, |above, entry| {
            if entry.filemode() != 0o160_000 {
                return TreeWalkResult::Ok;
            }
            found = Some(format!("{above}{}", String::from_utf8_lossy(entry.name_bytes())));
            TreeWalkResult::Abort
        });
        match found {
            Some(path) => Ok(Some(path)),
            None => walked.map(|()| None),
        }
    }
}
