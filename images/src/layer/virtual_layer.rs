//! A virtual layer: its entries are kept in memory, without the contents of files and without a directory on disk.

use std::collections::BTreeMap;

use super::node::{Node, NodeKind, Seen};

/// The entries of a layer that was written to the store, but not to a directory.
#[derive(Debug, Default)]
pub struct VirtualLayer {
    /// The root first.
    pub(super) inodes: Vec<Inode>,
}

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: i64,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The number of its hard links.
    pub(super) names: u32,
}

#[derive(Debug)]
pub(super) enum What {
    Directory { children: BTreeMap<Vec<u8>, usize>, origin: Origin },
    File(FileContent),
    Link(Vec<u8>),
    Fifo,
}

/// What is known of a file's content once it was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FileContent {
    /// Its size in bytes.
    pub(super) size: u64,
    /// Its first bytes; zeros where it has fewer.
    pub(super) start: [u8; 4],
}

/// The relation of a directory to the lower layers.
#[derive(Debug)]
pub(super) enum Origin {
    /// There is nothing at its path below.
    New,
    /// It hides a lower directory.
    Instead,
    /// It extends a lower directory with these attributes.
    Over { mode: u32, owner: (u32, u32), xattrs: BTreeMap<Vec<u8>, Vec<u8>> },
}

pub(super) const ROOT: usize = 0;
/// The mode of a root, and the default one of a directory.
pub(super) const DIRECTORY_MODE: u32 = 0o755;

impl VirtualLayer {
    pub(super) fn new() -> Self {
        let mode = DIRECTORY_MODE;
        let origin = Origin::Over { mode, owner: (0, 0), xattrs: BTreeMap::new() };
        let what = What::Directory { children: BTreeMap::new(), origin };
        Self {
            inodes: vec![Inode { what, mode, owner: (0, 0), mtime: 0, xattrs: BTreeMap::new(), names: 1 }],
        }
    }

    /// Whether it has an entry for a path, or hides it.
    pub fn mentions(&self, path: &std::path::Path) -> bool {
        !matches!(self.look(path.as_os_str().as_encoded_bytes()), Seen::Through)
    }

    pub(super) fn look(&self, path: &[u8]) -> Seen<usize> {
        let mut at = ROOT;
        let mut is_through = true;
        for name in parts(path) {
            let What::Directory { children, origin } = &self.inodes[at].what else { return Seen::Nothing };
            is_through &= matches!(origin, Origin::Over { .. });
            match children.get(name) {
                Some(child) => at = *child,
                None if is_through => return Seen::Through,
                None => return Seen::Nothing,
            }
        }
        Seen::This(at)
    }

    /// Whether lower content is visible in the directory at `path`, whether or not this layer has an entry for it.
    pub(super) fn lets_through(&self, path: &[u8]) -> bool {
        let mut at = ROOT;
        for name in parts(path).map(Some).chain([None]) {
            let What::Directory { children, origin: Origin::Over { .. } } = &self.inodes[at].what else {
                return false;
            };
            match name.and_then(|name| children.get(name)) {
                Some(child) => at = *child,
                None => break,
            }
        }
        true
    }

    pub(super) fn node(&self, at: usize) -> Node {
        let Inode { what, mode, owner, mtime, .. } = &self.inodes[at];
        let kind = match what {
            What::Directory { .. } => NodeKind::Directory,
            What::File(_) => NodeKind::File,
            What::Link(_) => NodeKind::Link,
            What::Fifo => NodeKind::Fifo,
        };
        Node { kind, mode: *mode, owner: *owner, mtime: *mtime, shared: None }
    }

    pub(super) fn target(&self, at: usize) -> &[u8] {
        match &self.inodes[at].what {
            What::Link(target) => target,
            _ => b"",
        }
    }

    pub(super) fn xattrs(&self, at: usize) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.inodes[at].xattrs
    }

    pub(super) fn children(&mut self, at: usize) -> Option<&mut BTreeMap<Vec<u8>, usize>> {
        match &mut self.inodes[at].what {
            What::Directory { children, .. } => Some(children),
            _ => None,
        }
    }
}

pub(super) fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}
