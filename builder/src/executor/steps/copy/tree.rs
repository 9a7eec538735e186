//! Trees to copy from. Paths are bytes without a leading slash; "" is the root.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use images::layer::{Node, NodeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::{CopyError, join};

/// As many symbolic links as Linux follows.
const LINK_LIMIT: usize = 40;

/// A file's content, opened only when it is written: its size and a reader.
pub(crate) type Content<'t> = Box<dyn FnOnce() -> Result<(u64, Box<dyn Read>), CopyError> + 't>;

/// Path lookup in a root. No method follows a symbolic link.
pub(crate) trait NodeLookup {
    /// The entry at `path`.
    ///
    /// # Errors
    /// When it cannot be read; a missing path is not an error.
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError>;
    /// A symbolic link's target.
    ///
    /// # Errors
    /// When it cannot be read.
    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError>;
}

/// A tree whose folders can be listed.
pub(crate) trait Walk: NodeLookup {
    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError>;
    /// Whether a folder is there only because it contains others; an existing folder keeps its owner then.
    fn is_on_the_way(&self, _folder: &[u8]) -> bool {
        false
    }
}

/// A tree to copy from.
pub(crate) trait Tree: Walk {
    /// For messages: "the context", "the stage".
    fn name(&self) -> &'static str;
    /// A file's content.
    fn content<'t>(&'t self, path: &[u8]) -> Content<'t>;
    /// The extended attributes of a file or folder, without machine-specific ones.
    ///
    /// # Errors
    /// When they cannot be read.
    fn xattrs(&self, _path: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, CopyError> {
        Ok(BTreeMap::new())
    }
}

/// Resolves `path` within a root with all symbolic links followed. Missing parts keep their names, so the result can
/// also be a path to create.
///
/// # Errors
/// [`CopyError::Loop`] after 40 links.
pub(crate) fn lookup(tree: &dyn NodeLookup, path: &[u8]) -> Result<Vec<u8>, CopyError> {
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

/// A content in memory.
pub(crate) fn held(bytes: Vec<u8>) -> (u64, Box<dyn Read>) {
    (bytes.len() as u64, Box::new(Cursor::new(bytes)))
}

/// A root directory on this machine, such as another stage's.
pub(crate) struct RootTree {
    top: OwnedFd,
}

impl RootTree {
    /// Opens the directory.
    ///
    /// # Errors
    /// When it does not exist.
    pub(crate) fn open(root: &Path) -> Result<Self, CopyError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(root, flags, Mode::empty()) {
            Ok(top) => Ok(Self { top }),
            Err(error) => Err(CopyError::io("opening the root", b"", error)),
        }
    }

    fn at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        // With NOFOLLOW and PATH, a symbolic link as the last part is opened itself.
        rustix::fs::openat2(
            &self.top,
            path,
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            resolve,
        )
    }

    /// Opens a folder for reading, as some operations need.
    pub(crate) fn folder(&self, path: &[u8]) -> Result<OwnedFd, CopyError> {
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

impl NodeLookup for RootTree {
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

impl Walk for RootTree {
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
}

impl Tree for RootTree {
    fn name(&self) -> &'static str {
        "the stage"
    }

    fn content<'t>(&'t self, path: &[u8]) -> Content<'t> {
        let path = path.to_vec();
        Box::new(move || opened(File::from(self.file(&path)?), &path))
    }

    fn xattrs(&self, path: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, CopyError> {
        xattrs(self.file(path)?).map_err(|error| CopyError::io("reading the attributes of", path, error))
    }
}

/// The content of an open file.
pub(crate) fn opened(file: File, path: &[u8]) -> Result<(u64, Box<dyn Read>), CopyError> {
    let metadata = file.metadata().map_err(|error| CopyError::io("looking at", path, error))?;
    Ok((metadata.len(), Box::new(file)))
}

/// The extended attributes, including file capabilities, without machine-specific ones.
fn xattrs(from: impl AsFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, rustix::io::Errno> {
    let mut found = BTreeMap::new();
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(&from, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(found),
        Err(error) => return Err(error),
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if is_the_machines(name) {
            continue;
        }
        value.resize(64 * 1024, 0);
        let length = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    Ok(found)
}

/// Whether an attribute belongs to the machine or to the overlay, and not to an image.
pub(crate) fn is_the_machines(name: &[u8]) -> bool {
    [&b"trusted.overlay."[..], b"user.overlay.", b"security.selinux"].iter().any(|it| name.starts_with(it))
}

/// The path of `name` in `folder`.
pub(crate) fn child(folder: &[u8], name: &[u8]) -> Vec<u8> {
    join(folder, name)
}
