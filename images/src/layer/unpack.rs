//! Unpacks an untrusted layer into a directory that is used as a lower directory of an overlay.
//!
//! Every path is opened relative to the target with `openat2` and `RESOLVE_IN_ROOT`, so that neither `..` nor a
//! symbolic link from the layer itself leads outside. Names that try are refused nevertheless: no legitimate layer
//! has them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use attestations::Digest;
use rustix::fs::{
    self as sys, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use tar::EntryType;

use super::archive::{ArchiveEntry, Entries};
use super::read::{LayerLimits, open_archive};
use crate::descriptor::Descriptor;
use crate::error::{At, Error, Result};
use crate::store::Store;

const OPAQUE_MARKER: &str = ".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";
const MAX_DEPTH: usize = 256;
/// The most device nodes that are named.
const MOST_DEVICES: usize = 1000;

/// Unpacks a layer into the empty directory `into`. Whiteouts become overlayfs's own; owners, modes, times and
/// attributes are kept. Device nodes are left out, as runtimes do that may make none: what lies below them in other layers
/// does not show either. Returns the paths of those, without a leading slash; the first thousand of them.
///
/// # Errors
/// When the layer does not match its digests, exceeds `limits`, has a path that leads outside, or the disk refuses. Then
/// `into` has a part of the files, and must not be used.
pub fn unpack(
    store: &Store,
    layer: &Descriptor,
    diff_id: &Digest,
    into: &Path,
    limits: LayerLimits,
) -> Result<Vec<String>> {
    let archive = open_archive(store, layer, Some(diff_id), limits)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let root = sys::open(into, flags, Mode::empty()).at("opening", into)?;
    let mut unpacking = Unpacking { root, into: into.to_owned(), parent: None, devices: Vec::new() };
    let what = format!("layer {}", layer.digest);
    let mut entries = Entries::new(archive.reader(), &what);
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > limits.entries {
            return Err(Error::refused(what, format!("it has more than {} entries", limits.entries)));
        }
        // Checked before any of it is written: the header of a bomb gives its size.
        if entry.size > limits.bytes {
            return Err(Error::TooLarge { what: format!("the archive of {what}"), limit: limits.bytes });
        }
        unpacking.entry(&entry, &mut entries.content(), &what)?;
    }
    unpacking.leave()?;
    archive.finish()?;
    Ok(unpacking.devices)
}

struct Unpacking {
    root: OwnedFd,
    into: PathBuf,
    /// The directory opened last: archives list a directory's entries together.
    parent: Option<Parent>,
    /// The device nodes that were left out.
    devices: Vec<String>,
}

/// The directory that is being filled. Every new entry changes its time, so it is restored when the directory is
/// left.
struct Parent {
    path: PathBuf,
    fd: OwnedFd,
    times: Timestamps,
}

impl Unpacking {
    fn entry(&mut self, entry: &ArchiveEntry, content: &mut impl Read, what: &str) -> Result<()> {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let refused = |reason: &str| Error::refused(what, format!("entry `{shown}`: {reason}"));
        let path = clean(&entry.path).map_err(refused)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(entry);
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        self.enter(&folder)?;
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&folder, &name).map_err(|error| match error {
                Error::Refused { reason, .. } => refused(&reason),
                other => other,
            });
        }
        self.clear_place(&path, &name, entry.kind)?;
        let parent = self.parent_fd(&folder)?;
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(
                    sys::openat(parent, &name, flags, Mode::from_raw_mode(0o600))
                        .at("making", self.into.join(&path))?,
                );
                io::copy(content, &mut file).at("writing", self.into.join(&path))?;
            }
            EntryType::Directory => {
                make_directory(parent, &name, 0o700).at("making", self.into.join(&path))?;
            }
            EntryType::Symlink => {
                let target =
                    entry.link.as_deref().ok_or_else(|| refused("a symbolic link without target"))?;
                sys::symlinkat(OsStr::from_bytes(target), parent, &name)
                    .at("linking", self.into.join(&path))?;
            }
            EntryType::Link => {
                let target = entry.link.as_deref().ok_or_else(|| refused("a hard link without target"))?;
                let target = clean(target).map_err(|_| refused("a hard link that leads out of the layer"))?;
                return self.hard_link(&target, &folder, &name).map_err(|error| match error {
                    Error::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                        refused("a hard link to nothing in this layer")
                    }
                    other => other,
                });
            }
            EntryType::Fifo => sys::mknodat(parent, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .at("making", self.into.join(&path))?,
            EntryType::Char | EntryType::Block => return self.device(&path, &folder, &name),
            other => return Err(refused(&format!("an entry of type {:?}", other.as_byte() as char))),
        }
        self.attributes(entry, &path, &folder, &name, mode)
    }

    /// Leaves a device node out, and hides what lies below it.
    fn device(&mut self, path: &Path, folder: &Path, name: &OsStr) -> Result<()> {
        if self.devices.len() < MOST_DEVICES {
            self.devices.push(path.to_string_lossy().into_owned());
        }
        let parent = self.parent_fd(folder)?;
        sys::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
            .at("hiding", self.into.join(path))
    }

    /// Owner first, then mode (a change of owner clears setuid), then attributes, then time.
    fn attributes(
        &mut self,
        entry: &ArchiveEntry,
        path: &Path,
        folder: &Path,
        name: &OsStr,
        mode: Mode,
    ) -> Result<()> {
        let place = self.into.join(path);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        let kind = entry.kind;
        let times = both(entry.mtime);
        let parent = self.parent_fd(folder)?;
        sys::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .at("setting the owner of", &place)?;
        if kind != EntryType::Symlink {
            sys::chmodat(parent, name, mode, AtFlags::empty()).at("setting the mode of", &place)?;
        }
        set_xattrs(entry, parent, name, &place)?;
        sys::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).at("setting the time of", &place)
    }

    fn root_entry(&mut self, entry: &ArchiveEntry) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        sys::fchmod(&self.root, mode).at("setting the mode of", &self.into)?;
        self.leave()?;
        sys::futimens(&self.root, &both(entry.mtime)).at("setting the time of", &self.into)
    }

    fn whiteout(&mut self, folder: &Path, name: &OsStr) -> Result<()> {
        let parent = self.parent_fd(folder)?;
        if name == OPAQUE_MARKER {
            return mark_opaque(parent).at("marking", self.into.join(folder));
        }
        let hidden = OsString::from_vec(name.as_bytes()[WHITEOUT.len()..].to_vec());
        if hidden.is_empty() || hidden == "." || hidden == ".." || hidden.as_bytes().starts_with(WHITEOUT) {
            return Err(Error::refused("", "a whiteout of no name"));
        }
        match sys::mknodat(parent, &hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // Created and deleted in one layer: a whiteout applies to lower layers only, so the entry stays.
            Err(rustix::io::Errno::EXIST) => {
                hide_below(parent, &hidden).at("hiding", self.into.join(folder).join(hidden))
            }
            Err(cause) => Err(cause).at("hiding", self.into.join(folder).join(hidden)),
        }
    }

    fn hard_link(&mut self, target: &Path, folder: &Path, name: &OsStr) -> Result<()> {
        let from = target.parent().unwrap_or(Path::new(""));
        let from_fd = self.open_folder(from)?;
        let target_name = target.file_name().ok_or_else(|| Error::refused("", "a hard link to the root"))?;
        let parent = self.parent_fd(folder)?;
        sys::linkat(&from_fd, target_name, parent, name, AtFlags::empty())
            .at("linking", self.into.join(folder).join(name))
    }

    /// A later entry of the same name replaces an earlier one, but a directory stays a directory.
    fn clear_place(&mut self, path: &Path, name: &OsStr, kind: EntryType) -> Result<()> {
        let parent = self.parent_fd(path.parent().unwrap_or(Path::new("")))?;
        let stat = match sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(cause) => return Err(cause).at("looking at", self.into.join(path)),
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match (is_directory, kind == EntryType::Directory) {
            (true, true) => Ok(()),
            (true, false) => Err(Error::refused(
                self.into.join(path).display().to_string(),
                "the layer puts a file in the place of its own directory",
            )),
            // The layer's own whiteout: the new directory starts empty.
            (false, true) if is_whiteout(&stat) => Ok(()),
            (false, _) => sys::unlinkat(parent, name, AtFlags::empty()).at("replacing", self.into.join(path)),
        }
    }

    fn enter(&mut self, folder: &Path) -> Result<()> {
        if self.parent.as_ref().is_some_and(|parent| parent.path == folder) {
            return Ok(());
        }
        let opened = match self.open_folder(folder) {
            Err(Error::Io { cause, .. })
                if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                self.make_folders(folder)
                    .and_then(|()| self.open_folder(folder))
                    .map_err(|error| leads_nowhere(folder, error))?
            }
            other => other.map_err(|error| leads_nowhere(folder, error))?,
        };
        // The current one is left first: through a symbolic link, both may be the same.
        self.leave()?;
        let times = times_of(&opened).at("looking at", self.into.join(folder))?;
        self.parent = Some(Parent { path: folder.to_owned(), fd: opened, times });
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(parent) = self.parent.take() else { return Ok(()) };
        sys::futimens(&parent.fd, &parent.times).at("setting the time of", self.into.join(parent.path))
    }

    /// Creates folders that the archive does not list with the attributes that other tools use: 0755, owned by root.
    fn make_folders(&mut self, folder: &Path) -> Result<()> {
        let mut path = PathBuf::new();
        for component in folder.components() {
            let parent = self.open_folder(&path)?;
            let times = times_of(&parent).at("looking at", self.into.join(&path))?;
            path.push(component);
            if make_directory(&parent, component.as_os_str(), 0o755).at("making", self.into.join(&path))? {
                let made = self.open_folder(&path)?;
                sys::futimens(&made, &both(0)).at("setting the time of", self.into.join(&path))?;
                sys::futimens(&parent, &times).at("setting the time of", self.into.join(&path))?;
            }
        }
        Ok(())
    }

    fn open_folder(&self, folder: &Path) -> Result<OwnedFd> {
        let path = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        sys::openat2(&self.root, path, flags, Mode::empty(), resolve).at("entering", self.into.join(folder))
    }

    fn parent_fd(&self, folder: &Path) -> Result<&OwnedFd> {
        match &self.parent {
            Some(parent) if parent.path == folder => Ok(&parent.fd),
            _ => Err(Error::refused(folder.display().to_string(), "was left while it was written to")),
        }
    }
}

/// If a folder is missing after it was created, or is not a folder, the layer has a symbolic link or file in its
/// place.
fn leads_nowhere(folder: &Path, error: Error) -> Error {
    use rustix::io::Errno;
    let nowhere = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Errno::raw_os_error);
    match error {
        Error::Io { cause, .. } if cause.raw_os_error().is_some_and(|code| nowhere.contains(&code)) => {
            let folder = folder.display();
            Error::refused(
                "the layer",
                format!("it has entries below `{folder}`, which is no folder, or a link that leads to none"),
            )
        }
        other => other,
    }
}

fn both(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn times_of(folder: &OwnedFd) -> rustix::io::Result<Timestamps> {
    let stat = sys::fstat(folder)?;
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 };
    Ok(Timestamps { last_access: time, last_modification: time })
}

/// Creates a directory if there is none. In place of the layer's own whiteout it becomes opaque (image-spec,
/// layer.md).
fn make_directory(parent: &OwnedFd, name: &OsStr, mode: u32) -> rustix::io::Result<bool> {
    let make = || sys::mkdirat(parent, name, Mode::from_raw_mode(mode));
    match make() {
        Ok(()) => return Ok(true),
        Err(rustix::io::Errno::EXIST) => {}
        Err(cause) => return Err(cause),
    }
    if !is_whiteout(&sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?) {
        return Ok(false);
    }
    sys::unlinkat(parent, name, AtFlags::empty())?;
    make()?;
    hide_below(parent, name)?;
    Ok(true)
}

/// Marks `name` as opaque if it is a directory; other entries hide lower ones anyway.
fn hide_below(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match sys::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => mark_opaque(&folder),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(()),
        Err(cause) => Err(cause),
    }
}

fn mark_opaque(folder: &OwnedFd) -> rustix::io::Result<()> {
    sys::fsetxattr(folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

/// No layer's own device is made, so a character device here is a whiteout that was created while unpacking.
fn is_whiteout(stat: &sys::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
}

fn set_xattrs(entry: &ArchiveEntry, parent: &OwnedFd, name: &OsStr, place: &Path) -> Result<()> {
    for (attribute, value) in &entry.xattrs {
        if attribute.starts_with(b"trusted.overlay.") || attribute.starts_with(b"user.overlay.") {
            return Err(Error::refused(
                place.display().to_string(),
                "it carries the overlay's own attributes, which no image may bring",
            ));
        }
        // No system call sets an attribute relative to an open directory without following a symbolic link.
        let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
        let attribute =
            std::ffi::CString::new(&attribute[..]).map_err(io::Error::from).at("reading", place)?;
        sys::lsetxattr(&path, &attribute, value, XattrFlags::empty()).at("setting an attribute of", place)?;
    }
    Ok(())
}

/// The path inside the layer: relative, without `.`. Absolute names and `..` are refused.
fn clean(raw: &[u8]) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::new();
    let mut depth = 0;
    if raw.contains(&0) {
        return Err("its name has a NUL");
    }
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("its path leads out of the layer with `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("its path is absolute"),
        }
        depth += 1;
        if depth > MAX_DEPTH {
            return Err("it is nested deeper than 256 directories");
        }
    }
    Ok(path)
}
