//! The metadata of a path in a layer.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A device or socket.
    Special,
}

/// The metadata of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its kind.
    pub kind: NodeKind,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Modification time, in whole seconds since 1970.
    pub mtime: i64,
    /// Device and inode of a file with several hard links, where they are known.
    pub shared: Option<(u64, u64)>,
}

impl Node {
    /// From file system metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let file_type = metadata.file_type();
        let kind = match () {
            () if file_type.is_dir() => NodeKind::Directory,
            () if file_type.is_file() => NodeKind::File,
            () if file_type.is_symlink() => NodeKind::Link,
            () if file_type.is_fifo() => NodeKind::Fifo,
            () => NodeKind::Special,
        };
        let is_shared = kind == NodeKind::File && metadata.nlink() > 1;
        Self {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: metadata.mtime(),
            shared: is_shared.then(|| (metadata.dev(), metadata.ino())),
        }
    }
}

/// One layer's result for a path.
pub(super) enum Seen<T> {
    /// The layer has nothing about it; a lower layer decides.
    Through,
    /// The layer hides the path.
    Nothing,
    /// The layer has this entry.
    This(T),
}
