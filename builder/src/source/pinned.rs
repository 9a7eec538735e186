//! Submodules of the reviewed repository. The commit's tree names the commit of each, so that its id covers their content:
//! each is fetched at just that commit, with the same programs and credentials as the repository itself, and only when
//! something copies it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use attestations::{Commit, Foreign};
use git2::Oid;
use recorder::Upstream;

use super::gitmodules::{self, LIST, List};
use super::lfs::LfsHome;
use super::location::Transport;
use super::tree::{Blobs, Walk};
use super::{Location, Repository, Snapshot, SourceError, commit_id};

/// The deepest submodule in submodules.
const MAX_DEPTH: usize = 10;

/// How submodules are fetched.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// The builder's state directory.
    pub(crate) state_dir: PathBuf,
    /// The reviewed repository.
    pub(crate) location: Location,
    /// Which servers may be asked besides that of the repository.
    pub(crate) upstream: Upstream,
}

/// A repository that may have submodules and files in LFS.
#[derive(Debug)]
pub(crate) struct Home {
    location: Location,
    list: List,
    /// Where its files in LFS are.
    pub(crate) lfs: LfsHome,
    depth: usize,
}

impl Home {
    /// That of a commit.
    ///
    /// # Errors
    /// When its `.gitmodules` or `.lfsconfig` cannot be read.
    pub(crate) fn of(snapshot: &Snapshot<'_>) -> Result<Self, SourceError> {
        let git = snapshot.repository().git();
        let tree = snapshot.git_commit().tree()?;
        let location = snapshot.repository().location().clone();
        let lfs = LfsHome::of(git, &tree, &location)?;
        Ok(Self { list: gitmodules::of(git, &tree)?, location, lfs, depth: 0 })
    }

    /// Where the submodule at a path of its own is, as its commit says; nothing if it says nothing.
    pub(crate) fn written(&self, path: &[u8]) -> Option<&str> {
        gitmodules::at(&self.list, path).map(|(_, listed)| listed.url.as_str())
    }
}

/// A submodule that was fetched.
pub(crate) struct Entered {
    /// Everything in it.
    pub(crate) walk: Walk,
    /// Its contents.
    pub(crate) blobs: Blobs,
    /// What it says of its own submodules.
    pub(crate) home: Home,
    /// Its commit.
    pub(crate) commit: Commit,
    /// Its repository's name in statements.
    pub(crate) uri: String,
}

/// A submodule's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Its path in the repository that has it.
    pub(crate) own: &'a [u8],
    /// Its path in the outermost one.
    pub(crate) full: &'a [u8],
    /// Its commit.
    pub(crate) commit: Oid,
}

impl Access {
    /// Fetches a submodule of `home`, and walks through what `wanted` accepts, by paths of the outermost repository. None
    /// for one that a checkout leaves empty.
    ///
    /// # Errors
    /// When it cannot be fetched, with its path.
    pub(crate) fn enter(
        &self,
        home: &Home,
        place: Place<'_>,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<Entered>, SourceError> {
        let path = Foreign::new(&String::from_utf8_lossy(place.full)).to_string();
        let refuse =
            |why: String| SourceError::Submodules(format!("the submodule {path} cannot be fetched: {why}"));
        if home.depth == MAX_DEPTH {
            return Err(refuse(format!("it is more than {MAX_DEPTH} deep in others")));
        }
        let (name, listed) = gitmodules::at(&home.list, place.own)
            .ok_or_else(|| refuse(format!("{LIST} has no URL for it")))?;
        if listed.is_left_out() {
            return Ok(None);
        }
        let location = home.location.of_submodule(&listed.url).map_err(refuse)?;
        let commit = commit_id(place.commit)?;
        let mut failed = None;
        for candidate in candidates(home, name, &location) {
            if let Err(why) = self.check(&candidate) {
                failed = Some(why);
                continue;
            }
            match self.walked(&candidate, &commit, place, wanted) {
                Ok(mut entered) => {
                    entered.home.depth = home.depth + 1;
                    return Ok(Some(entered));
                }
                Err(cause) => failed = Some(errors::chain::line(&cause)),
            }
        }
        Err(SourceError::Submodule { path, why: failed.unwrap_or_default() })
    }

    fn walked(
        &self,
        location: &Location,
        commit: &Commit,
        place: Place<'_>,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Entered, SourceError> {
        let repository = Repository::open(&self.state_dir, location)?;
        let snapshot = repository.commit(commit)?;
        let walk = snapshot.walk("", &|inner| wanted(&[place.full, b"/", inner].concat()))?;
        let home = Home::of(&snapshot)?;
        let (blobs, uri) = (snapshot.blobs()?, location.uri().to_owned());
        Ok(Entered { walk, blobs, home, commit: commit.clone(), uri })
    }

    /// Nobody who writes a commit sends the builder to a server of its own network: only to that of the repository, or
    /// where steps may go as well.
    fn check(&self, location: &Location) -> Result<(), String> {
        let Some((host, port)) = location.server() else { return Ok(()) };
        if self.location.server().is_some_and(|(own, _)| own == host) {
            return Ok(());
        }
        let (default, is_http) = match location.transport() {
            Transport::Https => (443, true),
            Transport::Http => (80, true),
            Transport::Ssh => (22, false),
            Transport::File => return Ok(()),
        };
        self.upstream.check_server(&host, port.unwrap_or(default), is_http)
    }
}

/// Where a submodule may be fetched from: of a clone on this machine, first what that has itself.
fn candidates(home: &Home, name: &[u8], location: &Location) -> Vec<Location> {
    let name = Path::new(OsStr::from_bytes(name));
    // A name can have slashes, and must not lead elsewhere.
    let is_plain = name.components().all(|part| matches!(part, Component::Normal(_)));
    let folders = home.location.folder().into_iter().filter(|_| is_plain);
    let modules = folders.flat_map(|folder| [".git/modules", "modules"].map(|part| folder.join(part)));
    let own = modules.map(|folder| folder.join(name)).filter(|folder| folder.is_dir());
    let own = own.filter_map(|folder| Location::parse(folder.to_str()?).ok());
    own.map(|own| own.standing_for(location.uri())).chain([location.clone()]).collect()
}
