//! The tree of a commit: entries by path, walks, and the contents of files.

use std::sync::{Mutex, PoisonError};

use git2::Oid;

use super::{Snapshot, SourceError};

const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// The LFS specification keeps pointers below this size, in bytes.
const LFS_POINTER_LIMIT: usize = 1024;
/// Deeper trees are refused; git itself stops at about this depth.
pub(super) const DEPTH_LIMIT: usize = 512;
const FOLDER: i32 = 0o040_000;
/// The mode of an entry that names a commit of another repository.
pub(super) const SUBMODULE: i32 = 0o160_000;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A folder.
    Directory,
    /// A file, whether its owner may execute it.
    File {
        /// Mode 100755 instead of 100644.
        executable: bool,
    },
    /// A symbolic link; its bytes are the target.
    Link,
}

/// One entry of a tree. Names are bytes: git does not promise UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its path below the folder that was walked, without a leading slash.
    pub(crate) path: Vec<u8>,
    /// The kind of entry.
    pub(crate) kind: EntryKind,
    /// The object.
    pub(crate) id: Oid,
}

/// Everything below a folder, parents before children, in the byte order of names.
pub(crate) type Walk = Vec<Entry>;

/// The files of a repository for several threads; `git2` allows a repository on one at a time.
pub(crate) struct Blobs {
    git: Mutex<git2::Repository>,
}

impl Blobs {
    /// The content of a walked file, or the target of a walked symbolic link, by its id.
    ///
    /// # Errors
    /// When the object cannot be read or does not match its id.
    pub(crate) fn read(&self, id: Oid) -> Result<Vec<u8>, SourceError> {
        let git = self.git.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(git.find_blob(id)?.content().to_vec())
    }
}

impl Snapshot<'_> {
    /// Everything below `folder` ("" is the root) that `wanted` accepts. Folders that it does not accept are walked
    /// nevertheless, since a later rule may include one of their files again.
    ///
    /// # Errors
    /// A submodule or an LFS pointer among the accepted entries; a folder that does not exist.
    pub(crate) fn walk(&self, folder: &str, wanted: &dyn Fn(&[u8]) -> bool) -> Result<Walk, SourceError> {
        self.walking(folder, Walking { snapshot: self, wanted, into_submodules: false, found: Vec::new() })
    }

    /// Everything below `folder`, including the contents of submodules, whose objects must be present.
    ///
    /// # Errors
    /// An LFS pointer; a submodule that is not present; a folder that does not exist.
    pub(super) fn walk_with_submodules(&self, folder: &str) -> Result<Walk, SourceError> {
        let wanted = &|_: &[u8]| true;
        self.walking(folder, Walking { snapshot: self, wanted, into_submodules: true, found: Vec::new() })
    }

    fn walking(&self, folder: &str, mut walking: Walking<'_>) -> Result<Walk, SourceError> {
        let mut top = self.tree;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let tree = self.repository.git.find_tree(top)?;
            let Some(entry) = tree.get_name(part) else {
                return Err(SourceError::NoSuchPath { path: folder.to_owned(), commit: self.id.to_string() });
            };
            top = walking.inside(&entry)?.ok_or_else(|| {
                self.unsupported(folder, "not a folder", "give a folder of the repository as context")
            })?;
        }
        walking.descend(top, &mut Vec::new(), 0)?;
        Ok(walking.found)
    }

    fn kind(&self, mode: i32, id: Oid, path: &[u8]) -> Result<EntryKind, SourceError> {
        let path = || String::from_utf8_lossy(path).into_owned();
        match mode {
            FOLDER => Ok(EntryKind::Directory),
            0o120_000 => Ok(EntryKind::Link),
            0o100_644 | 0o100_664 | 0o100_755 => {
                if self.is_lfs_pointer(id)? {
                    return Err(self.unsupported(
                        &path(),
                        "a Git LFS pointer: the commit's id does not cover the file it stands for",
                        "commit the file itself, or leave it out with .dockerignore",
                    ));
                }
                Ok(EntryKind::File { executable: mode == 0o100_755 })
            }
            SUBMODULE => Err(self.unsupported(
                &path(),
                "a submodule: its content was not fetched and not reviewed with this commit",
                "copy the submodule's files into the repository, or leave it out with .dockerignore",
            )),
            _ => {
                Err(self.unsupported(&path(), "of an unknown kind", "use files, folders and symbolic links"))
            }
        }
    }

    fn is_lfs_pointer(&self, id: Oid) -> Result<bool, SourceError> {
        let (size, _) = self.repository.git.odb()?.read_header(id)?;
        if size >= LFS_POINTER_LIMIT || size < LFS_POINTER.len() {
            return Ok(false);
        }
        Ok(self.repository.git.find_blob(id)?.content().starts_with(LFS_POINTER))
    }

    /// Git's checks refuse these names on fetch, but the cache may have the tree from before.
    fn check_name(&self, name: &[u8], path: &[u8]) -> Result<(), SourceError> {
        let bad =
            name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0);
        match bad {
            true => Err(self.unsupported(
                &String::from_utf8_lossy(path),
                "a name that no file can have",
                "run `git fsck` in the repository",
            )),
            false => Ok(()),
        }
    }

    /// A reader of walked entries for any thread.
    ///
    /// # Errors
    /// When the repository cannot be opened again.
    pub(crate) fn blobs(&self) -> Result<Blobs, SourceError> {
        Ok(Blobs { git: Mutex::new(git2::Repository::open_bare(self.repository.git.path())?) })
    }

    /// The content of the file at `path`, if there is one.
    ///
    /// # Errors
    /// [`SourceError::TooLarge`] over `limit` bytes, before they are read; [`SourceError::Unsupported`] for other
    /// entries.
    pub(crate) fn file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let (id, mode) = match self.find(path) {
            Ok(found) => found,
            Err(SourceError::NoSuchPath { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !matches!(mode, 0o100_644 | 0o100_664 | 0o100_755) {
            return Err(self.unsupported(path, "not a plain file", "put a plain file there"));
        }
        let (size, _) = self.repository.git.odb()?.read_header(id)?;
        let size = size as u64;
        if size > limit {
            return Err(SourceError::TooLarge {
                path: path.to_owned(),
                commit: self.id.to_string(),
                size,
                limit,
            });
        }
        Ok(Some(self.repository.git.find_blob(id)?.content().to_vec()))
    }

    fn find(&self, path: &str) -> Result<(Oid, i32), SourceError> {
        let tree = self.repository.git.find_tree(self.tree)?;
        match tree.get_path(std::path::Path::new(path)) {
            Ok(entry) => Ok((entry.id(), entry.filemode())),
            Err(error) if error.code() == git2::ErrorCode::NotFound => {
                Err(SourceError::NoSuchPath { path: path.to_owned(), commit: self.id.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn unsupported(&self, path: &str, what: &'static str, remedy: &'static str) -> SourceError {
        SourceError::Unsupported { path: path.to_owned(), commit: self.id.to_string(), what, remedy }
    }
}

/// A walk through a tree.
struct Walking<'a> {
    snapshot: &'a Snapshot<'a>,
    wanted: &'a dyn Fn(&[u8]) -> bool,
    into_submodules: bool,
    found: Walk,
}

impl Walking<'_> {
    /// The tree of a folder.
    fn inside(&self, entry: &git2::TreeEntry<'_>) -> Result<Option<Oid>, git2::Error> {
        match entry.filemode() {
            FOLDER => Ok(Some(entry.id())),
            SUBMODULE if self.into_submodules => {
                let commit = self.snapshot.repository.git.find_commit(entry.id())?;
                Ok(Some(commit.tree_id()))
            }
            _ => Ok(None),
        }
    }

    fn descend(&mut self, tree: Oid, path: &mut Vec<u8>, depth: usize) -> Result<(), SourceError> {
        let snapshot = self.snapshot;
        if depth > DEPTH_LIMIT {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(snapshot.unsupported(
                &path,
                "too deep in folders",
                "keep folders less than 512 deep",
            ));
        }
        let tree = snapshot.repository.git.find_tree(tree)?;
        for item in &tree {
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(item.name_bytes());
            snapshot.check_name(item.name_bytes(), path)?;
            let inside = self.inside(&item)?;
            if (self.wanted)(path) {
                let kind = match inside {
                    Some(_) => EntryKind::Directory,
                    None => snapshot.kind(item.filemode(), item.id(), path)?,
                };
                self.found.push(Entry { path: path.clone(), kind, id: item.id() });
            }
            if let Some(tree) = inside {
                self.descend(tree, path, depth + 1)?;
            }
            path.truncate(length);
        }
        Ok(())
    }
}
