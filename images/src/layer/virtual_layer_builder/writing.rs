//! Writes a virtual layer: the same bytes as for an upper directory with the same content.

use std::collections::HashMap;
use std::io::{self, Read};

use super::super::virtual_layer::{FileContent, Inode, Origin, ROOT, VirtualLayer, What};
use super::{VirtualLayerBuilder, shown};
use crate::error::{At, Error};
use crate::layer::compress::Compression;
use crate::layer::emit::{Emitter, Entered, OPAQUE, WHITEOUT, refuse_whiteout_name};
use crate::layer::entry::{Entry, Kind};
use crate::layer::normalise::{Action, AppliedRule, MAX_REWRITTEN, Normaliser};
use crate::layer::read::LayerLimits;
use crate::layer::write::Written;
use crate::store::Store;

impl<C> VirtualLayerBuilder<'_, C> {
    /// Writes the layer as [`crate::layer::from_upper`] would an upper directory with the same content. `open` gives
    /// a file's size and a reader.
    ///
    /// # Errors
    /// When a content cannot be opened or read, or the store cannot be written; when the layer would exceed
    /// [`LayerLimits`] and could not be unpacked again.
    pub fn write<E: From<Error>>(
        mut self,
        store: &Store,
        compression: Compression,
        rules: Normaliser,
        open: &mut dyn FnMut(C) -> Result<(u64, Box<dyn Read>), E>,
    ) -> Result<(Written, VirtualLayer), E> {
        if self.is_apart {
            self.join()?;
        }
        let mut writing = Writing {
            out: Emitter::new(store, compression.into(), LayerLimits::default()),
            virtual_layer: &self.virtual_layer,
            contents: self.contents,
            epoch: self.epoch,
            rules,
            open,
            applied: Vec::new(),
            first: HashMap::new(),
            dropped: Vec::new(),
            written: Vec::new(),
        };
        writing.all()?;
        let Writing { out, applied, dropped, written, .. } = writing;
        let layer = out.finish()?;
        let mut virtual_layer = self.virtual_layer;
        for (at, content) in written {
            virtual_layer.inodes[at].what = What::File(content);
        }
        for (above, name) in dropped {
            virtual_layer.children(above).map(|children| children.remove(&name));
        }
        Ok((Written { layer, applied }, virtual_layer))
    }
}

/// A virtual layer that is being written.
struct Writing<'a, 'o, C, E> {
    out: Emitter<'a>,
    virtual_layer: &'a VirtualLayer,
    contents: Vec<Option<C>>,
    epoch: i64,
    rules: Normaliser,
    open: &'o mut dyn FnMut(C) -> Result<(u64, Box<dyn Read>), E>,
    applied: Vec<AppliedRule>,
    /// The first name of each entry with several, once it is written.
    first: HashMap<usize, Vec<u8>>,
    /// Entries that the rules removed, by directory and name.
    dropped: Vec<(usize, Vec<u8>)>,
    /// What was written of files, by inode.
    written: Vec<(usize, FileContent)>,
}

/// A directory that is being written, with its remaining entries.
struct Level<'d> {
    path: Vec<u8>,
    at: usize,
    left: std::vec::IntoIter<(&'d [u8], Child)>,
    /// The root has no entry.
    entered: Option<Entered>,
}

#[derive(Clone, Copy)]
enum Child {
    Inode(usize),
    /// The marker that hides lower content.
    Marker,
}

impl<'a, C, E: From<Error>> Writing<'a, '_, C, E> {
    fn all(&mut self) -> Result<(), E> {
        // Without recursion, since directories can be nested arbitrarily deep.
        let mut open: Vec<Level<'a>> = self.level(&[], ROOT).into_iter().collect();
        while let Some(level) = open.last_mut() {
            let Some((name, child)) = level.left.next() else {
                if let Some(level) = open.pop() {
                    self.leave(&level)?;
                }
                continue;
            };
            let path = match level.path.is_empty() {
                true => name.to_vec(),
                false => [&level.path[..], b"/", name].concat(),
            };
            let above = level.at;
            match child {
                Child::Marker => {
                    self.out.emit(&Entry::marker(path, self.epoch), &mut io::empty())?;
                }
                Child::Inode(_) if name.starts_with(WHITEOUT) => {
                    return Err(refuse_whiteout_name(shown(&path)).into());
                }
                Child::Inode(at) => match self.level(&path, at) {
                    Some(inner) => open.push(inner),
                    None => self.leaf(path, at, (above, name))?,
                },
            }
        }
        Ok(())
    }

    /// Enters a directory; none for other entries.
    fn level(&mut self, path: &[u8], at: usize) -> Option<Level<'a>> {
        let What::Directory { children, origin } = &self.virtual_layer.inodes[at].what else { return None };
        let mut left: Vec<(&[u8], Child)> =
            children.iter().map(|(name, child)| (&name[..], Child::Inode(*child))).collect();
        if matches!(origin, Origin::Instead) {
            let place = left.partition_point(|(name, _)| *name < OPAQUE);
            left.insert(place, (OPAQUE, Child::Marker));
        }
        let entry = (at != ROOT).then(|| self.entry(path.to_vec(), Kind::Directory, at));
        let entered = entry.map(|entry| self.out.enter(entry));
        Some(Level { path: path.to_vec(), at, left: left.into_iter(), entered })
    }

    fn leave(&mut self, level: &Level<'_>) -> Result<(), E> {
        let Some(entry) = level.entered.and_then(|entered| self.out.leave(entered)) else { return Ok(()) };
        let What::Directory { origin, .. } = &self.virtual_layer.inodes[level.at].what else { return Ok(()) };
        let is_as_before = match origin {
            Origin::Over { mode, owner, xattrs } => {
                (*mode, *owner, xattrs) == (entry.mode, (entry.uid, entry.gid), &entry.xattrs)
            }
            Origin::New | Origin::Instead => false,
        };
        if !is_as_before {
            self.out.emit(&entry, &mut io::empty())?;
        }
        Ok(())
    }

    /// Writes an entry other than a directory, with its name in its directory.
    fn leaf(&mut self, path: Vec<u8>, at: usize, (above, name): (usize, &[u8])) -> Result<(), E> {
        let Inode { what, mode, names, .. } = &self.virtual_layer.inodes[at];
        let first = self.first.get(&at);
        // A program is the step's work, in whatever folder it is.
        let is_data = matches!(what, What::File(_)) && mode & 0o111 == 0;
        let rule = is_data.then(|| self.rules.action(&path)).flatten();
        if let Some((rule, Action::Drop)) = rule {
            self.fire(rule, &path);
            self.dropped.push((above, name.to_vec()));
            return Ok(());
        }
        if let Some(first) = first {
            let link = Kind::HardLink(first.clone());
            return Ok(self.out.emit(&self.entry(path, link, at), &mut io::empty())?);
        }
        if *names > 1 {
            self.first.insert(at, path.clone());
        }
        let kind = match what {
            What::Link(target) => Kind::Symlink(target.clone()),
            What::Fifo => Kind::Fifo,
            What::File(_) | What::Directory { .. } => return self.file(path, at, rule),
        };
        Ok(self.out.emit(&self.entry(path, kind, at), &mut io::empty())?)
    }

    fn file(&mut self, path: Vec<u8>, at: usize, rule: Option<(&'static str, Action)>) -> Result<(), E> {
        let content = self.contents[at].take();
        let content = content.ok_or_else(|| Error::refused(shown(&path), "a file without content"))?;
        let (size, mut bytes) = (self.open)(content)?;
        let other = match rule {
            Some((rule, Action::Empty)) if size > 0 => Some((rule, Vec::new())),
            Some((rule, Action::Rewrite(rewrite))) if size <= MAX_REWRITTEN => {
                let mut whole = Vec::new();
                bytes.read_to_end(&mut whole).at("reading", shown(&path))?;
                let other = rewrite(&whole, self.epoch).filter(|other| *other != whole);
                bytes = Box::new(io::Cursor::new(whole));
                other.map(|other| (rule, other))
            }
            _ => None,
        };
        let Some((rule, other)) = other else {
            let entry = self.entry(path, Kind::File { size }, at);
            return self.emit_file(at, &entry, size, &mut bytes);
        };
        self.fire(rule, &path);
        let size = other.len() as u64;
        let entry = self.entry(path, Kind::File { size }, at);
        // It was changed now.
        let entry = Entry { mtime: self.epoch as u64, ..entry };
        self.emit_file(at, &entry, size, &mut &other[..])
    }

    fn emit_file(&mut self, at: usize, entry: &Entry, size: u64, bytes: &mut dyn Read) -> Result<(), E> {
        let mut content = FileContent { size, ..FileContent::default() };
        let mut start = Vec::new();
        // What is shorter than its size is refused by the writer.
        bytes.take(content.start.len() as u64).read_to_end(&mut start).at("reading", shown(&entry.path))?;
        content.start[..start.len()].copy_from_slice(&start);
        self.out.emit(entry, &mut start.chain(bytes))?;
        self.written.push((at, content));
        Ok(())
    }

    fn entry(&self, path: Vec<u8>, kind: Kind, at: usize) -> Entry {
        let Inode { mode, owner: (uid, gid), mtime, xattrs, .. } = &self.virtual_layer.inodes[at];
        // Never negative: it was clamped.
        let mtime = *mtime as u64;
        Entry { path, kind, mode: *mode, uid: *uid, gid: *gid, mtime, xattrs: xattrs.clone() }
    }

    fn fire(&mut self, rule: &'static str, path: &[u8]) {
        self.applied.push(AppliedRule { rule, path: String::from_utf8_lossy(path).into_owned() });
    }
}
