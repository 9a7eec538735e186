//! Git: reads a commit by its id, from a path or URL, through a bare cache; never from a working directory.
//!
//! The `git` program fetches. libgit2 reads, and checks that every object has the requested id. Submodules and files in
//! LFS are fetched only when something copies them: the commit names them by their own ids, which its own covers.

mod attributes;
mod fetch;
mod git_folder;
mod gitmodules;
mod lfs;
mod location;
mod pinned;
mod recorded;
mod submodules;
mod tree;
mod writers;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use attestations::{Commit, Digest, Tree};
use git2::{ObjectType, Oid};

pub(crate) use attributes::Form;
use fetch::Depth;
pub(crate) use git_folder::{Made as MadeGit, Recipe as GitRecipe};
pub(crate) use lfs::{LfsHome, LfsStore, Pointer};
pub(crate) use location::Location;
pub(crate) use pinned::{Access, Entered, Home, Place};
pub(crate) use recorded::{RecordedError, RemoteTree, fetch as fetch_recorded};
pub(crate) use tree::{Blobs, Entry, EntryKind, Walk};
pub(crate) use writers::Writers;

/// The most bytes of a commit message; the trailers are at its end.
const MESSAGE_LIMIT: usize = 1024 * 1024;

/// Why a commit could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// Not something to fetch from.
    #[error("{location:?} is not a repository that can be fetched: {reason}")]
    Location {
        /// As given.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The commit is in none of the repository's references.
    #[error("commit {commit} was not found in {location}")]
    UnknownCommit {
        /// The commit asked for.
        commit: String,
        /// The repository.
        location: String,
        /// Git's message.
        detail: String,
    },
    /// The id is that of another kind of object.
    #[error("{id} in {location} is a {found}, not a commit")]
    NotACommit {
        /// The id asked for.
        id: String,
        /// The repository.
        location: String,
        /// Its type.
        found: String,
    },
    /// The repository could not be reached or read.
    #[error("{location} could not be fetched: {detail}")]
    Unreachable {
        /// The repository.
        location: String,
        /// Git's message.
        detail: String,
    },
    /// A folder that belongs to another user, which git does not read unasked.
    #[error("{location} could not be fetched: {detail}")]
    OfAnotherUser {
        /// The repository.
        location: String,
        /// The folder that git names.
        folder: String,
        /// Git's message.
        detail: String,
    },
    /// The history of a commit is not there to its beginning.
    #[error("the history of commit {commit} is not complete in {location}")]
    NoHistory {
        /// The commit.
        commit: String,
        /// The repository.
        location: String,
    },
    /// The repository holds objects that git's own checks refuse.
    #[error("{location} holds a malformed object: {detail}")]
    Malformed {
        /// The repository.
        location: String,
        /// Git's message.
        detail: String,
    },
    /// A path of the tree that cannot be used.
    #[error("{path} of commit {commit} is {what}")]
    Unsupported {
        /// The path in the tree.
        path: String,
        /// The commit.
        commit: String,
        /// The kind of entry, and why it is refused.
        what: &'static str,
        /// A remedy.
        remedy: &'static str,
    },
    /// A path that is not in the tree.
    #[error("commit {commit} has no {path}")]
    NoSuchPath {
        /// The path in the tree.
        path: String,
        /// The commit.
        commit: String,
    },
    /// The list of submodules cannot be read.
    #[error("{0}")]
    Submodules(String),
    /// A submodule that is copied cannot be fetched.
    #[error("the submodule {path} cannot be fetched: {why}")]
    Submodule {
        /// Its path in the outermost repository.
        path: String,
        /// The reason.
        why: String,
    },
    /// A pointer to a file in Git LFS that is copied and cannot be read.
    #[error("{path} is a Git LFS pointer that is malformed, or has extensions")]
    LfsPointer {
        /// Its path.
        path: String,
    },
    /// A file in Git LFS that is copied cannot be fetched.
    #[error("{path} is in Git LFS and cannot be fetched: {why}")]
    Lfs {
        /// Its path.
        path: String,
        /// The reason.
        why: String,
    },
    /// Git could not give the form that a file has in a checkout.
    #[error("the files as .gitattributes has them in a checkout could not be made: {0}")]
    Checkout(String),
    /// A tag that the context's `.git` cannot have.
    #[error("the tag {name} cannot be put into .git: {why}")]
    Tag {
        /// Its name.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// A file of the tree over the reader's limit.
    #[error("{path} of commit {commit} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The path in the tree.
        path: String,
        /// The commit.
        commit: String,
        /// Its size in bytes.
        size: u64,
        /// The most allowed, in bytes.
        limit: u64,
    },
    /// Only SHA-1 repositories can be read.
    #[error("{id} is a SHA-256 commit id, and repositories in that format cannot be read yet")]
    Sha256 {
        /// The id asked for.
        id: String,
    },
    /// The `git` program is missing.
    #[error("the git program could not be started")]
    NoGit(#[source] std::io::Error),
    /// The cache could not be written.
    #[error("the repository cache {} could not be used", path.display())]
    Cache {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An object could not be read.
    #[error("an object of the repository could not be read")]
    Read(#[from] git2::Error),
}

impl SourceError {
    fn gone_tag(name: &str) -> Self {
        Self::Tag { name: name.to_owned(), why: "the repository has another tag of that name now, or none" }
    }
}

impl From<SourceError> for crate::error::Error {
    fn from(error: SourceError) -> Self {
        use crate::error::{Error, Kind};
        let (kind, hint) = match &error {
            SourceError::Location { .. } => {
                (Kind::Usage, "give a path, or an https, ssh or file URL".to_owned())
            }
            SourceError::UnknownCommit { detail, .. } => (
                Kind::NotFound,
                format!(
                    "push the commit to a branch or tag of that repository, and give its full id ({detail})"
                ),
            ),
            SourceError::NotACommit { .. } => (
                Kind::NotFound,
                "give the commit's id; `git rev-parse TAG^{commit}` prints that of a tag".to_owned(),
            ),
            SourceError::Unreachable { .. } => (
                Kind::Network,
                format!(
                    "check the location, and that `git fetch` from it works for this user; a variable that a \
                     credential helper reads has to be named in {}",
                    fetch::MORE_VARIABLES
                ),
            ),
            SourceError::OfAnotherUser { folder, .. } => (
                Kind::Machine,
                format!(
                    "if you trust whoever the folder belongs to: git config --global --add safe.directory {folder}"
                ),
            ),
            SourceError::NoHistory { .. } => (
                Kind::Input,
                "it is a shallow clone: `git fetch --unshallow` there, or give the location it was cloned from"
                    .to_owned(),
            ),
            SourceError::Malformed { .. } => {
                (Kind::Input, "run `git fsck` in that repository; its history has to be repaired".to_owned())
            }
            SourceError::Unsupported { remedy, .. } => (Kind::Input, (*remedy).to_owned()),
            SourceError::NoSuchPath { .. } => {
                (Kind::NotFound, "check the spelling of the path at that commit".to_owned())
            }
            SourceError::Tag { .. } => (
                Kind::NotFound,
                "the tags that the build takes are those of its provenance: give a repository that has them".to_owned(),
            ),
            SourceError::Submodules(_) => (
                Kind::Input,
                "correct .gitmodules, or leave the submodule out with .dockerignore or --exclude".to_owned(),
            ),
            SourceError::Submodule { .. } => (
                Kind::Network,
                "check that `git submodule update` works for this user, or leave it out with .dockerignore or --exclude"
                    .to_owned(),
            ),
            SourceError::LfsPointer { .. } => (
                Kind::Input,
                "add the file again with `git lfs`, or leave it out with .dockerignore or --exclude".to_owned(),
            ),
            SourceError::Lfs { .. } => (
                Kind::Network,
                "check that `git lfs pull` works for this user, or leave it out with .dockerignore or --exclude"
                    .to_owned(),
            ),
            SourceError::Checkout(_) => (Kind::Input, "correct .gitattributes, or the files that it names".to_owned()),
            SourceError::TooLarge { .. } | SourceError::Read(_) => {
                (Kind::Input, "it is malformed or not meant for this".to_owned())
            }
            SourceError::Sha256 { .. } => (Kind::Input, "use a repository in the SHA-1 format".to_owned()),
            SourceError::NoGit(_) => (Kind::Machine, "install git".to_owned()),
            SourceError::Cache { .. } => {
                (Kind::Machine, "check the state directory's rights and space".to_owned())
            }
        };
        Error::new(kind, error.to_string()).hint(hint).because(error)
    }
}

/// The cached objects of one repository.
pub(crate) struct Repository {
    git: git2::Repository,
    /// The commits of its history, once somebody asked for them.
    history: OnceCell<git2::Repository>,
    location: Location,
    cache: PathBuf,
}

impl Repository {
    /// Opens the cache of `location` below `state_dir`, and creates it if it is new. Nothing is fetched.
    ///
    /// # Errors
    /// When the cache cannot be created.
    pub(crate) fn open(state_dir: &Path, location: &Location) -> Result<Self, SourceError> {
        let name = Digest::of(location.uri().as_bytes()).hex();
        let cache = state_dir.join("git").join(name);
        let failed = |source| SourceError::Cache { path: cache.clone(), source };
        std::fs::create_dir_all(&cache).map_err(failed)?;
        let _lock = fetch::lock(&cache).map_err(failed)?;
        let git = git2::Repository::open_bare(&cache).or_else(|_| git2::Repository::init_bare(&cache))?;
        Ok(Self { git, history: OnceCell::new(), location: location.clone(), cache })
    }

    /// Reads a commit, and fetches it without its history if the cache does not have it.
    ///
    /// # Errors
    /// When the repository does not have it or cannot be reached; see [`SourceError`].
    pub(crate) fn commit(&self, id: &Commit) -> Result<Snapshot<'_>, SourceError> {
        let oid = object_id(&id.to_string())?;
        if self.git.find_commit(oid).is_err() {
            fetch::commit(&self.cache, &self.location, (id, Depth::Alone), || has(&self.git, oid))?;
        }
        self.present(id)
    }

    /// Reads a commit from the cache; nothing is fetched.
    fn present(&self, id: &Commit) -> Result<Snapshot<'_>, SourceError> {
        let oid = object_id(&id.to_string())?;
        let object = self
            .git
            .find_object(oid, None)
            .map_err(|_| self.unknown(id, "it was fetched, but is not there"))?;
        if object.kind() != Some(ObjectType::Commit) {
            let found = object.kind().map_or("object", |kind| kind.str()).to_owned();
            return Err(SourceError::NotACommit {
                id: id.to_string(),
                location: self.location.to_string(),
                found,
            });
        }
        let commit = self.git.find_commit(oid)?;
        Ok(Snapshot { repository: self, id: id.clone(), tree: commit.tree_id(), commit })
    }

    /// The location it is fetched from.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// The objects, for reading only.
    pub(crate) fn git(&self) -> &git2::Repository {
        &self.git
    }

    /// The commits that lead to `commit`, in a repository that may have nothing of their trees.
    ///
    /// # Errors
    /// When they cannot be fetched, or not to their beginning.
    fn history(&self, commit: &Commit) -> Result<&git2::Repository, SourceError> {
        let place = self.cache.join("history");
        let git = match self.history.get() {
            Some(git) => git,
            None => {
                std::fs::create_dir_all(&place)
                    .map_err(|source| SourceError::Cache { path: place.clone(), source })?;
                let git =
                    git2::Repository::open_bare(&place).or_else(|_| git2::Repository::init_bare(&place))?;
                self.history.get_or_init(|| git)
            }
        };
        let oid = object_id(commit.as_str())?;
        let is_whole = || has(git, oid) && is_whole(git, oid);
        if !is_whole() {
            fetch::commit(&place, &self.location, (commit, Depth::History), is_whole).map_err(|error| {
                match error {
                    // The commit itself was fetched before, so it is its history that is missing.
                    SourceError::UnknownCommit { commit, location, .. }
                        if self.git.find_commit(oid).is_ok() =>
                    {
                        SourceError::NoHistory { commit, location }
                    }
                    other => other,
                }
            })?;
        }
        Ok(git)
    }

    fn unknown(&self, commit: &Commit, detail: &str) -> SourceError {
        SourceError::UnknownCommit {
            commit: commit.to_string(),
            location: self.location.to_string(),
            detail: detail.to_owned(),
        }
    }
}

/// One commit and its tree.
pub(crate) struct Snapshot<'a> {
    repository: &'a Repository,
    id: Commit,
    tree: Oid,
    commit: git2::Commit<'a>,
}

impl<'a> Snapshot<'a> {
    /// The commit's id.
    pub(crate) fn id(&self) -> &Commit {
        &self.id
    }

    /// The id of its tree.
    ///
    /// # Errors
    /// Never for a repository that git accepts.
    pub(crate) fn tree(&self) -> Result<Tree, SourceError> {
        Tree::from_str(&self.tree.to_string())
            .map_err(|_| SourceError::Read(git2::Error::from_str("the tree's id is not an object id")))
    }

    /// The commit time in seconds since 1970, which is the build's `SOURCE_DATE_EPOCH`. Never negative.
    pub(crate) fn committed_at(&self) -> i64 {
        self.commit.time().seconds().max(0)
    }

    /// The commit's message, as text.
    pub(crate) fn message(&self) -> String {
        let bytes = self.commit.message_bytes();
        let start = bytes.len().saturating_sub(MESSAGE_LIMIT);
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    /// Who wrote and committed it.
    pub(crate) fn writers(&self) -> Writers {
        Writers::of(&self.commit)
    }

    /// Who wrote and committed each commit that is in this one's history and not in that of `since`.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub(crate) fn writers_since(&self, since: &Snapshot<'_>) -> Result<Writers, SourceError> {
        let git = self.history()?;
        let mut walk = git.revwalk()?;
        walk.push(self.commit.id())?;
        // A commit that is not there is not in this one's history, and hides nothing of it.
        if git.find_commit(since.commit.id()).is_ok() {
            walk.hide(since.commit.id())?;
        }
        let mut writers = Writers::default();
        for oid in walk {
            writers.add(&git.find_commit(oid?)?);
        }
        Ok(writers)
    }

    /// All commits that lead to this one. Nothing is promised of their trees.
    ///
    /// # Errors
    /// When they cannot be fetched, or not to their beginning.
    pub(crate) fn history(&self) -> Result<&'a git2::Repository, SourceError> {
        self.repository.history(&self.id)
    }

    /// The parsed commit, for facts that this type does not offer.
    pub(crate) fn git_commit(&self) -> &git2::Commit<'a> {
        &self.commit
    }

    /// The repository it is in.
    pub(crate) fn repository(&self) -> &'a Repository {
        self.repository
    }
}

fn has(git: &git2::Repository, oid: Oid) -> bool {
    git.odb().is_ok_and(|odb| odb.refresh().is_ok() && odb.exists(oid))
}

/// Whether every commit that leads to this one is there.
fn is_whole(git: &git2::Repository, oid: Oid) -> bool {
    let walked = || {
        let mut walk = git.revwalk()?;
        walk.push(oid)?;
        walk.try_for_each(|oid| oid.map(drop))
    };
    !git.is_shallow() && walked().is_ok()
}

fn commit_id(id: Oid) -> Result<Commit, SourceError> {
    id.to_string().parse().map_err(|_| SourceError::Read(git2::Error::from_str("an id is no commit's")))
}

fn object_id(id: &str) -> Result<Oid, SourceError> {
    match id.len() {
        40 => Ok(Oid::from_str(id)?),
        _ => Err(SourceError::Sha256 { id: id.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
