//! `ADD` of an archive. The destination is the root of what is unpacked: no name and no link leads out of it, as in Docker.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsRawFd, OwnedFd};

use images::layer::{Added, AddedArchive, AddedKind, Limits};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};

use super::place::{Place, split, times};
use super::tree::child;
use super::{CopyError, Node, NodeKind, RootTree, Tree, lookup, show};

/// Unpacks the file at `source` into the destination. False when it is no archive; then nothing is done.
pub(super) fn unpack(tree: &dyn Tree, source: &[u8], place: &Place<'_>) -> Result<bool, CopyError> {
    if !matches!(tree.node(source)?, Some(Node { kind: NodeKind::File, .. })) {
        return Ok(false);
    }
    let failed = |cause| CopyError::io("looking into", source, cause);
    let mut file: File = tempfile::tempfile().map_err(failed)?;
    tree.write(source, &mut file)?;
    file.rewind().map_err(failed)?;
    let Some(mut archive) = AddedArchive::open(file, &show(source), Limits::default())? else {
        return Ok(false);
    };
    let top = place.folder(place.request.destination.as_bytes())?;
    let mut unpacking =
        Unpacking { root: RootTree::within(top), owner: place.request.owner, folders: BTreeMap::new() };
    while let Some(entry) = archive.next()? {
        // The archive's own folder is the destination, which keeps what it is.
        if !entry.path.is_empty() {
            unpacking.entry(&entry, &mut archive)?;
        }
    }
    unpacking.settle()?;
    Ok(true)
}

struct Unpacking {
    root: RootTree,
    owner: Option<(u32, u32)>,
    /// The times of folders, set at the end: what is put into one changes its time.
    folders: BTreeMap<Vec<u8>, i64>,
}

impl Unpacking {
    fn entry(&mut self, entry: &Added, archive: &mut AddedArchive) -> Result<(), CopyError> {
        let (above, name) = split(&entry.path);
        let above = lookup(&self.root, above)?;
        let folder = self.folder(&above)?;
        let path = child(&above, name);
        let exists = self.make_room(entry, &folder, name, &path)?;
        match &entry.kind {
            AddedKind::Directory if exists => {}
            AddedKind::Directory => rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700))
                .map_err(|error| CopyError::io("making the folder", &path, error))?,
            AddedKind::File => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let made = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(|error| CopyError::io("creating", &path, error))?;
                std::io::copy(&mut archive.content(), &mut File::from(made))
                    .map_err(|cause| write_failed(cause, &path))?;
            }
            AddedKind::Symlink(target) => rustix::fs::symlinkat(&target[..], &folder, name)
                .map_err(|error| CopyError::io("making the link", &path, error))?,
            AddedKind::HardLink(target) => self.hard_link(target, &folder, name, &path)?,
            AddedKind::Fifo => {
                rustix::fs::mknodat(&folder, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(|error| CopyError::io("making the pipe", &path, error))?;
            }
        }
        self.dress(entry, &folder, name, &path)
    }

    /// Takes away what an entry replaces: everything but a folder that stays one. Says whether something stays.
    fn make_room(
        &self,
        entry: &Added,
        folder: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<bool, CopyError> {
        let removing = |error| CopyError::io("replacing", path, error);
        match self.root.node(path)?.map(|node| node.kind) {
            None => Ok(false),
            Some(NodeKind::Directory) if entry.kind == AddedKind::Directory => Ok(true),
            Some(NodeKind::Directory) => {
                self.empty(path)?;
                rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).map_err(removing)?;
                Ok(false)
            }
            Some(_) => {
                rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(removing)?;
                Ok(false)
            }
        }
    }

    fn empty(&self, path: &[u8]) -> Result<(), CopyError> {
        for name in self.root.children(path)? {
            let inner = child(path, &name);
            let is_folder = matches!(self.root.node(&inner)?, Some(Node { kind: NodeKind::Directory, .. }));
            if is_folder {
                self.empty(&inner)?;
            }
            let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(self.root.folder(path)?, &name[..], flags)
                .map_err(|error| CopyError::io("replacing", &inner, error))?;
        }
        Ok(())
    }

    fn hard_link(&self, target: &[u8], folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), CopyError> {
        let (above, target_name) = split(target);
        let above = lookup(&self.root, above)?;
        let to = child(&above, target_name);
        if self.root.node(&to)?.is_none_or(|node| node.kind == NodeKind::Directory) {
            let what = "a hard link to a file that is not there";
            return Err(CopyError::InTheWay { path: show(&to), is: "no file", what });
        }
        rustix::fs::linkat(self.root.folder(&above)?, target_name, folder, name, AtFlags::empty())
            .map_err(|error| CopyError::io("linking", path, error))
    }

    /// Owner first, then mode (a change of owner clears setuid), then attributes, then time.
    fn dress(&mut self, entry: &Added, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), CopyError> {
        let (user, group) = self.owner.unwrap_or(entry.owner);
        let is_link = matches!(self.root.node(path)?, Some(Node { kind: NodeKind::Link, .. }));
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        rustix::fs::chownat(folder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| CopyError::io("giving away", path, error))?;
        if !is_link {
            rustix::fs::chmodat(folder, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|error| CopyError::io("setting the permissions of", path, error))?;
        }
        set_attributes(entry, folder, name)
            .map_err(|error| CopyError::io("setting an attribute of", path, error))?;
        if entry.kind == AddedKind::Directory {
            self.folders.insert(path.to_vec(), entry.mtime);
            return Ok(());
        }
        rustix::fs::utimensat(folder, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| CopyError::io("setting the time of", path, error))
    }

    /// Opens a folder without links in its path, made with those above it when it is missing: 0755 and root's, whoever
    /// owns the entries.
    fn folder(&mut self, path: &[u8]) -> Result<OwnedFd, CopyError> {
        let mut done: Vec<u8> = Vec::new();
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let above = std::mem::take(&mut done);
            done = child(&above, part);
            match self.root.node(&done)?.map(|node| node.kind) {
                Some(NodeKind::Directory) => {}
                Some(_) => {
                    return Err(CopyError::InTheWay { path: show(&done), is: "no folder", what: "a folder" });
                }
                None => {
                    let making = |error| CopyError::io("making the folder", &done, error);
                    let above = self.root.folder(&above)?;
                    rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755)).map_err(making)?;
                    rustix::fs::chmodat(&above, part, Mode::from_raw_mode(0o755), AtFlags::empty())
                        .map_err(making)?;
                }
            }
        }
        self.root.folder(path)
    }

    fn settle(&self) -> Result<(), CopyError> {
        for (path, mtime) in &self.folders {
            // A later entry may have taken its place.
            if let Some(Node { kind: NodeKind::Directory, .. }) = self.root.node(path)? {
                rustix::fs::futimens(self.root.folder(path)?, &times(*mtime))
                    .map_err(|error| CopyError::io("setting the time of", path, error))?;
            }
        }
        Ok(())
    }
}

/// Those that belong to the machine, or to the overlay, are not the archive's to set.
fn set_attributes(entry: &Added, folder: &OwnedFd, name: &[u8]) -> std::io::Result<()> {
    for (attribute, value) in &entry.xattrs {
        let ours = [&b"trusted.overlay."[..], b"user.overlay.", b"security.selinux"];
        if ours.iter().any(|prefix| attribute.starts_with(prefix)) {
            continue;
        }
        // There is no call that sets an attribute relative to an open folder without following a link.
        let path = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
        rustix::fs::lsetxattr(&path[..], &CString::new(&attribute[..])?, value, XattrFlags::empty())?;
    }
    Ok(())
}

/// The archive's fault comes back as what it is; the rest is the file system's.
fn write_failed(cause: std::io::Error, path: &[u8]) -> CopyError {
    match cause.downcast::<images::Error>() {
        Ok(archive) => CopyError::Archive(archive),
        Err(cause) => CopyError::io("unpacking", path, cause),
    }
}
