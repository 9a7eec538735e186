//! Builds a virtual layer over a layer stack without a file system. File contents are only opened one by one when the
//! layer is written, so that a hundred thousand files need not be created just to be read again.

mod writing;

use std::collections::BTreeMap;

use super::layer_stack::{FoundNode, LayerStack};
use super::node::{Node, NodeKind, Seen};
use super::virtual_layer::{DIRECTORY_MODE, FileContent, Inode, Origin, ROOT, VirtualLayer, What, parts};
use crate::error::{Error, Result};

/// A virtual layer that is being built. Files have contents of type `C`, which only the caller interprets.
///
/// Paths are bytes without a leading slash, "" is the root. No symbolic link in them is followed: the parent of a
/// path must be a directory.
#[derive(Debug)]
pub struct VirtualLayerBuilder<'a, C> {
    below: &'a LayerStack,
    /// Whether lower layers are only looked at once the layer is complete.
    is_apart: bool,
    epoch: i64,
    virtual_layer: VirtualLayer,
    /// Contents of files, by inode.
    contents: Vec<Option<C>>,
}

/// A new entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewNode<C> {
    /// An empty directory.
    Directory,
    /// A regular file.
    File(C),
    /// A symbolic link with this target.
    Link(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// Attributes to set; None leaves one unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAttributes {
    /// Permissions with setuid, setgid and sticky; ignored for a symbolic link.
    pub mode: Option<u32>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Seconds since 1970; times after the epoch are set to it.
    pub mtime: Option<i64>,
    /// Extended attributes to add.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a, C> VirtualLayerBuilder<'a, C> {
    /// An empty layer over `below`. `epoch` is the time of new entries, in seconds since 1970.
    pub fn over(below: &'a LayerStack, epoch: i64) -> Self {
        Self {
            below,
            is_apart: false,
            epoch: epoch.max(0),
            virtual_layer: VirtualLayer::new(),
            contents: vec![None],
        }
    }

    /// An empty layer that is built as if there were no lower layers. Once it is complete, its directories are merged
    /// with existing ones.
    pub fn apart(below: &'a LayerStack, epoch: i64) -> Self {
        Self { is_apart: true, ..Self::over(below, epoch) }
    }

    /// The lower entry at `path`, unless the layer is built apart.
    fn below(&self, path: &[u8]) -> Result<Option<FoundNode>> {
        if self.is_apart { Ok(None) } else { self.below.find(path) }
    }

    /// Merges directories that were built apart with the lower ones.
    fn join(&mut self) -> Result<()> {
        let mut open = vec![(Vec::new(), ROOT)];
        while let Some((path, at)) = open.pop() {
            let What::Directory { children, .. } = &self.virtual_layer.inodes[at].what else { continue };
            for (name, child) in children.clone() {
                let path = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
                let What::Directory { origin: Origin::New, .. } = &self.virtual_layer.inodes[child].what
                else {
                    continue;
                };
                let found = self.below.find(&path)?.filter(|found| found.node.kind == NodeKind::Directory);
                let Some(found) = found else { continue };
                let (mode, owner, xattrs) = (found.node.mode, found.node.owner, found.xattrs()?);
                if let What::Directory { origin, .. } = &mut self.virtual_layer.inodes[child].what {
                    *origin = Origin::Over { mode, owner, xattrs };
                }
                open.push((path, child));
            }
        }
        Ok(())
    }

    /// The entry at `path`, if any.
    ///
    /// # Errors
    /// When a lower layer cannot be read.
    pub fn node(&self, path: &[u8]) -> Result<Option<Node>> {
        match self.virtual_layer.look(path) {
            Seen::This(at) => Ok(Some(self.virtual_layer.node(at))),
            Seen::Nothing => Ok(None),
            Seen::Through => Ok(self.below(path)?.map(|found| found.node)),
        }
    }

    /// The target of the symbolic link at `path`.
    ///
    /// # Errors
    /// When a lower layer cannot be read.
    pub fn target(&self, path: &[u8]) -> Result<Vec<u8>> {
        match self.virtual_layer.look(path) {
            Seen::This(at) => Ok(self.virtual_layer.target(at).to_vec()),
            Seen::Nothing => Ok(Vec::new()),
            Seen::Through => self.below(path)?.map_or(Ok(Vec::new()), |found| found.target()),
        }
    }

    /// Creates an entry at `path`, in place of an existing one with everything in it.
    ///
    /// # Errors
    /// When its parent is not a directory, or a lower layer cannot be read.
    pub fn put(&mut self, path: &[u8], new: NewNode<C>, dress: NodeAttributes) -> Result<()> {
        let may_hide = matches!(new, NewNode::Directory) && self.virtual_layer.lets_through(parent(path));
        let below = if may_hide { self.below(path)? } else { None };
        let hides = below.is_some_and(|found| found.node.kind == NodeKind::Directory);
        let (what, content, mode) = match new {
            NewNode::Directory => {
                let origin = if hides { Origin::Instead } else { Origin::New };
                (What::Directory { children: BTreeMap::new(), origin }, None, DIRECTORY_MODE)
            }
            NewNode::File(content) => (What::File(FileContent::default()), Some(content), 0o644),
            NewNode::Link(target) => (What::Link(target), None, 0o777),
            NewNode::Fifo => (What::Fifo, None, 0o644),
        };
        let (owner, mtime, xattrs) = ((0, 0), self.epoch, BTreeMap::new());
        let at = self.add(Inode { what, mode, owner, mtime, xattrs, names: 0 }, content);
        self.name(path, at)?;
        self.dress_inode(at, dress);
        Ok(())
    }

    /// Creates a hard link at `path` to the entry at `to`, which is not a directory. For a file of a lower layer,
    /// `content` makes the content from its path on disk.
    ///
    /// # Errors
    /// When there is no such entry, or its content is not available because its layer is virtual.
    pub fn link(
        &mut self,
        path: &[u8],
        to: &[u8],
        content: impl FnOnce(&std::path::Path) -> C,
    ) -> Result<()> {
        let at = match self.virtual_layer.look(to) {
            Seen::This(at) => at,
            Seen::Nothing => return Err(nothing_at(to)),
            Seen::Through => {
                let found = self.below(to)?.ok_or_else(|| nothing_at(to))?;
                let (what, content) = match found.node.kind {
                    NodeKind::File => {
                        let bytes = found.on_disk().ok_or_else(|| nothing_at(to))?;
                        (What::File(FileContent::default()), Some(content(bytes)))
                    }
                    NodeKind::Link => (What::Link(found.target()?), None),
                    NodeKind::Fifo => (What::Fifo, None),
                    NodeKind::Directory | NodeKind::Special => return Err(nothing_at(to)),
                };
                let Node { mode, owner, mtime, .. } = found.node;
                let xattrs = found.xattrs()?;
                let at = self.add(Inode { what, mode, owner, mtime, xattrs, names: 0 }, content);
                let above = self.directory(parent(to))?;
                // The file existed before; that this layer now has it too does not change its directory's time.
                let time = self.virtual_layer.inodes[above].mtime;
                self.name(to, at)?;
                self.virtual_layer.inodes[above].mtime = time;
                at
            }
        };
        self.name(path, at)
    }

    /// Sets attributes of the entry at `path`.
    ///
    /// # Errors
    /// When it is neither in this layer nor a lower directory.
    pub fn dress(&mut self, path: &[u8], dress: NodeAttributes) -> Result<()> {
        let at = match self.virtual_layer.look(path) {
            Seen::This(at) => at,
            _ => self.directory(path)?,
        };
        self.dress_inode(at, dress);
        Ok(())
    }

    fn dress_inode(&mut self, at: usize, dress: NodeAttributes) {
        let inode = &mut self.virtual_layer.inodes[at];
        if !matches!(inode.what, What::Link(_)) {
            inode.mode = dress.mode.map_or(inode.mode, |mode| mode & 0o7777);
        }
        inode.owner = dress.owner.unwrap_or(inode.owner);
        inode.mtime = dress.mtime.map_or(inode.mtime, |mtime| mtime.clamp(0, self.epoch));
        inode.xattrs.extend(dress.xattrs);
    }

    fn add(&mut self, mut inode: Inode, content: Option<C>) -> usize {
        inode.mtime = inode.mtime.clamp(0, self.epoch);
        self.virtual_layer.inodes.push(inode);
        self.contents.push(content);
        self.virtual_layer.inodes.len() - 1
    }

    /// Gives an inode a name, and replaces an existing entry of that name.
    fn name(&mut self, path: &[u8], at: usize) -> Result<()> {
        let above = self.directory(parent(path))?;
        let name = parts(path).next_back().unwrap_or_default().to_vec();
        let children = self.virtual_layer.children(above).ok_or_else(|| no_directory(parent(path)))?;
        let before = children.insert(name, at);
        self.virtual_layer.inodes[at].names += 1;
        self.virtual_layer.inodes[above].mtime = self.epoch;
        let mut gone: Vec<usize> = before.into_iter().collect();
        while let Some(one) = gone.pop() {
            self.virtual_layer.inodes[one].names -= 1;
            if let Some(children) = self.virtual_layer.children(one) {
                gone.extend(std::mem::take(children).into_values());
            }
        }
        Ok(())
    }

    /// The directory at `path`. If it is only in a lower layer, it is added to this one with its parents.
    fn directory(&mut self, path: &[u8]) -> Result<usize> {
        let mut at = ROOT;
        let mut end = 0;
        for name in parts(path) {
            end += usize::from(end > 0) + name.len();
            let is_over = match &self.virtual_layer.inodes[at].what {
                What::Directory { children, origin } => match children.get(name) {
                    Some(child) => {
                        at = *child;
                        continue;
                    }
                    None => matches!(origin, Origin::Over { .. }),
                },
                _ => false,
            };
            let here = &path[..end];
            let found = if is_over { self.below(here)? } else { None };
            let found = found.filter(|found| found.node.kind == NodeKind::Directory);
            let found = found.ok_or_else(|| no_directory(here))?;
            let Node { mode, owner, mtime, .. } = found.node;
            let xattrs = found.xattrs()?;
            let origin = Origin::Over { mode, owner, xattrs: xattrs.clone() };
            let what = What::Directory { children: BTreeMap::new(), origin };
            let made = self.add(Inode { what, mode, owner, mtime, xattrs, names: 1 }, None);
            let children = self.virtual_layer.children(at).ok_or_else(|| no_directory(here))?;
            children.insert(name.to_vec(), made);
            at = made;
        }
        match &self.virtual_layer.inodes[at].what {
            What::Directory { .. } => Ok(at),
            _ => Err(no_directory(path)),
        }
    }
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

fn no_directory(path: &[u8]) -> Error {
    Error::refused(shown(path), "there is no directory to put something into")
}

fn nothing_at(path: &[u8]) -> Error {
    Error::refused(shown(path), "there is no file to give another name")
}
