//! The tree of a commit: entries by path, walks, and the contents of files.

use std::sync::{Mutex, PoisonError};

use git2::Oid;

use super::attributes::{self, Attributes, Form};
use super::{Snapshot, SourceError, lfs};

/// Deeper trees are refused; git itself stops at about this depth.
pub(super) const DEPTH_LIMIT: usize = 512;
const FOLDER: i32 = 0o040_000;
const LINK: i32 = 0o120_000;
/// As many symbolic links as Linux follows.
const LINK_LIMIT: usize = 40;
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
    /// A Git LFS pointer, which stands for a file elsewhere.
    LfsPointer {
        /// Mode 100755 instead of 100644.
        executable: bool,
    },
    /// A commit of another repository.
    Submodule,
}

/// One entry of a tree. Names are bytes: git does not promise UTF-8.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its path below the folder that was walked, without a leading slash.
    pub(crate) path: Vec<u8>,
    /// The kind of entry.
    pub(crate) kind: EntryKind,
    /// The object.
    pub(crate) id: Oid,
    /// How a file's bytes come from the object.
    pub(crate) form: Form,
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
    /// When the object cannot be read or does not match its id, or git does not convert it.
    pub(crate) fn read(&self, id: Oid, form: &Form) -> Result<Vec<u8>, SourceError> {
        match form {
            Form::Checkout(attributes, path) => attributes.convert(id, path),
            Form::Blob => {
                let git = self.git.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(git.find_blob(id)?.content().to_vec())
            }
        }
    }
}

impl Snapshot<'_> {
    /// Everything below `folder` ("" is the root) that `wanted` accepts. Folders that it does not accept are walked
    /// nevertheless, since a later rule may include one of their files again.
    ///
    /// # Errors
    /// A folder that does not exist.
    pub(crate) fn walk(&self, folder: &str, wanted: &dyn Fn(&[u8]) -> bool) -> Result<Walk, SourceError> {
        Walking::new(self, wanted, Submodules::Named).all_below(folder)
    }

    /// Everything below `folder`, including the contents of submodules, whose objects must be present.
    ///
    /// # Errors
    /// A submodule that is not present; a folder that does not exist.
    pub(super) fn walk_with_submodules(&self, folder: &str) -> Result<Walk, SourceError> {
        Walking::new(self, &|_| true, Submodules::Entered).all_below(folder)
    }

    fn kind(&self, mode: i32, id: Oid, path: &[u8]) -> Result<EntryKind, SourceError> {
        let path = || String::from_utf8_lossy(path).into_owned();
        match mode {
            FOLDER => Ok(EntryKind::Directory),
            LINK => Ok(EntryKind::Link),
            0o100_644 | 0o100_664 | 0o100_755 => Ok(match self.is_lfs_pointer(id)? {
                true => EntryKind::LfsPointer { executable: mode == 0o100_755 },
                false => EntryKind::File { executable: mode == 0o100_755 },
            }),
            SUBMODULE => Ok(EntryKind::Submodule),
            _ => {
                Err(self.unsupported(&path(), "of an unknown kind", "use files, folders and symbolic links"))
            }
        }
    }

    fn is_lfs_pointer(&self, id: Oid) -> Result<bool, SourceError> {
        let (size, _) = self.repository.git.odb()?.read_header(id)?;
        if size >= lfs::POINTER_LIMIT || size < lfs::POINTER.len() {
            return Ok(false);
        }
        Ok(self.repository.git.find_blob(id)?.content().starts_with(lfs::POINTER))
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

    /// The content of the file at `path`, if there is one. Symbolic links are followed within the tree.
    ///
    /// # Errors
    /// [`SourceError::TooLarge`] over `limit` bytes, before they are read; [`SourceError::Unsupported`] for other
    /// entries, and for a link that leads out of the tree, to nothing or in a circle.
    pub(crate) fn file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let (id, mode) = match self.find(path)? {
            Some(found) => found,
            None => return Ok(None),
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

    /// The object at a path and its mode, with symbolic links followed.
    fn find(&self, path: &str) -> Result<Option<(Oid, i32)>, SourceError> {
        let bad_link =
            |what| self.unsupported(path, what, "let it lead to a plain file of the same repository");
        let git = &self.repository.git;
        let mut rest: Vec<Vec<u8>> = parts(path.as_bytes());
        // The folders that lead to it.
        let mut at: Vec<Oid> = Vec::new();
        let (mut found, mut links) = ((self.tree, FOLDER), 0);
        while let Some(part) = rest.pop() {
            if part == b".." {
                at.pop().ok_or_else(|| bad_link("a link that leads out of the repository"))?;
                found = (at.last().copied().unwrap_or(self.tree), FOLDER);
                continue;
            }
            let entry = match found.1 {
                FOLDER => git.find_tree(found.0)?.get_name_bytes(&part).map(|it| (it.id(), it.filemode())),
                _ => None,
            };
            let Some((id, mode)) = entry else {
                return match links {
                    0 => Ok(None),
                    _ => Err(bad_link("a link to nothing")),
                };
            };
            if mode == LINK {
                links += 1;
                let blob = git.find_blob(id)?;
                match blob.content() {
                    _ if links > LINK_LIMIT => return Err(bad_link("a link that leads in a circle")),
                    [b'/', ..] => return Err(bad_link("a link that leads out of the repository")),
                    target => rest.extend(parts(target)),
                }
                continue;
            }
            at.push(id);
            found = (id, mode);
        }
        Ok(Some(found))
    }

    fn unsupported(&self, path: &str, what: &'static str, remedy: &'static str) -> SourceError {
        SourceError::Unsupported { path: path.to_owned(), commit: self.id.to_string(), what, remedy }
    }
}

/// What a walk does at a submodule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Submodules {
    Named,
    Entered,
}

/// A walk through a tree.
struct Walking<'a> {
    snapshot: &'a Snapshot<'a>,
    wanted: &'a dyn Fn(&[u8]) -> bool,
    submodules: Submodules,
    found: Walk,
    /// The repository of each entry, as a place in `roots`.
    of: Vec<usize>,
    roots: Vec<Root>,
}

/// A repository that a walk comes through: the outermost one or a submodule.
struct Root {
    /// Where the walk begins in it.
    above: Vec<u8>,
    /// How many bytes of the paths that are walked lie outside of it.
    outside: usize,
    /// Its files of attributes, by their folders.
    attributes: Vec<(Vec<u8>, Oid)>,
    /// Whether they may say that a checkout converts files.
    converts: bool,
}

impl Root {
    fn new(outside: usize) -> Self {
        Self { above: Vec::new(), outside, attributes: Vec::new(), converts: false }
    }

    /// A walked path as the repository itself has it.
    fn path(&self, walked: &[u8]) -> Vec<u8> {
        match walked.get(self.outside..).unwrap_or_default() {
            b"" => self.above.clone(),
            inner => join(&self.above, inner),
        }
    }
}

/// The parts of a path, the last one first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let named = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    named.rev().map(<[u8]>::to_vec).collect()
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

impl<'a> Walking<'a> {
    fn new(
        snapshot: &'a Snapshot<'a>,
        wanted: &'a dyn Fn(&[u8]) -> bool,
        submodules: Submodules,
    ) -> Walking<'a> {
        let roots = vec![Root::new(0)];
        Self { snapshot, wanted, submodules, found: Vec::new(), of: Vec::new(), roots }
    }

    fn all_below(mut self, folder: &str) -> Result<Walk, SourceError> {
        let mut top = self.snapshot.tree;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let tree = self.snapshot.repository.git.find_tree(top)?;
            self.note_attributes(0, &[], &tree)?;
            let Some(entry) = tree.get_name(part) else {
                let (path, commit) = (folder.to_owned(), self.snapshot.id.to_string());
                return Err(SourceError::NoSuchPath { path, commit });
            };
            top = self.inside(&entry)?.ok_or_else(|| {
                self.snapshot.unsupported(
                    folder,
                    "not a folder",
                    "give a folder of the repository as context",
                )
            })?;
            match entry.filemode() {
                SUBMODULE => self.roots = vec![Root::new(0)],
                _ => self.roots[0].above = join(&self.roots[0].above, part.as_bytes()),
            }
        }
        self.descend(top, &mut Vec::new(), 0, 0)?;
        self.note_forms()?;
        Ok(self.found)
    }

    /// Asks git about the files of every repository in which something may be converted.
    fn note_forms(&mut self) -> Result<(), SourceError> {
        for (number, root) in self.roots.iter().enumerate().filter(|(_, root)| root.converts) {
            let is_file = |entry: &Entry| matches!(entry.kind, EntryKind::File { .. });
            let mut files: Vec<&mut Entry> = self
                .found
                .iter_mut()
                .zip(&self.of)
                .filter(|(entry, of)| **of == number && is_file(entry))
                .map(|(entry, _)| entry)
                .collect();
            let paths: Vec<Vec<u8>> = files.iter().map(|entry| root.path(&entry.path)).collect();
            let attributes = Attributes::of(&self.snapshot.repository.git, &root.attributes, &paths)?;
            for (entry, path) in files.iter_mut().zip(&paths) {
                entry.form = attributes.form(path);
            }
        }
        Ok(())
    }

    /// Reads the file of attributes in a folder, if there is one.
    fn note_attributes(
        &mut self,
        root: usize,
        path: &[u8],
        folder: &git2::Tree<'_>,
    ) -> Result<(), SourceError> {
        let git = &self.snapshot.repository.git;
        let Some(entry) = folder.get_name_bytes(attributes::FILE) else { return Ok(()) };
        let is_file = matches!(entry.filemode(), 0o100_644 | 0o100_755);
        if is_file && git.odb()?.read_header(entry.id())?.0 <= attributes::SIZE_LIMIT {
            let converts = attributes::may_convert(git.find_blob(entry.id())?.content());
            let root = &mut self.roots[root];
            root.converts |= converts;
            root.attributes.push((root.path(path), entry.id()));
        }
        Ok(())
    }

    /// The tree of a folder.
    fn inside(&self, entry: &git2::TreeEntry<'_>) -> Result<Option<Oid>, git2::Error> {
        match (entry.filemode(), self.submodules) {
            (FOLDER, _) => Ok(Some(entry.id())),
            (SUBMODULE, Submodules::Entered) => {
                let commit = self.snapshot.repository.git.find_commit(entry.id())?;
                Ok(Some(commit.tree_id()))
            }
            _ => Ok(None),
        }
    }

    fn descend(
        &mut self,
        tree: Oid,
        path: &mut Vec<u8>,
        depth: usize,
        root: usize,
    ) -> Result<(), SourceError> {
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
        self.note_attributes(root, path, &tree)?;
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
                self.found.push(Entry { path: path.clone(), kind, id: item.id(), form: Form::Blob });
                self.of.push(root);
            }
            if let Some(tree) = inside {
                let of = match item.filemode() {
                    SUBMODULE => {
                        self.roots.push(Root::new(path.len() + 1));
                        self.roots.len() - 1
                    }
                    _ => root,
                };
                self.descend(tree, path, depth + 1, of)?;
            }
            path.truncate(length);
        }
        Ok(())
    }
}
