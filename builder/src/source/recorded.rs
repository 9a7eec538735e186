//! A git repository that a build itself fetches, for ADD. Git's requests must not depend on its version or the
//! machine, since they are recorded and a replay answers no others.
//!
//! Branches, tags and commits are fetched without their history. A name is resolved as in `git checkout`: a branch
//! before a tag. Deliberately absent: LFS, since the commit's id does not cover the content.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use attestations::Commit;
use git2::ObjectType;
use url::Url;

use super::submodules::{self, Submodule};
use super::{Location, Repository, Snapshot, SourceError, Walk, fetch as cache_fetch};

/// The name of the fetched reference in the local repository.
const TAKEN: &str = "refs/countersign/taken";

/// A request for files of a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemoteTree<'a> {
    /// Its URL, `http` or `https`.
    pub(crate) url: &'a Url,
    /// A branch, tag, reference or commit; its `HEAD` by default.
    pub(crate) reference: Option<&'a str>,
    /// The folder to take; "" is the whole repository.
    pub(crate) folder: &'a str,
    /// A folder of the build for the local repository, which does not exist yet.
    pub(crate) into: &'a Path,
    /// The certificates that are trusted, as PEM.
    pub(crate) certificates: &'a Path,
}

/// Why the repository could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordedError<E> {
    /// The program could not be run.
    #[error("git could not be run")]
    Run(E),
    /// The repository refused, or does not have the reference.
    #[error("{0}")]
    Git(String),
    /// A requested submodule could not be fetched.
    #[error("the submodule {path} cannot be fetched: {why}")]
    Submodule {
        /// Its path.
        path: String,
        /// The reason.
        why: String,
    },
    /// The fetched objects cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl<E> From<git2::Error> for RecordedError<E> {
    fn from(cause: git2::Error) -> Self {
        Self::Source(cause.into())
    }
}

/// A fetched commit.
pub(crate) struct FetchedTree {
    repository: Repository,
    commit: Commit,
    submodules: Vec<Submodule>,
}

/// The result of a git command: success, or its message.
pub(super) type Said<E> = Result<Result<(), String>, E>;

/// Fetches a repository. `run` runs git's commands, which have an environment of their own, in the recorder's
/// network.
///
/// # Errors
/// See [`RecordedError`].
pub(crate) fn fetch<E>(
    wanted: &RemoteTree<'_>,
    run: &mut dyn FnMut(Command) -> Said<E>,
) -> Result<FetchedTree, RecordedError<E>> {
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
            super::commit_id(commit.id())?
        }
    };
    let submodules = submodules::fetch(wanted, &commit, run)?;
    // Opened again, now with the submodules' objects.
    let git = git2::Repository::open_bare(wanted.into)?;
    let location = Location::parse(wanted.url.as_str())?;
    let repository =
        Repository { git, history: OnceCell::new(), location, cache: PathBuf::from(wanted.into) };
    Ok(FetchedTree { repository, commit, submodules })
}

/// Fetches a commit by its id; if the server does not allow that, fetches all branches and tags to find it.
pub(super) fn commit<E>(
    wanted: &RemoteTree<'_>,
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
    wanted: &RemoteTree<'_>,
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
    wanted: &RemoteTree<'_>,
    name: &str,
    run: &mut dyn FnMut(Command) -> Said<E>,
) -> Result<(), RecordedError<E>> {
    let said = run(command(wanted, Some(1), &[&format!("+{name}:{TAKEN}")])).map_err(RecordedError::Run)?;
    said.map_err(|said| failed(&said))
}

fn failed<E>(said: &str) -> RecordedError<E> {
    let is_malformed = cache_fetch::malformed(said);
    let said = cache_fetch::said(said);
    match is_malformed {
        true => RecordedError::Git(format!("it holds a malformed object: {said}")),
        false => RecordedError::Git(format!("git says: {said}")),
    }
}

/// A fetch whose requests do not depend on the machine's or the caller's configuration: neither on git's version, nor
/// on the compressions that its library supports.
fn command(wanted: &RemoteTree<'_>, depth: Option<u32>, refspecs: &[&str]) -> Command {
    let settings =
        ["protocol.version=2", "http.version=HTTP/1.1", "http.extraHeader=Accept-Encoding: identity"];
    let mut command = cache_fetch::command(wanted.into, &settings);
    isolate(&mut command, wanted.into);
    command
        .env("GIT_ALLOW_PROTOCOL", "http:https")
        .env("GIT_USER_AGENT", "git/countersign")
        .env("GIT_SSL_CAINFO", wanted.certificates);
    command.args(depth.map(|depth| format!("--depth={depth}")));
    command.arg("--").arg(wanted.url.as_str()).args(refspecs);
    command
}

/// Hides the machine's environment and configuration from git.
pub(super) fn isolate(command: &mut Command, home: &Path) {
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.env("HOME", home).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("LC_ALL", "C");
    cache_fetch::never_ask(command);
}

impl FetchedTree {
    /// The resolved commit.
    pub(crate) fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Its submodules, each before those within it.
    pub(crate) fn submodules(&self) -> &[Submodule] {
        &self.submodules
    }

    /// Its tree and all entries below a folder, including the trees of submodules.
    ///
    /// # Errors
    /// A folder that does not exist, and entries that cannot be in an image: LFS pointers.
    pub(crate) fn walk(&self, folder: &str) -> Result<(Snapshot<'_>, Walk), SourceError> {
        let snapshot = self.repository.present(&self.commit)?;
        let walk = snapshot.walk_with_submodules(folder)?;
        Ok((snapshot, walk))
    }
}
