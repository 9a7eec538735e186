//! From what a step changed to a layer: the upper directory of an overlay, read in canonical order.
//!
//! The upper directory is normalised in place first (rules, times), because the next step of the build stands on it and has to
//! see what the layer says.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::compress::Compression;
use super::entry::{Entry, Kind};
use super::normalise::{Action, Fired, MAX_REWRITTEN, Normaliser};
use super::write::{Layer, LayerWriter, order};
use crate::error::{At, Error, Result};
use crate::store::Store;

const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
const WHITEOUT: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];
/// What lies here is not all of it.
const ELSEWHERE: [&str; 4] = [
    "trusted.overlay.redirect",
    "user.overlay.redirect",
    "trusted.overlay.metacopy",
    "user.overlay.metacopy",
];
const OVERLAY: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// What came of an upper directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromUpper {
    /// The layer; none when the step changed nothing.
    pub layer: Option<Layer>,
    /// The rules that changed something, by rule and path.
    pub fired: Vec<Fired>,
}

/// Writes what is in `upper` as a layer: times no later than `epoch` (seconds since 1970), in canonical order, normalised by `rules`.
///
/// `lowers` are the directories below it, the topmost first. A directory that differs from the one below in nothing but its
/// time, and has nothing in it that changed, was only copied up, and is left out.
///
/// # Errors
/// When the directory cannot be read or the store cannot be written.
pub fn from_upper(
    store: &Store,
    upper: &Path,
    lowers: &[PathBuf],
    epoch: i64,
    compression: Compression,
    rules: Normaliser,
) -> Result<FromUpper> {
    let mut walk = Walk {
        upper,
        lowers,
        epoch: epoch.max(0),
        rules,
        fired: Vec::new(),
        links: HashMap::new(),
        entries: Vec::new(),
    };
    walk.directory(Vec::new())?;
    let Walk { fired, mut entries, .. } = walk;
    // A whiteout has another name in the archive than in the overlay, and so another place.
    entries.sort_by(|a, b| order(&a.path, &b.path));
    if entries.is_empty() {
        return Ok(FromUpper { layer: None, fired });
    }
    let mut writer = LayerWriter::new(store, compression)?;
    for entry in &entries {
        let path = upper.join(OsStr::from_bytes(&entry.path));
        match entry.kind {
            Kind::File { size } if size > 0 => {
                writer.add(entry, &mut File::open(&path).at("opening", &path)?)?
            }
            _ => writer.add(entry, &mut io::empty())?,
        }
    }
    Ok(FromUpper { layer: Some(writer.finish()?), fired })
}

struct Walk<'a> {
    upper: &'a Path,
    lowers: &'a [PathBuf],
    epoch: i64,
    rules: Normaliser,
    fired: Vec<Fired>,
    /// The first path of each file that has several names, by inode.
    links: HashMap<u64, Vec<u8>>,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn directory(&mut self, path: Vec<u8>) -> Result<()> {
        let place = self.upper.join(OsStr::from_bytes(&path));
        let mut names = Vec::new();
        for child in fs::read_dir(&place).at("reading", &place)? {
            names.push(child.at("reading", &place)?.file_name().into_vec());
        }
        names.sort();
        for name in names {
            let child = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
            self.child(child)?;
        }
        Ok(())
    }

    fn child(&mut self, path: Vec<u8>) -> Result<()> {
        let place = self.upper.join(OsStr::from_bytes(&path));
        let metadata = fs::symlink_metadata(&place).at("reading", &place)?;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if name.starts_with(b".wh.") {
            let reason = "a step made a name that begins with `.wh.`: in a layer it would delete something";
            return Err(Error::refused(place.display().to_string(), reason));
        }
        if metadata.is_dir() {
            return self.child_directory(path, &place, &metadata);
        }
        if is_whiteout(&place, &metadata) {
            self.entries.push(whiteout(&path, self.epoch));
            return Ok(());
        }
        if metadata.file_type().is_socket() {
            // A socket means nothing without the process that listened; no archive holds one.
            self.fired.push(Fired { rule: "sockets", path: String::from_utf8_lossy(&path).into_owned() });
            return fs::remove_file(&place).at("removing", &place);
        }
        let metadata = match self.normalise(&path, &place, metadata)? {
            Some(metadata) => metadata,
            None => return Ok(()),
        };
        self.settle_time(&place, &metadata)?;
        let kind = self.kind(&path, &place, &metadata)?;
        self.entries.push(self.entry(path, kind, &metadata, xattrs(&place)?));
        Ok(())
    }

    fn child_directory(&mut self, path: Vec<u8>, place: &Path, metadata: &fs::Metadata) -> Result<()> {
        let found = all_xattrs(place)?;
        let opaque = OPAQUE.iter().any(|name| found.get(name.as_bytes()).is_some_and(|value| value == b"y"));
        let own: BTreeMap<_, _> = found.into_iter().filter(|(name, _)| !is_overlay(name)).collect();
        let at = self.entries.len();
        self.entries.push(self.entry(path.clone(), Kind::Directory, metadata, own));
        if opaque {
            self.entries.push(marker([&path[..], b"/.wh..wh..opq"].concat(), self.epoch));
        }
        self.directory(path.clone())?;
        // What the walk took out changed the time; the layer says the one before.
        set_time(place, self.entries[at].mtime, &fs::symlink_metadata(place).at("reading", place)?)?;
        if self.entries.len() == at + 1 && self.only_copied_up(&path, &self.entries[at])? {
            self.entries.pop();
        }
        Ok(())
    }

    fn only_copied_up(&self, path: &[u8], entry: &Entry) -> Result<bool> {
        for lower in self.lowers {
            let place = lower.join(OsStr::from_bytes(path));
            let Ok(below) = fs::symlink_metadata(&place) else { continue };
            let same = below.is_dir()
                && (below.mode() & 0o7777, below.uid(), below.gid()) == (entry.mode, entry.uid, entry.gid);
            return Ok(same && xattrs(&place)? == entry.xattrs);
        }
        Ok(false)
    }

    fn normalise(
        &mut self,
        path: &[u8],
        place: &Path,
        metadata: fs::Metadata,
    ) -> Result<Option<fs::Metadata>> {
        let Some((rule, action)) = metadata.is_file().then(|| self.rules.action(path)).flatten() else {
            return Ok(Some(metadata));
        };
        let fired = Fired { rule, path: String::from_utf8_lossy(path).into_owned() };
        match action {
            Action::Drop => {
                fs::remove_file(place).at("removing", place)?;
                self.fired.push(fired);
                return Ok(None);
            }
            Action::Empty if metadata.len() > 0 => {
                File::options().write(true).truncate(true).open(place).at("emptying", place)?;
                self.fired.push(fired);
            }
            Action::Rewrite(rewrite) if metadata.len() <= MAX_REWRITTEN => {
                let bytes = fs::read(place).at("reading", place)?;
                if let Some(other) = rewrite(&bytes, self.epoch).filter(|other| *other != bytes) {
                    // In place, so that owner, permissions and other names stay.
                    fs::write(place, other).at("rewriting", place)?;
                    self.fired.push(fired);
                }
            }
            Action::Empty | Action::Rewrite(_) => {}
        }
        fs::symlink_metadata(place).at("reading", place).map(Some)
    }

    /// Later steps see the time that the layer says.
    fn settle_time(&self, place: &Path, metadata: &fs::Metadata) -> Result<()> {
        set_time(place, self.clamp(metadata), metadata)
    }

    fn clamp(&self, metadata: &fs::Metadata) -> u64 {
        metadata.mtime().clamp(0, self.epoch) as u64
    }

    fn kind(&mut self, path: &[u8], place: &Path, metadata: &fs::Metadata) -> Result<Kind> {
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&metadata.ino()) {
                return Ok(Kind::HardLink(first.clone()));
            }
            self.links.insert(metadata.ino(), path.to_vec());
        }
        let file_type = metadata.file_type();
        let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        Ok(match () {
            () if file_type.is_symlink() => {
                Kind::Symlink(fs::read_link(place).at("reading", place)?.into_os_string().into_vec())
            }
            () if file_type.is_fifo() => Kind::Fifo,
            () if file_type.is_char_device() => Kind::CharDevice(device.0, device.1),
            () if file_type.is_block_device() => Kind::BlockDevice(device.0, device.1),
            () => Kind::File { size: metadata.len() },
        })
    }

    fn entry(
        &self,
        path: Vec<u8>,
        kind: Kind,
        metadata: &fs::Metadata,
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Entry {
        // A symbolic link's own mode means nothing on Linux.
        let mode = if metadata.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 };
        Entry {
            path,
            kind,
            mode,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: self.clamp(metadata),
            xattrs,
        }
    }
}

fn set_time(place: &Path, seconds: u64, metadata: &fs::Metadata) -> Result<()> {
    let seconds = seconds as i64;
    if (metadata.mtime(), metadata.mtime_nsec()) == (seconds, 0) {
        return Ok(());
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW).at("setting the time of", place)
}

fn is_whiteout(place: &Path, metadata: &fs::Metadata) -> bool {
    if metadata.file_type().is_char_device() {
        return metadata.rdev() == 0;
    }
    metadata.is_file()
        && metadata.len() == 0
        && WHITEOUT.iter().any(|name| read_xattr(place, name.as_bytes()).is_ok_and(|value| value.is_some()))
}

fn whiteout(path: &[u8], epoch: i64) -> Entry {
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => path.split_at(at + 1),
        None => (&b""[..], path),
    };
    marker([folder, b".wh.", name].concat(), epoch)
}

fn marker(path: Vec<u8>, epoch: i64) -> Entry {
    Entry {
        path,
        kind: Kind::File { size: 0 },
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: epoch.max(0) as u64,
        xattrs: BTreeMap::new(),
    }
}

fn is_overlay(name: &[u8]) -> bool {
    OVERLAY.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// The extended attributes that belong to the image: all but the overlay's own.
fn xattrs(place: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    Ok(all_xattrs(place)?.into_iter().filter(|(name, _)| !is_overlay(name)).collect())
}

fn all_xattrs(place: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 4096];
    let length = loop {
        match rustix::fs::llistxattr(place, &mut names[..]) {
            Ok(length) => break length,
            Err(rustix::io::Errno::RANGE) if names.len() < 1 << 16 => names.resize(names.len() * 2, 0),
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
            Err(cause) => return Err(cause).at("listing the attributes of", place),
        }
    };
    let mut found = BTreeMap::new();
    let elsewhere = |name: &[u8]| ELSEWHERE.iter().any(|known| known.as_bytes() == name);
    if names[..length].split(|byte| *byte == 0).any(elsewhere) {
        let reason = "the overlay keeps its content or its place elsewhere: mount it with redirect_dir=off,metacopy=off";
        return Err(Error::refused(place.display().to_string(), reason));
    }
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Some(value) = read_xattr(place, name)? {
            found.insert(name.to_vec(), value);
        }
    }
    Ok(found)
}

fn read_xattr(place: &Path, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let name = CString::new(name).map_err(io::Error::from).at("reading the attributes of", place)?;
    let mut value = vec![0; 1 << 16];
    match rustix::fs::lgetxattr(place, &name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(cause) => Err(cause).at("reading the attributes of", OsString::from_vec(name.into_bytes())),
    }
}
