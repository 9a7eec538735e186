//! What is known of a path in a layer.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

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
    /// Device and inode of a file that has several names, where they are known.
    pub shared: Option<(u64, u64)>,
}

impl Node {
    /// Of what the file system says.
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

/// What one layer says of a path.
pub(super) enum Seen<T> {
    /// Nothing: what lies below shows.
    Through,
    /// That nothing is there.
    Nothing,
    /// What is there.
    This(T),
}
