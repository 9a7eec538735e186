//! Trees to copy from. Paths are bytes without a leading slash; "" is the top.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::{CopyError, base_name, join};
use crate::source::{Blobs, Entry, EntryKind, Snapshot, SourceError};

/// As many links as Linux follows.
const LINK_LIMIT: usize = 40;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A folder.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A pipe.
    Fifo,
    /// A device or socket.
    Special,
}

/// What is known of a path without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Last change of contents, in whole seconds since 1970.
    pub mtime: i64,
    /// Device and inode of a file that has several names.
    pub shared: Option<(u64, u64)>,
}

/// Something to copy from. No method follows a link.
pub trait Tree {
    /// For messages: "the context", "the stage".
    fn name(&self) -> &'static str;
    /// What is at `path`.
    ///
    /// # Errors
    /// When it cannot be read; a path that is not there is no error.
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError>;
    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError>;
    /// Writes a file's bytes and extended attributes.
    ///
    /// # Errors
    /// When either side fails.
    fn write(&self, path: &[u8], into: &mut File) -> Result<(), CopyError>;
    /// A link's target.
    ///
    /// # Errors
    /// When it cannot be read.
    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError>;
    /// Gives a folder's extended attributes to another.
    ///
    /// # Errors
    /// When either side fails.
    fn give_attributes(&self, _folder: &[u8], _to: &OwnedFd) -> Result<(), CopyError> {
        Ok(())
    }
    /// Whether a folder is there only for what lies in it, so that one that exists keeps its owner.
    fn is_on_the_way(&self, _folder: &[u8]) -> bool {
        false
    }
}

/// Where `path` leads within `tree` when every link is followed. What is missing keeps its name, so that the result
/// can also be a place to make something.
///
/// # Errors
/// [`CopyError::Loop`] after 40 links.
pub fn lookup(tree: &dyn Tree, path: &[u8]) -> Result<Vec<u8>, CopyError> {
    let mut rest: Vec<Vec<u8>> = parts(path);
    rest.reverse();
    let mut at: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == b".." {
            at.pop();
            continue;
        }
        at.push(part);
        let here = at.join(&b'/');
        if let Some(Node { kind: NodeKind::Link, .. }) = tree.node(&here)? {
            links += 1;
            if links > LINK_LIMIT {
                return Err(CopyError::Loop(super::show(path)));
            }
            let target = tree.target(&here)?;
            at.pop();
            if target.first() == Some(&b'/') {
                at.clear();
            }
            rest.extend(parts(&target).into_iter().rev());
        }
    }
    Ok(at.join(&b'/'))
}

fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

/// The context: what `.dockerignore` leaves of a folder of the commit's tree.
pub struct ContextTree {
    blobs: Blobs,
    entries: BTreeMap<Vec<u8>, Option<Entry>>,
    folders: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    epoch: i64,
}

impl ContextTree {
    /// Of the walked entries; folders above an entry are there even when they are left out themselves.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub fn new(snapshot: &Snapshot<'_>, walk: Vec<Entry>) -> Result<Self, SourceError> {
        let mut entries: BTreeMap<Vec<u8>, Option<Entry>> = BTreeMap::from([(Vec::new(), None)]);
        for entry in walk {
            for (at, _) in entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                entries.entry(entry.path[..at].to_vec()).or_insert(None);
            }
            entries.insert(entry.path.clone(), Some(entry));
        }
        let mut folders: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for path in entries.keys().filter(|path| !path.is_empty()) {
            let name = base_name(path);
            let folder = path[..path.len() - name.len()].strip_suffix(b"/").unwrap_or_default().to_vec();
            folders.entry(folder).or_default().push(name);
        }
        Ok(Self { blobs: snapshot.blobs()?, entries, folders, epoch: snapshot.committed_at() })
    }

    fn entry(&self, path: &[u8]) -> Result<&Entry, CopyError> {
        let missing = || CopyError::NoSource { path: super::show(path), origin: "the context" };
        self.entries.get(path).and_then(Option::as_ref).ok_or_else(missing)
    }
}

impl Tree for ContextTree {
    fn name(&self) -> &'static str {
        "the context (is it committed, and not left out by .dockerignore?)"
    }

    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        let Some(entry) = self.entries.get(path) else { return Ok(None) };
        let (kind, mode) = match entry.as_ref().map(|entry| entry.kind) {
            None | Some(EntryKind::Directory) => (NodeKind::Directory, 0o755),
            Some(EntryKind::File { executable: true }) => (NodeKind::File, 0o755),
            Some(EntryKind::File { executable: false }) => (NodeKind::File, 0o644),
            Some(EntryKind::Link) => (NodeKind::Link, 0o777),
        };
        Ok(Some(Node { kind, mode, owner: (0, 0), mtime: self.epoch, shared: None }))
    }

    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        Ok(self.folders.get(path).cloned().unwrap_or_default())
    }

    fn write(&self, path: &[u8], into: &mut File) -> Result<(), CopyError> {
        let bytes = self.blobs.read(self.entry(path)?)?;
        into.write_all(&bytes).map_err(|error| CopyError::io("writing", path, error))
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        Ok(self.blobs.read(self.entry(path)?)?)
    }
}

/// A root directory of this machine, such as another stage's.
pub struct RootTree {
    top: OwnedFd,
}

impl RootTree {
    /// Opens the directory.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(root: &Path) -> Result<Self, CopyError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(root, flags, Mode::empty()) {
            Ok(top) => Ok(Self { top }),
            Err(error) => Err(CopyError::io("opening the root", b"", error)),
        }
    }

    /// An open folder as a root of its own.
    pub(super) fn within(top: OwnedFd) -> Self {
        Self { top }
    }

    fn at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        // With NOFOLLOW and PATH the last part may be a link, which is then the thing opened.
        rustix::fs::openat2(
            &self.top,
            path,
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            resolve,
        )
    }

    /// A folder's descriptor, for the operations that need one.
    pub(super) fn folder(&self, path: &[u8]) -> Result<OwnedFd, CopyError> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| CopyError::io("opening", path, error))
    }

    fn file(&self, path: &[u8]) -> Result<OwnedFd, CopyError> {
        self.at(path, OFlags::RDONLY).map_err(|error| CopyError::io("reading", path, error))
    }

    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), rustix::io::Errno> {
        let cut = path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = cut.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        Ok((self.at(folder, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    fn stat(&self, path: &[u8]) -> Result<rustix::fs::Stat, rustix::io::Errno> {
        if path.is_empty() {
            return rustix::fs::fstat(&self.top);
        }
        let (folder, name) = self.parent(path)?;
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl Tree for RootTree {
    fn name(&self) -> &'static str {
        "the stage"
    }

    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        use rustix::io::Errno;
        let stat = match self.stat(path) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(CopyError::io("looking at", path, error)),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => NodeKind::Directory,
            FileType::RegularFile => NodeKind::File,
            FileType::Symlink => NodeKind::Link,
            FileType::Fifo => NodeKind::Fifo,
            _ => NodeKind::Special,
        };
        let shared = (kind == NodeKind::File && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        Ok(Some(Node {
            kind,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            mtime: stat.st_mtime,
            shared,
        }))
    }

    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        let failed = |error| CopyError::io("listing", path, error);
        let folder = self.folder(path)?;
        let mut names = Vec::new();
        for item in rustix::fs::Dir::read_from(folder).map_err(failed)? {
            let name = item.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn write(&self, path: &[u8], into: &mut File) -> Result<(), CopyError> {
        let mut from = File::from(self.file(path)?);
        let copied = std::io::copy(&mut Read::by_ref(&mut from), into);
        copied.map_err(|error| CopyError::io("copying", path, error))?;
        copy_attributes(&from, into).map_err(|error| CopyError::io("copying the attributes of", path, error))
    }

    fn give_attributes(&self, folder: &[u8], to: &OwnedFd) -> Result<(), CopyError> {
        copy_attributes(self.folder(folder)?, to)
            .map_err(|error| CopyError::io("copying the attributes of", folder, error))
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        let read = || {
            let (folder, name) = self.parent(path)?;
            rustix::fs::readlinkat(folder, name, Vec::new())
        };
        read()
            .map(std::ffi::CString::into_bytes)
            .map_err(|error| CopyError::io("reading the link", path, error))
    }
}

/// Extended attributes, among them file capabilities. Those that belong to the machine are not copied.
fn copy_attributes(from: impl AsFd, into: impl AsFd) -> Result<(), rustix::io::Errno> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(&from, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut value = vec![0_u8; 64 * 1024];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name == b"security.selinux" {
            continue;
        }
        let length = rustix::fs::fgetxattr(&from, name, &mut value)?;
        rustix::fs::fsetxattr(&into, name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

/// The path of `name` in `folder`.
pub(super) fn child(folder: &[u8], name: &[u8]) -> Vec<u8> {
    join(folder, name)
}
