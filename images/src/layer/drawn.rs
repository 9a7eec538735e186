//! A layer that is drawn before it is written: what is put where, over what lies below, without a file system. Contents are
//! asked for one after another while the layer is written, so that nobody has to make a hundred thousand files in order to
//! read them again.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use super::compress::Compression;
use super::emit::{Emitter, Entered, OPAQUE, WHITEOUT, refuse_whiteout_name};
use super::entry::{Entry, Kind};
use super::normalise::{Action, Fired, MAX_REWRITTEN, Normaliser};
use super::read::Limits;
use super::strata::{Node, NodeKind, Seen, Strata};
use super::write::Written;
use crate::error::{At, Error, Result};
use crate::store::Store;

/// A layer that is being drawn. Files have contents of type `C`, whatever its user makes of that.
///
/// Paths are bytes without a leading slash, "" is the root. No link in them is followed: what is above a path must be a
/// directory.
#[derive(Debug)]
pub struct Drawing<'a, C> {
    below: &'a Strata,
    epoch: i64,
    drawn: Drawn,
    /// Of files, by number.
    contents: Vec<Option<C>>,
}

/// What is put at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum New<C> {
    /// A directory, with nothing in it.
    Directory,
    /// A file.
    File(C),
    /// A symbolic link to this text.
    Link(Vec<u8>),
    /// A pipe.
    Fifo,
}

/// What is said of a path. None stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dress {
    /// Permissions with setuid, setgid and sticky; nothing for a symbolic link.
    pub mode: Option<u32>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Seconds since 1970; later ones than the epoch become it.
    pub mtime: Option<i64>,
    /// Extended attributes beside those that are there.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A layer that was drawn and written: what it says of each path.
#[derive(Debug, Default)]
pub struct Drawn {
    /// The root first.
    inodes: Vec<Inode>,
}

#[derive(Debug)]
struct Inode {
    what: What,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How many names it has.
    names: u32,
}

#[derive(Debug)]
enum What {
    Directory { children: BTreeMap<Vec<u8>, usize>, origin: Origin },
    File,
    Link(Vec<u8>),
    Fifo,
}

/// How a directory stands to what lies below.
#[derive(Debug)]
enum Origin {
    /// Nothing lies below.
    New,
    /// It hides a directory.
    Instead,
    /// It is that directory, which was so.
    Over { mode: u32, owner: (u32, u32), xattrs: BTreeMap<Vec<u8>, Vec<u8>> },
}

const ROOT: usize = 0;
/// A root's mode, and that of a directory before anything is said of it.
const DIRECTORY_MODE: u32 = 0o755;

impl Drawn {
    fn new() -> Self {
        let mode = DIRECTORY_MODE;
        let origin = Origin::Over { mode, owner: (0, 0), xattrs: BTreeMap::new() };
        let what = What::Directory { children: BTreeMap::new(), origin };
        Self {
            inodes: vec![Inode { what, mode, owner: (0, 0), mtime: 0, xattrs: BTreeMap::new(), names: 1 }],
        }
    }

    /// Whether it says anything of a path, or of what is in it.
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

    /// Whether what lies below shows in the directory at `path`, drawn or not.
    fn lets_through(&self, path: &[u8]) -> bool {
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
            What::File => NodeKind::File,
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

    fn children(&mut self, at: usize) -> Option<&mut BTreeMap<Vec<u8>, usize>> {
        match &mut self.inodes[at].what {
            What::Directory { children, .. } => Some(children),
            _ => None,
        }
    }
}

impl<'a, C> Drawing<'a, C> {
    /// Nothing yet, over what lies below. `epoch` is the time of now, in seconds since 1970.
    pub fn over(below: &'a Strata, epoch: i64) -> Self {
        Self { below, epoch: epoch.max(0), drawn: Drawn::new(), contents: vec![None] }
    }

    /// What is at `path`, if anything.
    ///
    /// # Errors
    /// When what lies below cannot be read.
    pub fn node(&self, path: &[u8]) -> Result<Option<Node>> {
        match self.drawn.look(path) {
            Seen::This(at) => Ok(Some(self.drawn.node(at))),
            Seen::Nothing => Ok(None),
            Seen::Through => Ok(self.below.find(path)?.map(|found| found.node)),
        }
    }

    /// The target of the link at `path`.
    ///
    /// # Errors
    /// When what lies below cannot be read.
    pub fn target(&self, path: &[u8]) -> Result<Vec<u8>> {
        match self.drawn.look(path) {
            Seen::This(at) => Ok(self.drawn.target(at).to_vec()),
            Seen::Nothing => Ok(Vec::new()),
            Seen::Through => self.below.find(path)?.map_or(Ok(Vec::new()), |found| found.target()),
        }
    }

    /// Puts something at `path`, where nothing else is then, a directory's contents included.
    ///
    /// # Errors
    /// When what is above it is no directory, or what lies below cannot be read.
    pub fn put(&mut self, path: &[u8], new: New<C>, dress: Dress) -> Result<()> {
        let may_hide = matches!(new, New::Directory) && self.drawn.lets_through(parent(path));
        let below = if may_hide { self.below.find(path)? } else { None };
        let hides = below.is_some_and(|found| found.node.kind == NodeKind::Directory);
        let (what, content, mode) = match new {
            New::Directory => {
                let origin = if hides { Origin::Instead } else { Origin::New };
                (What::Directory { children: BTreeMap::new(), origin }, None, DIRECTORY_MODE)
            }
            New::File(content) => (What::File, Some(content), 0o644),
            New::Link(target) => (What::Link(target), None, 0o777),
            New::Fifo => (What::Fifo, None, 0o644),
        };
        let (owner, mtime, xattrs) = ((0, 0), self.epoch, BTreeMap::new());
        let at = self.add(Inode { what, mode, owner, mtime, xattrs, names: 0 }, content);
        self.name(path, at)?;
        self.dress_inode(at, dress);
        Ok(())
    }

    /// Puts another name of what is at `to`, which is no directory, at `path`. `content` makes of a file below what has its
    /// bytes.
    ///
    /// # Errors
    /// When there is no such file, or its bytes are not to be had: its layer is only drawn.
    pub fn link(
        &mut self,
        path: &[u8],
        to: &[u8],
        content: impl FnOnce(&std::path::Path) -> C,
    ) -> Result<()> {
        let at = match self.drawn.look(to) {
            Seen::This(at) => at,
            Seen::Nothing => return Err(nothing_at(to)),
            Seen::Through => {
                let found = self.below.find(to)?.ok_or_else(|| nothing_at(to))?;
                let (what, content) = match found.node.kind {
                    NodeKind::File => {
                        let bytes = found.on_disk().ok_or_else(|| nothing_at(to))?;
                        (What::File, Some(content(bytes)))
                    }
                    NodeKind::Link => (What::Link(found.target()?), None),
                    NodeKind::Fifo => (What::Fifo, None),
                    NodeKind::Directory | NodeKind::Special => return Err(nothing_at(to)),
                };
                let Node { mode, owner, mtime, .. } = found.node;
                let xattrs = found.xattrs()?;
                let at = self.add(Inode { what, mode, owner, mtime, xattrs, names: 0 }, content);
                let above = self.directory(parent(to))?;
                // It is there already: only now it is drawn, which does not change its directory's time.
                let time = self.drawn.inodes[above].mtime;
                self.name(to, at)?;
                self.drawn.inodes[above].mtime = time;
                at
            }
        };
        self.name(path, at)
    }

    /// Says more of what is at `path`.
    ///
    /// # Errors
    /// When it is neither drawn nor a directory below.
    pub fn dress(&mut self, path: &[u8], dress: Dress) -> Result<()> {
        let at = match self.drawn.look(path) {
            Seen::This(at) => at,
            _ => self.directory(path)?,
        };
        self.dress_inode(at, dress);
        Ok(())
    }

    fn dress_inode(&mut self, at: usize, dress: Dress) {
        let inode = &mut self.drawn.inodes[at];
        if !matches!(inode.what, What::Link(_)) {
            inode.mode = dress.mode.map_or(inode.mode, |mode| mode & 0o7777);
        }
        inode.owner = dress.owner.unwrap_or(inode.owner);
        inode.mtime = dress.mtime.map_or(inode.mtime, |mtime| mtime.clamp(0, self.epoch));
        inode.xattrs.extend(dress.xattrs);
    }

    fn add(&mut self, mut inode: Inode, content: Option<C>) -> usize {
        inode.mtime = inode.mtime.clamp(0, self.epoch);
        self.drawn.inodes.push(inode);
        self.contents.push(content);
        self.drawn.inodes.len() - 1
    }

    /// Gives an inode a name, in the place of whatever has it.
    fn name(&mut self, path: &[u8], at: usize) -> Result<()> {
        let above = self.directory(parent(path))?;
        let name = parts(path).next_back().unwrap_or_default().to_vec();
        let children = self.drawn.children(above).ok_or_else(|| no_directory(parent(path)))?;
        let before = children.insert(name, at);
        self.drawn.inodes[at].names += 1;
        self.drawn.inodes[above].mtime = self.epoch;
        let mut gone: Vec<usize> = before.into_iter().collect();
        while let Some(one) = gone.pop() {
            self.drawn.inodes[one].names -= 1;
            if let Some(children) = self.drawn.children(one) {
                gone.extend(std::mem::take(children).into_values());
            }
        }
        Ok(())
    }

    /// The directory at `path`, drawn with those above it if it only lies below.
    fn directory(&mut self, path: &[u8]) -> Result<usize> {
        let mut at = ROOT;
        let mut end = 0;
        for name in parts(path) {
            end += usize::from(end > 0) + name.len();
            let is_over = match &self.drawn.inodes[at].what {
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
            let found = if is_over { self.below.find(here)? } else { None };
            let found = found.filter(|found| found.node.kind == NodeKind::Directory);
            let found = found.ok_or_else(|| no_directory(here))?;
            let Node { mode, owner, mtime, .. } = found.node;
            let xattrs = found.xattrs()?;
            let origin = Origin::Over { mode, owner, xattrs: xattrs.clone() };
            let what = What::Directory { children: BTreeMap::new(), origin };
            let made = self.add(Inode { what, mode, owner, mtime, xattrs, names: 1 }, None);
            let children = self.drawn.children(at).ok_or_else(|| no_directory(here))?;
            children.insert(name.to_vec(), made);
            at = made;
        }
        match &self.drawn.inodes[at].what {
            What::Directory { .. } => Ok(at),
            _ => Err(no_directory(path)),
        }
    }

    /// Writes the layer, as [`super::from_upper`] would that of an upper directory with the same in it. `open` gives the size
    /// of a file and its bytes.
    ///
    /// # Errors
    /// When a content cannot be had, or the store cannot be written; when the layer would hold more than [`Limits`] let
    /// anybody read again.
    pub fn write<E: From<Error>>(
        self,
        store: &Store,
        compression: Compression,
        rules: Normaliser,
        open: &mut dyn FnMut(C) -> Result<(u64, Box<dyn Read>), E>,
    ) -> Result<(Written, Drawn), E> {
        let mut writing = Writing {
            out: Emitter::new(store, compression, Limits::default()),
            drawn: &self.drawn,
            contents: self.contents,
            epoch: self.epoch,
            rules,
            open,
            fired: Vec::new(),
            first: HashMap::new(),
            dropped: Vec::new(),
        };
        writing.all()?;
        let Writing { out, fired, dropped, .. } = writing;
        let layer = out.finish()?;
        let mut drawn = self.drawn;
        for (above, name) in dropped {
            drawn.children(above).map(|children| children.remove(&name));
        }
        Ok((Written { layer, fired }, drawn))
    }
}

/// A drawing on its way to a layer.
struct Writing<'a, 'o, C, E> {
    out: Emitter<'a>,
    drawn: &'a Drawn,
    contents: Vec<Option<C>>,
    epoch: i64,
    rules: Normaliser,
    open: &'o mut dyn FnMut(C) -> Result<(u64, Box<dyn Read>), E>,
    fired: Vec<Fired>,
    /// The first names of what has several, once they are written.
    first: HashMap<usize, Vec<u8>>,
    /// What the rules left out, by directory and name.
    dropped: Vec<(usize, Vec<u8>)>,
}

/// A directory that is being written, and what is left of what is in it.
struct Level<'d> {
    path: Vec<u8>,
    at: usize,
    left: std::vec::IntoIter<(&'d [u8], Child)>,
    /// The root is no entry.
    entered: Option<Entered>,
}

#[derive(Clone, Copy)]
enum Child {
    Inode(usize),
    /// What says that nothing from below shows.
    Marker,
}

impl<'a, C, E: From<Error>> Writing<'a, '_, C, E> {
    fn all(&mut self) -> Result<(), E> {
        // Not by recursion: how deep directories are nested is not ours to say.
        let mut way: Vec<Level<'a>> = self.level(&[], ROOT).into_iter().collect();
        while let Some(level) = way.last_mut() {
            let Some((name, child)) = level.left.next() else {
                if let Some(level) = way.pop() {
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
                    Some(inner) => way.push(inner),
                    None => self.leaf(path, at, (above, name))?,
                },
            }
        }
        Ok(())
    }

    /// Enters a directory; none when it is something else.
    fn level(&mut self, path: &[u8], at: usize) -> Option<Level<'a>> {
        let What::Directory { children, origin } = &self.drawn.inodes[at].what else { return None };
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
        let What::Directory { origin, .. } = &self.drawn.inodes[level.at].what else { return Ok(()) };
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

    /// Writes what is no directory, and is called `name` in one.
    fn leaf(&mut self, path: Vec<u8>, at: usize, (above, name): (usize, &[u8])) -> Result<(), E> {
        let Inode { what, mode, names, .. } = &self.drawn.inodes[at];
        let first = self.first.get(&at);
        // A program is the step's work, in whatever folder it lies.
        let is_data = matches!(what, What::File) && mode & 0o111 == 0;
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
            What::File | What::Directory { .. } => return self.file(path, at, rule),
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
            return Ok(self.out.emit(&self.entry(path, Kind::File { size }, at), &mut bytes)?);
        };
        self.fire(rule, &path);
        let entry = self.entry(path, Kind::File { size: other.len() as u64 }, at);
        // It was changed now.
        let entry = Entry { mtime: self.epoch as u64, ..entry };
        Ok(self.out.emit(&entry, &mut &other[..])?)
    }

    fn entry(&self, path: Vec<u8>, kind: Kind, at: usize) -> Entry {
        let Inode { mode, owner: (uid, gid), mtime, xattrs, .. } = &self.drawn.inodes[at];
        // Never negative: it was clamped.
        let mtime = *mtime as u64;
        Entry { path, kind, mode: *mode, uid: *uid, gid: *gid, mtime, xattrs: xattrs.clone() }
    }

    fn fire(&mut self, rule: &'static str, path: &[u8]) {
        self.fired.push(Fired { rule, path: String::from_utf8_lossy(path).into_owned() });
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
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
