//! BuildKit's rules for the destination of a `COPY`, for any target.

use std::collections::BTreeMap;

use images::layer::{NewNode, NodeAttributes};

use super::target::{LayerTarget, split};
use super::tree::child;
use super::{CopyError, CopyRequest, Node, NodeKind, Tree, Walk, lookup, show};
use crate::dockerfile::Chmod;

/// The destination of the files of one step.
pub(crate) struct Destination<'g, 't> {
    pub(crate) target: &'g mut dyn LayerTarget<'t>,
    pub(crate) request: &'g CopyRequest<'g>,
    /// The first path of a file with several hard links, by device and inode.
    shared: BTreeMap<(u64, u64), Vec<u8>>,
}

/// A source: the view to walk through, and the tree with the contents, which lives until they are written.
#[derive(Clone, Copy)]
pub(crate) struct From<'w, 't> {
    pub(crate) walk: &'w dyn Walk,
    pub(crate) tree: &'t dyn Tree,
}

impl<'t> From<'t, 't> {
    pub(crate) fn all_of(tree: &'t dyn Tree) -> Self {
        Self { walk: tree, tree }
    }
}

impl<'g, 't> Destination<'g, 't> {
    pub(crate) fn new(target: &'g mut dyn LayerTarget<'t>, request: &'g CopyRequest<'g>) -> Self {
        Self { target, request, shared: BTreeMap::new() }
    }

    /// Checks that the destination is an existing folder, which several sources require if it does not end with a
    /// slash.
    pub(crate) fn needs_folder(&self) -> Result<(), CopyError> {
        let destination = lookup(&*self.target, self.request.destination.as_bytes())?;
        match self.target.node(&destination)? {
            Some(Node { kind: NodeKind::Directory, .. }) => Ok(()),
            _ => Err(CopyError::NoFolder(show(&destination))),
        }
    }

    /// Copies one source: a folder's contents, or a file or symbolic link under its own or the given name.
    pub(crate) fn put(
        &mut self,
        from: From<'_, 't>,
        source: &[u8],
        name: &[u8],
        into_folder: bool,
    ) -> Result<(), CopyError> {
        let node = from
            .walk
            .node(source)?
            .ok_or_else(|| CopyError::NoSource { path: show(source), origin: from.tree.name() })?;
        let destination = lookup(&*self.target, self.request.destination.as_bytes())?;
        if node.kind == NodeKind::Directory {
            // A folder's contents are copied, not the folder: if it has to be created, it gets default attributes.
            self.folder(&destination)?;
            return self.contents(from, source, &destination);
        }
        let is_folder =
            matches!(self.target.node(&destination)?, Some(Node { kind: NodeKind::Directory, .. }));
        let path = match into_folder || is_folder {
            true if name.is_empty() => return Err(CopyError::Unnamed(show(&destination))),
            true => lookup(&*self.target, &child(&destination, name))?,
            false => destination,
        };
        self.folder(split(&path).0)?;
        self.entry(from, source, &node, &path)
    }

    fn contents(&mut self, from: From<'_, 't>, source: &[u8], path: &[u8]) -> Result<(), CopyError> {
        for name in from.walk.children(source)? {
            let inner = child(source, &name);
            let node = from
                .walk
                .node(&inner)?
                .ok_or_else(|| CopyError::NoSource { path: show(&inner), origin: from.tree.name() })?;
            self.entry(from, &inner, &node, &child(path, &name))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: From<'_, 't>,
        source: &[u8],
        node: &Node,
        path: &[u8],
    ) -> Result<(), CopyError> {
        let there = self.target.node(path)?.map(|node| node.kind);
        match (node.kind, there) {
            (NodeKind::Special, _) => return Err(CopyError::Special(show(source))),
            (NodeKind::Directory, Some(kind)) if kind != NodeKind::Directory => {
                return Err(CopyError::InTheWay { path: show(path), is: "no folder", what: "a folder" });
            }
            (NodeKind::Directory, _) => {}
            (_, Some(NodeKind::Directory)) => {
                return Err(CopyError::InTheWay { path: show(path), is: "a folder", what: "a file" });
            }
            _ => {}
        }
        match node.kind {
            NodeKind::Directory => self.directory(from, source, node, path, there.is_some()),
            NodeKind::Link => {
                let new = NewNode::Link(from.walk.target(source)?);
                self.target.put(path, new, self.dress(node))
            }
            NodeKind::Fifo => self.target.put(path, NewNode::Fifo, self.dress(node)),
            NodeKind::File | NodeKind::Special => self.file(from.tree, source, node, path),
        }
    }

    fn directory(
        &mut self,
        from: From<'_, 't>,
        source: &[u8],
        node: &Node,
        path: &[u8],
        exists: bool,
    ) -> Result<(), CopyError> {
        if !exists {
            self.target.put(path, NewNode::Directory, NodeAttributes::default())?;
        }
        self.contents(from, source, path)?;
        // Set once its contents are complete, since every new entry changes its time.
        let dress = match exists && from.walk.is_on_the_way(source) {
            true => NodeAttributes { mode: Some(node.mode), ..NodeAttributes::default() },
            false => NodeAttributes { xattrs: from.tree.xattrs(source)?, ..self.dress(node) },
        };
        self.target.dress(path, dress)
    }

    fn file(&mut self, tree: &'t dyn Tree, source: &[u8], node: &Node, path: &[u8]) -> Result<(), CopyError> {
        if let Some(first) = node.shared.and_then(|key| self.shared.get(&key)) {
            return self.target.link(path, first);
        }
        let dress = NodeAttributes { xattrs: tree.xattrs(source)?, ..self.dress(node) };
        self.target.put(path, NewNode::File(tree.content(source)), dress)?;
        if let Some(key) = node.shared {
            self.shared.insert(key, path.to_vec());
        }
        Ok(())
    }

    fn dress(&self, node: &Node) -> NodeAttributes {
        let is_folder = node.kind == NodeKind::Directory;
        let mode = self.request.mode.map_or(node.mode, |chmod| chmod.of(node.mode, is_folder));
        let owner = self.request.owner.unwrap_or(node.owner);
        NodeAttributes {
            mode: Some(mode),
            owner: Some(owner),
            mtime: Some(node.mtime),
            ..NodeAttributes::default()
        }
    }

    /// Creates the folder that a path leads to, and missing ones above it, with the requested owner. Permissions are
    /// 0755, unless the request gives them as a number.
    pub(crate) fn folder(&mut self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        self.folder_of(path, self.request.mode)
    }

    /// The same for an archive, whose folders ignore requested permissions.
    pub(crate) fn folder_of_archive(&mut self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        self.folder_of(path, None)
    }

    fn folder_of(&mut self, path: &[u8], mode: Option<&Chmod>) -> Result<Vec<u8>, CopyError> {
        let path = lookup(&*self.target, path)?;
        let mode = match mode {
            Some(Chmod::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        };
        let dress = NodeAttributes {
            mode: Some(mode),
            owner: Some(self.request.owner.unwrap_or((0, 0))),
            mtime: Some(self.request.epoch),
            ..NodeAttributes::default()
        };
        make_folders(self.target, &path, &dress)?;
        Ok(path)
    }
}

/// Creates the missing folders of a path without symbolic links.
pub(crate) fn make_folders(
    target: &mut dyn LayerTarget<'_>,
    path: &[u8],
    dress: &NodeAttributes,
) -> Result<(), CopyError> {
    let mut done: Vec<u8> = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        done = child(&done, part);
        match target.node(&done)?.map(|node| node.kind) {
            Some(NodeKind::Directory) => {}
            Some(_) => {
                return Err(CopyError::InTheWay { path: show(&done), is: "no folder", what: "a folder" });
            }
            None => target.put(&done, NewNode::Directory, dress.clone())?,
        }
    }
    Ok(())
}
