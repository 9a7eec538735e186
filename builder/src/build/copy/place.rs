//! Putting files into the root of a step. Every path is looked up within that root first and then opened without
//! following any link, so nothing outside it can be touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::tree::child;
use super::{CopyError, Node, NodeKind, Request, RootTree, Tree, lookup, show};
use crate::dockerfile::Chmod;

pub(super) struct Place<'a> {
    pub(super) root: RootTree,
    pub(super) request: &'a Request<'a>,
    /// Where a file with several names was put first.
    shared: BTreeMap<(u64, u64), Vec<u8>>,
}

impl<'a> Place<'a> {
    pub(super) fn open(root: &Path, request: &'a Request<'a>) -> Result<Self, CopyError> {
        Ok(Self { root: RootTree::open(root)?, request, shared: BTreeMap::new() })
    }

    /// Puts one source at the destination: a folder's contents, a file or link under its own or the given name.
    pub(super) fn put(
        &mut self,
        tree: &dyn Tree,
        source: &[u8],
        name: &[u8],
        into_folder: bool,
    ) -> Result<(), CopyError> {
        let node = tree
            .node(source)?
            .ok_or_else(|| CopyError::NoSource { path: show(source), origin: tree.name() })?;
        let destination = lookup(&self.root, self.request.destination.as_bytes())?;
        if node.kind == NodeKind::Directory {
            // Its contents are copied and not itself: a new folder is like any that is made on the way.
            self.folder(&destination)?;
            return self.contents(tree, source, &destination);
        }
        let is_folder = matches!(self.root.node(&destination)?, Some(Node { kind: NodeKind::Directory, .. }));
        let path = match into_folder || is_folder {
            true if name.is_empty() => return Err(CopyError::Unnamed(show(&destination))),
            true => lookup(&self.root, &child(&destination, name))?,
            false => destination,
        };
        let (folder, name) = split(&path);
        let folder = self.folder(folder)?;
        self.entry(tree, source, &node, &folder, name, &path)
    }

    fn contents(&mut self, tree: &dyn Tree, source: &[u8], path: &[u8]) -> Result<(), CopyError> {
        for name in tree.children(source)? {
            let from = child(source, &name);
            let to = child(path, &name);
            let node = tree
                .node(&from)?
                .ok_or_else(|| CopyError::NoSource { path: show(&from), origin: tree.name() })?;
            let folder = self.root.folder(path)?;
            self.entry(tree, &from, &node, &folder, &name, &to)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        tree: &dyn Tree,
        source: &[u8],
        node: &Node,
        folder: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), CopyError> {
        let there = self.root.node(path)?.map(|node| node.kind);
        match (node.kind, there) {
            (NodeKind::Special, _) => return Err(CopyError::Special(show(source))),
            (NodeKind::Directory, Some(NodeKind::Directory)) => {}
            (NodeKind::Directory, Some(_)) => {
                return Err(CopyError::InTheWay { path: show(path), is: "no folder", what: "a folder" });
            }
            (NodeKind::Directory, None) => {
                rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700))
                    .map_err(|error| CopyError::io("making the folder", path, error))?;
            }
            (_, Some(NodeKind::Directory)) => {
                return Err(CopyError::InTheWay { path: show(path), is: "a folder", what: "a file" });
            }
            (_, Some(_)) => rustix::fs::unlinkat(folder, name, AtFlags::empty())
                .map_err(|error| CopyError::io("replacing", path, error))?,
            (_, None) => {}
        }
        match node.kind {
            NodeKind::Directory => {
                self.contents(tree, source, path)?;
                let made = self.root.folder(path)?;
                match there.is_some() && tree.is_on_the_way(source) {
                    true => rustix::fs::fchmod(&made, Mode::from_raw_mode(node.mode))
                        .map_err(|error| CopyError::io("setting the permissions of", path, error)),
                    false => {
                        self.dress(&made, node, path)?;
                        tree.give_attributes(source, &made)
                    }
                }
            }
            NodeKind::Link => self.link(&tree.target(source)?, node, folder, name, path),
            NodeKind::Fifo => self.fifo(node, folder, name, path),
            _ => self.file(tree, source, node, folder, name, path),
        }
    }

    fn file(
        &mut self,
        tree: &dyn Tree,
        source: &[u8],
        node: &Node,
        folder: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), CopyError> {
        if let Some(first) = node.shared.and_then(|key| self.shared.get(&key)) {
            let (first_folder, first_name) = split(first);
            let first_folder = self.root.folder(first_folder)?;
            return rustix::fs::linkat(first_folder, first_name, folder, name, AtFlags::empty())
                .map_err(|error| CopyError::io("linking", path, error));
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let made = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| CopyError::io("creating", path, error))?;
        let mut made = File::from(made);
        self.own(&made, node, path)?;
        tree.write(source, &mut made)?;
        self.permit(&made, node, path)?;
        if let Some(key) = node.shared {
            self.shared.insert(key, path.to_vec());
        }
        Ok(())
    }

    fn link(
        &self,
        target: &[u8],
        node: &Node,
        folder: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), CopyError> {
        let (user, group) = self.request.owner.unwrap_or(node.owner);
        let make = || {
            rustix::fs::symlinkat(target, folder, name)?;
            rustix::fs::chownat(
                folder,
                name,
                Some(Uid::from_raw(user)),
                Some(Gid::from_raw(group)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            rustix::fs::utimensat(folder, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)
        };
        make().map_err(|error| CopyError::io("making the link", path, error))
    }

    fn fifo(&self, node: &Node, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), CopyError> {
        let (user, group) = self.request.owner.unwrap_or(node.owner);
        let make = || {
            rustix::fs::mknodat(folder, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::fs::chownat(folder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(folder, name, self.mode(node), AtFlags::empty())?;
            rustix::fs::utimensat(folder, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)
        };
        make().map_err(|error| CopyError::io("making the pipe", path, error))
    }

    /// A folder's owner, permissions and time, once everything is in it.
    fn dress(&self, made: &OwnedFd, node: &Node, path: &[u8]) -> Result<(), CopyError> {
        self.own(made, node, path)?;
        self.permit(made, node, path)
    }

    fn own(&self, made: impl AsFd, node: &Node, path: &[u8]) -> Result<(), CopyError> {
        let (user, group) = self.request.owner.unwrap_or(node.owner);
        rustix::fs::fchown(made, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
            .map_err(|error| CopyError::io("giving away", path, error))
    }

    /// After the owner is set, since that takes setuid away.
    fn permit(&self, made: impl AsFd, node: &Node, path: &[u8]) -> Result<(), CopyError> {
        let mode = self.mode(node);
        rustix::fs::fchmod(&made, mode)
            .and_then(|()| rustix::fs::futimens(&made, &times(node.mtime)))
            .map_err(|error| CopyError::io("setting the permissions of", path, error))
    }

    fn mode(&self, node: &Node) -> Mode {
        let is_folder = node.kind == NodeKind::Directory;
        Mode::from_raw_mode(self.request.mode.map_or(node.mode, |chmod| chmod.of(node.mode, is_folder)))
    }

    /// Opens a folder, made with those above it when it is missing: of the owner asked for, and 0755 unless a number says
    /// otherwise.
    pub(super) fn folder(&self, path: &[u8]) -> Result<OwnedFd, CopyError> {
        let path = lookup(&self.root, path)?;
        let (user, group) = self.request.owner.unwrap_or((0, 0));
        let node = Node {
            kind: NodeKind::Directory,
            mode: match self.request.mode {
                Some(Chmod::Octal(mode)) => mode & 0o777,
                _ => 0o755,
            },
            owner: (user, group),
            mtime: self.request.epoch,
            shared: None,
        };
        let mut done: Vec<u8> = Vec::new();
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let above = self.root.folder(&done)?;
            done = child(&done, part);
            match self.root.node(&done)?.map(|node| node.kind) {
                Some(NodeKind::Directory) => {}
                Some(_) => {
                    return Err(CopyError::InTheWay { path: show(&done), is: "no folder", what: "a folder" });
                }
                None => {
                    rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755))
                        .map_err(|error| CopyError::io("making the folder", &done, error))?;
                    let made = self.root.folder(&done)?;
                    self.own(&made, &node, &done)?;
                    let mode = Mode::from_raw_mode(node.mode);
                    rustix::fs::fchmod(&made, mode)
                        .and_then(|()| rustix::fs::futimens(&made, &times(node.mtime)))
                        .map_err(|error| CopyError::io("making the folder", &done, error))?;
                }
            }
        }
        self.root.folder(&path)
    }
}

pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub(super) fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
