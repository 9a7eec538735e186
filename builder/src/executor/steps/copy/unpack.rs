//! Unpacks an archive for `ADD`. The destination is the root of the archive: no name or link in it leads outside, as
//! in Docker.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use images::layer::{Added, AddedArchive, AddedKind, LayerLimits, NewNode, NodeAttributes};

use super::destination::{Destination, make_folders};
use super::target::{LayerTarget, split};
use super::tree::{child, is_the_machines};
use super::{Content, CopyError, Node, NodeKind, NodeLookup, Tree, lookup, show};

/// Unpacks the file at `source` into the destination. False when it is not an archive; nothing is changed then.
pub(crate) fn unpack(
    tree: &dyn Tree,
    source: &[u8],
    place: &mut Destination<'_, '_>,
) -> Result<bool, CopyError> {
    if !matches!(tree.node(source)?, Some(Node { kind: NodeKind::File, .. })) {
        return Ok(false);
    }
    let failed = |cause| CopyError::io("looking into", source, cause);
    let mut file: File = tempfile::tempfile().map_err(failed)?;
    let (_, mut bytes) = tree.content(source)()?;
    io::copy(&mut bytes, &mut file).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let Some(mut archive) =
        AddedArchive::open(file, &show(source), LayerLimits::default()).map_err(CopyError::Archive)?
    else {
        return Ok(false);
    };
    let top = place.folder_of_archive(place.request.destination.as_bytes())?;
    let within = Within { target: place.target, top };
    let spool = Rc::new(tempfile::tempfile().map_err(failed)?);
    let mut unpacking =
        Unpacking { within, owner: place.request.owner, folders: BTreeMap::new(), spool, end: 0 };
    while let Some(entry) = archive.next().map_err(CopyError::Archive)? {
        // The archive's root entry is the destination, which keeps its attributes.
        if !entry.path.is_empty() {
            unpacking.entry(&entry, &mut archive)?;
        }
    }
    unpacking.settle()?;
    Ok(true)
}

/// A folder as a root of its own.
struct Within<'g, 't> {
    target: &'g mut dyn LayerTarget<'t>,
    top: Vec<u8>,
}

impl Within<'_, '_> {
    fn path(&self, path: &[u8]) -> Vec<u8> {
        if path.is_empty() { self.top.clone() } else { child(&self.top, path) }
    }
}

impl NodeLookup for Within<'_, '_> {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        self.target.node(&self.path(path))
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        self.target.target(&self.path(path))
    }
}

struct Unpacking<'g, 't> {
    within: Within<'g, 't>,
    owner: Option<(u32, u32)>,
    /// The times of folders, set at the end, since every new entry changes them.
    folders: BTreeMap<Vec<u8>, i64>,
    /// The files' contents, one after another. They are written to the layer in another order than the archive's.
    spool: Rc<File>,
    end: u64,
}

impl Unpacking<'_, '_> {
    fn entry(&mut self, entry: &Added, archive: &mut AddedArchive) -> Result<(), CopyError> {
        let (above, name) = split(&entry.path);
        let above = lookup(&self.within, above)?;
        self.folder(&above)?;
        let path = child(&above, name);
        let is_folder = matches!(self.within.node(&path)?, Some(Node { kind: NodeKind::Directory, .. }));
        let whole = self.within.path(&path);
        let dress = self.dress(entry, &path)?;
        match &entry.kind {
            // An entry replaces an existing one, unless both are folders.
            AddedKind::Directory if is_folder => {}
            AddedKind::Directory => {
                self.within.target.put(&whole, NewNode::Directory, NodeAttributes::default())?
            }
            AddedKind::File => {
                let content = self.spool(archive, &path)?;
                return self.within.target.put(&whole, NewNode::File(content), dress);
            }
            AddedKind::Symlink(target) => {
                return self.within.target.put(&whole, NewNode::Link(target.clone()), dress);
            }
            AddedKind::HardLink(target) => self.hard_link(target, &whole)?,
            AddedKind::Fifo => return self.within.target.put(&whole, NewNode::Fifo, dress),
        }
        if entry.kind == AddedKind::Directory {
            self.folders.insert(path, entry.mtime);
        }
        self.within.target.dress(&whole, dress)
    }

    /// Stores a file's content until it is written.
    fn spool<'t>(&mut self, archive: &mut AddedArchive, path: &[u8]) -> Result<Content<'t>, CopyError> {
        let start = self.end;
        let mut out = Spooled { file: self.spool.clone(), at: start, end: u64::MAX };
        let size = io::copy(&mut archive.content(), &mut out).map_err(|cause| write_failed(cause, path))?;
        self.end += size;
        let reader = Spooled { file: self.spool.clone(), at: start, end: self.end };
        Ok(Box::new(move || Ok((size, Box::new(reader)))))
    }

    fn hard_link(&mut self, target: &[u8], path: &[u8]) -> Result<(), CopyError> {
        let (above, name) = split(target);
        let to = child(&lookup(&self.within, above)?, name);
        if self.within.node(&to)?.is_none_or(|node| node.kind == NodeKind::Directory) {
            let what = "a hard link to a file that is not there";
            return Err(CopyError::InTheWay { path: show(&to), is: "no file", what });
        }
        let to = self.within.path(&to);
        self.within.target.link(path, &to)
    }

    fn dress(&self, entry: &Added, path: &[u8]) -> Result<NodeAttributes, CopyError> {
        let is_link = matches!(entry.kind, AddedKind::Symlink(_) | AddedKind::Fifo);
        let mut xattrs = entry.xattrs.clone();
        xattrs.retain(|name, _| !is_the_machines(name));
        // The same rule as in the kernel.
        if let Some(name) = xattrs.keys().find(|name| !may_have(name, is_link)) {
            let cause = io::Error::from(io::ErrorKind::Unsupported);
            let what = [path, b" (", name, b")"].concat();
            return Err(CopyError::io("setting an attribute of", &what, cause));
        }
        Ok(NodeAttributes {
            mode: Some(entry.mode),
            owner: Some(self.owner.unwrap_or(entry.owner)),
            mtime: Some(entry.mtime),
            xattrs,
        })
    }

    /// Creates the missing folders of a path without symbolic links: 0755, owned by root, whoever owns the entries.
    fn folder(&mut self, path: &[u8]) -> Result<(), CopyError> {
        let dress = NodeAttributes { mode: Some(0o755), owner: Some((0, 0)), ..NodeAttributes::default() };
        let whole = self.within.path(path);
        make_folders(self.within.target, &whole, &dress)
    }

    fn settle(&mut self) -> Result<(), CopyError> {
        for (path, mtime) in &self.folders {
            // A later entry may have replaced it.
            if let Some(Node { kind: NodeKind::Directory, .. }) = self.within.node(path)? {
                let dress = NodeAttributes { mtime: Some(*mtime), ..NodeAttributes::default() };
                self.within.target.dress(&self.within.path(path), dress)?;
            }
        }
        Ok(())
    }
}

/// A range of the stored contents.
struct Spooled {
    file: Rc<File>,
    at: u64,
    end: u64,
}

impl Read for Spooled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Spooled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether Linux allows a file to have an attribute of this name; symbolic links and pipes can have no `user.` ones.
fn may_have(name: &[u8], is_link: bool) -> bool {
    let starts = |prefix: &[u8]| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    starts(b"security.")
        || starts(b"trusted.")
        || (!is_link && (starts(b"user.") || starts(b"system.posix_acl_")))
}

/// An error of the archive is passed on as such; others come from the file system.
fn write_failed(cause: io::Error, path: &[u8]) -> CopyError {
    match cause.downcast::<images::Error>() {
        Ok(archive) => CopyError::Archive(archive),
        Err(cause) => CopyError::io("unpacking", path, cause),
    }
}
