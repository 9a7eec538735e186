//! The context's `.git`, which is made when something takes it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use attestations::provenance::GitFolder;
use images::layer::NodeKind;

use super::tree::opened;
use super::{CopyError, join};
use crate::dockerfile::ignore::Ignore;
use crate::source::{GitRecipe, MadeGit};

/// A `.git` that may not be there yet.
pub(super) struct GitOfContext {
    recipe: GitRecipe,
    ignore: Ignore,
    made: Mutex<Option<Arc<MadeGit>>>,
}

impl GitOfContext {
    /// Its name in the context.
    pub(super) const NAME: &[u8] = b".git";
    /// Some of what is in it: an exception of `.dockerignore` may keep one of them alone.
    const FILES: [&[u8]; 5] = [b"HEAD", b"config", b"index", b"packed-refs", b"objects/pack/pack"];

    /// None if nothing of it is in the context.
    pub(super) fn new(recipe: GitRecipe, ignore: Ignore) -> Option<Self> {
        let is_kept = |file: &&[u8]| !ignore.leaves_out(&join(Self::NAME, file));
        let is_there = !ignore.leaves_out(Self::NAME) || Self::FILES.iter().any(is_kept);
        is_there.then(|| Self { recipe, ignore, made: Mutex::new(None) })
    }

    /// What of the repository is in it, if something took it.
    pub(super) fn taken(&self) -> Option<GitFolder> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().map(|made| made.taken.clone())
    }

    /// The kind of a path in it, if that is in the context.
    pub(super) fn kind(&self, path: &[u8]) -> Result<Option<NodeKind>, CopyError> {
        if path.is_empty() {
            return Ok(Some(NodeKind::Directory));
        }
        let kind = match std::fs::symlink_metadata(self.place(path)?) {
            Ok(found) if found.is_dir() => NodeKind::Directory,
            Ok(_) => NodeKind::File,
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(cause) => return Err(CopyError::io("looking at", path, cause)),
        };
        let is_left_out = self.ignore.leaves_out(&join(Self::NAME, path));
        let may_hold_more = kind == NodeKind::Directory && self.ignore.has_exceptions();
        Ok((!is_left_out || may_hold_more).then_some(kind))
    }

    /// The names in a folder of it, sorted.
    pub(super) fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        let failed = |cause| CopyError::io("listing", path, cause);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.place(path)?).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().as_bytes().to_vec();
            if self.kind(&join(path, &name))?.is_some() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// A file of it.
    pub(super) fn content(&self, path: &[u8]) -> Result<(u64, Box<dyn Read>), CopyError> {
        let file = File::open(self.place(path)?).map_err(|cause| CopyError::io("reading", path, cause))?;
        opened(file, path)
    }

    /// Where a path of it is on this machine.
    fn place(&self, path: &[u8]) -> Result<PathBuf, CopyError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = match &*made {
            Some(made) => made.path(),
            None => {
                let new = self.recipe.make(&|path| !self.ignore.leaves_out(path))?;
                made.insert(Arc::new(new)).path()
            }
        };
        Ok(folder.join(OsStr::from_bytes(path)))
    }
}
