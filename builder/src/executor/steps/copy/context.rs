//! The build context: a folder of the commit's tree. What the commit only names, submodules and files in LFS, is a part of it
//! as in a checkout, and is fetched once something is about to be copied.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use attestations::Commit;
use attestations::provenance::GitFolder;
use git2::Oid;
use images::layer::{Node, NodeKind};

use super::elsewhere::{Elsewhere, Taken};
use super::git::GitOfContext;
use super::rehearsal::Rehearsal;
use super::tree::held;
use super::{Content, CopyError, CopyRequest, NodeLookup, Tree, Walk, copy, join, show};
use crate::dockerfile::ignore::Ignore;
use crate::source::{self, Blobs, Entry, EntryKind, Form, GitRecipe, Home, Snapshot, SourceError};

/// A folder of a commit's tree without the entries in `.dockerignore`. Each name is stored once.
pub(crate) struct ContextTree {
    whole: Repository,
    commit: Commit,
    epoch: i64,
    git: Option<GitOfContext>,
    /// How what the commit only names is fetched; none where that is refused.
    elsewhere: Option<Elsewhere>,
    /// Whether the commit only names something.
    has_elsewhere: bool,
}

/// A repository's entries and their contents.
struct Repository {
    top: Held,
    blobs: Blobs,
    /// What it says of its submodules, and of its files in LFS; none where these are refused.
    home: Option<Home>,
    /// The path of `top` in the outermost repository, and how many of its bytes are outside of this one.
    place: (Vec<u8>, usize),
}

enum Held {
    Folder(BTreeMap<Box<[u8]>, Held>),
    File {
        executable: bool,
        id: Oid,
        form: Form,
    },
    Link(Oid),
    /// A pointer to a file in LFS.
    LfsPointer {
        executable: bool,
        id: Oid,
    },
    Submodule {
        commit: Oid,
        /// What is in it, once it was fetched; nothing where a checkout leaves it empty.
        entered: OnceLock<Option<Box<Repository>>>,
    },
}

impl ContextTree {
    /// From the walked entries. Folders above an entry are included even if they are ignored themselves.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub(crate) fn new(snapshot: &Snapshot<'_>, walk: Vec<Entry>) -> Result<Self, SourceError> {
        let is_elsewhere =
            |entry: &Entry| matches!(entry.kind, EntryKind::LfsPointer { .. } | EntryKind::Submodule);
        let has_elsewhere = walk.iter().any(is_elsewhere);
        let whole =
            Repository { top: Held::of(walk)?, blobs: snapshot.blobs()?, home: None, place: (Vec::new(), 0) };
        let (commit, epoch) = (snapshot.id().clone(), snapshot.committed_at());
        Ok(Self { whole, commit, epoch, git: None, elsewhere: None, has_elsewhere })
    }

    /// The same with a `.git`, unless `ignore` leaves it out.
    pub(crate) fn with_git(self, recipe: GitRecipe, ignore: Ignore) -> Self {
        Self { git: GitOfContext::new(recipe, ignore), ..self }
    }

    /// The same with what the commit only names. `folder` is the context's in the repository.
    ///
    /// # Errors
    /// When `.gitmodules` or `.lfsconfig` cannot be read.
    pub(crate) fn with_elsewhere(
        mut self,
        snapshot: &Snapshot<'_>,
        folder: &str,
        elsewhere: Elsewhere,
    ) -> Result<Self, SourceError> {
        if self.has_elsewhere {
            self.whole.home = Some(Home::of(snapshot)?);
            self.whole.place = (folder.as_bytes().to_vec(), 0);
            self.elsewhere = Some(elsewhere);
        }
        Ok(self)
    }

    /// What of the repository was in the `.git` that something took.
    pub(crate) fn git_taken(&self) -> Option<GitFolder> {
        self.git.as_ref()?.taken()
    }

    /// What of that which the commit only names was taken.
    pub(crate) fn taken(&self) -> Taken {
        self.elsewhere.as_ref().map(Elsewhere::taken).unwrap_or_default()
    }

    /// Fetches what the commit only names and a copy takes. It is copied to nowhere, so that exactly that is taken.
    ///
    /// # Errors
    /// What cannot be fetched; sources that are not there.
    pub(crate) fn fetch_for(&self, request: &CopyRequest<'_>) -> Result<(), CopyError> {
        let Some(elsewhere) = &self.elsewhere else { return Ok(()) };
        let request = CopyRequest { destination: "/", archives: false, ..request.clone() };
        copy(self, &mut Rehearsal, &request)?;
        Ok(elsewhere.fetch_files()?)
    }

    /// The context's `.git`, and a path in it.
    fn in_git<'p>(&self, path: &'p [u8]) -> Option<(&GitOfContext, &'p [u8])> {
        let (git, rest) = (self.git.as_ref()?, path.strip_prefix(GitOfContext::NAME)?);
        if rest.is_empty() { Some((git, rest)) } else { Some((git, rest.strip_prefix(b"/")?)) }
    }

    /// The entry at a path, and the repository that it is in.
    fn find(&self, path: &[u8]) -> Result<Option<(&Repository, &Held)>, CopyError> {
        let (mut repository, mut at) = (&self.whole, &self.whole.top);
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/').filter(|_| !path.is_empty()) {
            if let Held::Submodule { .. } = at {
                match self.inside(repository, at, &path[..end])? {
                    Some(inner) => (repository, at) = (inner, &inner.top),
                    None => return Ok(None),
                }
            }
            let Held::Folder(children) = at else { return Ok(None) };
            let Some(child) = children.get(name) else { return Ok(None) };
            at = child;
            end += usize::from(end > 0) + name.len();
        }
        Ok(Some((repository, at)))
    }

    /// What is in a submodule, which is fetched now if it was not before.
    fn inside<'s>(
        &'s self,
        outer: &Repository,
        held: &'s Held,
        path: &[u8],
    ) -> Result<Option<&'s Repository>, CopyError> {
        let Held::Submodule { commit, entered } = held else { return Ok(None) };
        if entered.get().is_none() {
            let (Some(elsewhere), Some(home)) = (&self.elsewhere, &outer.home) else {
                return Err(self.refused(path, "a submodule: its content was not fetched"));
            };
            let full = join(&self.whole.place.0, path);
            let own = full.get(outer.place.1..).unwrap_or_default();
            let place = source::Place { own, full: &full, commit: *commit };
            let outside = self.whole.place.0.len() + usize::from(!self.whole.place.0.is_empty());
            let found = elsewhere.enter(home, place, outside)?;
            let inner = match found {
                None => None,
                Some(found) => Some(Box::new(Repository {
                    top: Held::of(found.walk)?,
                    blobs: found.blobs,
                    home: Some(found.home),
                    place: (full.clone(), full.len() + 1),
                })),
            };
            // Another thread may have been faster: both fetched the same commit.
            let _ = entered.set(inner);
        }
        Ok(entered.get().and_then(Option::as_deref))
    }

    /// The object of a file or symbolic link, and how its bytes come from it.
    fn object(&self, path: &[u8]) -> Result<(&Blobs, Oid, &Form), CopyError> {
        let none = || CopyError::NoSource { path: show(path), origin: "the context" };
        let (repository, held) = self.find(path)?.ok_or_else(none)?;
        match held {
            Held::File { id, form, .. } => Ok((&repository.blobs, *id, form)),
            Held::Link(id) => Ok((&repository.blobs, *id, &Form::Blob)),
            _ => Err(none()),
        }
    }

    fn refused(&self, path: &[u8], what: &'static str) -> CopyError {
        let remedy = "copy what it stands for into the repository, or ADD a folder without it";
        let (path, commit) = (String::from_utf8_lossy(path).into_owned(), self.commit.to_string());
        SourceError::Unsupported { path, commit, what, remedy }.into()
    }

    /// The content of a file in LFS, which is fetched with the next ones.
    fn lfs_content<'t>(
        &'t self,
        repository: &Repository,
        id: Oid,
        path: &[u8],
    ) -> Result<Content<'t>, CopyError> {
        let (Some(elsewhere), Some(home)) = (&self.elsewhere, &repository.home) else {
            let what = "a Git LFS pointer: the file that it stands for is not in the commit";
            return Err(self.refused(path, what));
        };
        let pointer = repository.blobs.read(id, &Form::Blob)?;
        let full = join(&self.whole.place.0, path);
        let pointer = elsewhere.want(&home.lfs, &pointer, &full)?;
        Ok(Box::new(move || Ok((pointer.size, elsewhere.content(pointer, &full)?))))
    }
}

impl Held {
    fn empty() -> Self {
        Self::Folder(BTreeMap::new())
    }

    fn of(walk: Vec<Entry>) -> Result<Self, SourceError> {
        let mut top = Self::empty();
        for Entry { path, kind, id, form } in walk {
            let held = match kind {
                EntryKind::Directory => Self::empty(),
                EntryKind::File { executable } => Self::File { executable, id, form },
                EntryKind::Link => Self::Link(id),
                EntryKind::LfsPointer { executable } => Self::LfsPointer { executable, id },
                EntryKind::Submodule => Self::Submodule { commit: id, entered: OnceLock::new() },
            };
            top.put(&path, held)?;
        }
        Ok(top)
    }

    /// Adds an entry, and missing folders above it.
    fn put(&mut self, path: &[u8], held: Held) -> Result<(), SourceError> {
        let twice = || git2::Error::from_str("a tree has two entries of one name");
        let mut at = self;
        for name in path.split(|byte| *byte == b'/') {
            let Held::Folder(children) = at else { return Err(twice().into()) };
            at = children.entry(name.into()).or_insert_with(Held::empty);
        }
        match (&*at, &held) {
            (Held::Folder(_), Held::Folder(_)) => {}
            (Held::Folder(children), _) if children.is_empty() => *at = held,
            _ => return Err(twice().into()),
        }
        Ok(())
    }
}

impl NodeLookup for ContextTree {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        if let Some((git, inner)) = self.in_git(path) {
            let node = |kind, mode| Node { kind, mode, owner: (0, 0), mtime: self.epoch, shared: None };
            return Ok(git.kind(inner)?.map(|kind| match kind {
                NodeKind::Directory => node(kind, 0o755),
                _ => node(kind, 0o644),
            }));
        }
        let Some((_, held)) = self.find(path)? else { return Ok(None) };
        let (kind, mode) = match held {
            Held::Folder(_) | Held::Submodule { .. } => (NodeKind::Directory, 0o755),
            Held::File { executable: true, .. } | Held::LfsPointer { executable: true, .. } => {
                (NodeKind::File, 0o755)
            }
            Held::File { .. } | Held::LfsPointer { .. } => (NodeKind::File, 0o644),
            Held::Link(_) => (NodeKind::Link, 0o777),
        };
        Ok(Some(Node { kind, mode, owner: (0, 0), mtime: self.epoch, shared: None }))
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        let (blobs, id, form) = self.object(path)?;
        Ok(blobs.read(id, form)?)
    }
}

impl Walk for ContextTree {
    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        if let Some((git, inner)) = self.in_git(path) {
            return git.children(inner);
        }
        let held = match self.find(path)? {
            Some((repository, held @ Held::Submodule { .. })) => {
                self.inside(repository, held, path)?.map(|inner| &inner.top)
            }
            found => found.map(|(_, held)| held),
        };
        let mut names: Vec<Vec<u8>> = match held {
            Some(Held::Folder(children)) => children.keys().map(|name| name.to_vec()).collect(),
            _ => Vec::new(),
        };
        if path.is_empty() && self.git.is_some() {
            names.push(GitOfContext::NAME.to_vec());
            names.sort();
        }
        Ok(names)
    }
}

impl Tree for ContextTree {
    fn name(&self) -> &'static str {
        "the context (is it committed, and not left out by .dockerignore?)"
    }

    fn content<'t>(&'t self, path: &[u8]) -> Content<'t> {
        if let Some((git, inner)) = self.in_git(path) {
            let inner = inner.to_vec();
            return Box::new(move || git.content(&inner));
        }
        let opened = match self.find(path) {
            Ok(Some((repository, Held::LfsPointer { id, .. }))) => self.lfs_content(repository, *id, path),
            _ => self.object(path).map(|(blobs, id, form)| -> Content<'t> {
                Box::new(move || Ok(held(blobs.read(id, form)?)))
            }),
        };
        opened.unwrap_or_else(|missing| Box::new(|| Err(missing)))
    }
}
