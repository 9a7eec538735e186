//! The target of a copy: a virtual layer, or a folder of this machine.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use images::layer::{NewNode, Node, NodeAttributes, VirtualLayerBuilder};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use super::tree::opened;
use super::{Content, CopyError, NodeKind, NodeLookup, RootTree};

/// A target of files. Paths are bytes without a leading slash, and no symbolic link in them is followed.
pub(crate) trait LayerTarget<'t>: NodeLookup {
    /// Creates an entry at `path`, and replaces an existing one unless that is a folder.
    ///
    /// # Errors
    /// When it cannot be created.
    fn put(&mut self, path: &[u8], new: NewNode<Content<'t>>, dress: NodeAttributes)
    -> Result<(), CopyError>;
    /// Creates a hard link at `path` to the file at `to`.
    ///
    /// # Errors
    /// When it cannot be created.
    fn link(&mut self, path: &[u8], to: &[u8]) -> Result<(), CopyError>;
    /// Sets attributes of the entry at `path`.
    ///
    /// # Errors
    /// When it cannot be changed.
    fn dress(&mut self, path: &[u8], dress: NodeAttributes) -> Result<(), CopyError>;
}

impl NodeLookup for VirtualLayerBuilder<'_, Content<'_>> {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        Ok(VirtualLayerBuilder::node(self, path)?)
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        Ok(VirtualLayerBuilder::target(self, path)?)
    }
}

impl<'t> LayerTarget<'t> for VirtualLayerBuilder<'_, Content<'t>> {
    fn put(
        &mut self,
        path: &[u8],
        new: NewNode<Content<'t>>,
        dress: NodeAttributes,
    ) -> Result<(), CopyError> {
        Ok(VirtualLayerBuilder::put(self, path, new, dress)?)
    }

    fn link(&mut self, path: &[u8], to: &[u8]) -> Result<(), CopyError> {
        let content = |file: &Path| -> Content<'t> {
            let (file, path) = (file.to_owned(), to.to_vec());
            Box::new(move || {
                let file = File::open(&file).map_err(|cause| CopyError::io("reading", &path, cause))?;
                opened(file, &path)
            })
        };
        Ok(VirtualLayerBuilder::link(self, path, to, content)?)
    }

    fn dress(&mut self, path: &[u8], dress: NodeAttributes) -> Result<(), CopyError> {
        Ok(VirtualLayerBuilder::dress(self, path, dress)?)
    }
}

/// A folder of this machine. Files are created and opened without following symbolic links, so nothing outside can be
/// changed.
pub(crate) struct Folder {
    root: RootTree,
}

impl Folder {
    /// Opens the folder.
    ///
    /// # Errors
    /// When it does not exist.
    pub(crate) fn open(root: &Path) -> Result<Self, CopyError> {
        Ok(Self { root: RootTree::open(root)? })
    }

    /// The folder that contains a path, opened, and the name in it.
    fn above<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), CopyError> {
        let (folder, name) = split(path);
        Ok((self.root.folder(folder)?, name))
    }
}

impl NodeLookup for Folder {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        self.root.node(path)
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        self.root.target(path)
    }
}

impl<'t> LayerTarget<'t> for Folder {
    fn put(
        &mut self,
        path: &[u8],
        new: NewNode<Content<'t>>,
        dress: NodeAttributes,
    ) -> Result<(), CopyError> {
        let (folder, name) = self.above(path)?;
        if self.root.node(path)?.is_some() {
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())
                .map_err(|error| CopyError::io("replacing", path, error))?;
        }
        match new {
            NewNode::Directory => rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700))
                .map_err(|error| CopyError::io("making the folder", path, error))?,
            NewNode::Link(target) => rustix::fs::symlinkat(&target[..], &folder, name)
                .map_err(|error| CopyError::io("making the link", path, error))?,
            NewNode::Fifo => {
                rustix::fs::mknodat(&folder, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(|error| CopyError::io("making the pipe", path, error))?;
            }
            NewNode::File(content) => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let made = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(|error| CopyError::io("creating", path, error))?;
                let (_, mut bytes) = content()?;
                let mut made = File::from(made);
                std::io::copy(&mut bytes, &mut made)
                    .and_then(|_| made.flush())
                    .map_err(|error| CopyError::io("copying", path, error))?;
            }
        }
        self.dress(path, dress)
    }

    fn link(&mut self, path: &[u8], to: &[u8]) -> Result<(), CopyError> {
        let ((folder, name), (first_folder, first_name)) = (self.above(path)?, self.above(to)?);
        rustix::fs::linkat(first_folder, first_name, folder, name, AtFlags::empty())
            .map_err(|error| CopyError::io("linking", path, error))
    }

    /// Owner first, then mode (a change of owner clears setuid), then attributes, then time.
    fn dress(&mut self, path: &[u8], dress: NodeAttributes) -> Result<(), CopyError> {
        let node = self.root.node(path)?;
        // The target folder itself has no name to address it by.
        let (folder, name) =
            if path.is_empty() { (self.root.folder(path)?, &b"."[..]) } else { self.above(path)? };
        if let Some((user, group)) = dress.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::fs::chownat(&folder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| CopyError::io("giving away", path, error))?;
        }
        let is_link = node.is_some_and(|node| node.kind == NodeKind::Link);
        if let Some(mode) = dress.mode.filter(|_| !is_link) {
            rustix::fs::chmodat(&folder, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(|error| CopyError::io("setting the permissions of", path, error))?;
        }
        for (attribute, value) in &dress.xattrs {
            // No system call sets an attribute relative to an open folder without following a symbolic link.
            let place = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
            rustix::fs::lsetxattr(&place[..], &attribute[..], value, XattrFlags::empty())
                .map_err(|error| CopyError::io("setting an attribute of", path, error))?;
        }
        if let Some(seconds) = dress.mtime {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(&folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| CopyError::io("setting the time of", path, error))?;
        }
        Ok(())
    }
}

/// The folder part and the name of a path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
