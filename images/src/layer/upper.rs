//! Makes a layer from a step's changes: the upper directory of an overlay, read in canonical order.
//!
//! Meanwhile the upper directory is changed to match the layer (rules, times, copied-up directories), because the
//! next step of the build uses it as a lower directory, so that the layer need not be unpacked. One walk does
//! everything: each file is inspected and read once. Memory does not grow with the tree: only the names of open
//! directories are held, and they and the hard links are moved to disk when there are many.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::compress::Keeping;
use super::emit::{Emitter, Entered, OPAQUE, WHITEOUT, refuse_whiteout_name};
use super::entry::{Entry, Kind};
use super::layer_stack::on_disk;
use super::links::Links;
use super::names::{Sorted, Spill};
use super::normalise::{Action, AppliedRule, MAX_REWRITTEN, Normaliser};
use super::read::LayerLimits;
use super::write::Written;
use super::xattrs::Attributes;
use crate::error::{At, Error, Result};
use crate::store::Store;

/// The mode of a root that no layer sets.
const ROOT_MODE: u32 = 0o755;

/// The times allowed in a layer, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The build's time; later ones are set to it.
    pub epoch: i64,
    /// The time of another build that the layer is from; it is replaced by this build's.
    pub other: Option<i64>,
}

impl From<i64> for Times {
    fn from(epoch: i64) -> Self {
        Self { epoch, other: None }
    }
}

impl Times {
    /// The time in the layer for a time on disk.
    fn of(self, time: i64) -> u64 {
        let time = if self.other == Some(time) { self.epoch } else { time };
        time.clamp(0, self.epoch) as u64
    }
}

/// Writes the content of `upper` as a layer: with these times, in canonical order, normalised by `rules`.
///
/// `lowers` are the directories below it, the topmost first. A directory that was only copied up is left out: it
/// differs from the lower one in nothing but its time, and nothing in it has changed.
///
/// Afterwards `upper` equals the unpacked layer, and can be used as a lower directory.
///
/// # Errors
/// When the directory cannot be read or the store cannot be written; when the layer would exceed [`LayerLimits`] and could
/// not be unpacked again, which is detected before that much is written.
pub fn from_upper(
    store: &Store,
    upper: &Path,
    lowers: &[PathBuf],
    times: impl Into<Times>,
    keeping: impl Into<Keeping>,
    rules: Normaliser,
) -> Result<Written> {
    from_upper_within(store, upper, lowers, times.into(), keeping.into(), rules, LayerLimits::default())
}

/// The same with limits other than the default.
fn from_upper_within(
    store: &Store,
    upper: &Path,
    lowers: &[PathBuf],
    times: Times,
    keeping: Keeping,
    rules: Normaliser,
    limits: LayerLimits,
) -> Result<Written> {
    let mut walk = Walk {
        out: Emitter::new(store, keeping, limits),
        upper,
        lowers,
        times: Times { epoch: times.epoch.max(0), ..times },
        rules,
        applied: Vec::new(),
        links: Links::new(store.root()),
        spill: Spill::new(store.root()),
    };
    walk.all()?;
    settle_root(upper)?;
    Ok(Written { layer: walk.out.finish()?, applied: walk.applied })
}

struct Walk<'a> {
    out: Emitter<'a>,
    upper: &'a Path,
    lowers: &'a [PathBuf],
    times: Times,
    rules: Normaliser,
    applied: Vec<AppliedRule>,
    links: Links,
    spill: Spill,
}

/// A directory that is being walked.
struct Folder {
    path: Vec<u8>,
    names: Sorted,
    /// Whether anything of the lower layers is visible in it.
    below: Below,
    /// Its time in the layer, and its state in the emitter. The root has no entry.
    entry: Option<(u64, Entered)>,
}

/// Whether the lower content of a directory is visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Shows,
    Hidden,
}

/// The forms of whiteouts that overlayfs accepts in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whiteouts {
    /// Devices 0/0.
    Devices,
    /// Empty files with an attribute as well.
    FilesToo,
}

impl Whiteouts {
    fn of(directory: &Attributes) -> Self {
        if directory.holds_whiteouts() { Self::FilesToo } else { Self::Devices }
    }
}

impl Walk<'_> {
    fn all(&mut self) -> Result<()> {
        let names = self.names(self.upper, Below::Shows, Whiteouts::of(&Attributes::of(self.upper)?))?;
        let root = Folder { path: Vec::new(), names, below: Below::Shows, entry: None };
        // Without recursion, since a step can nest directories arbitrarily deep.
        let mut open = vec![root];
        while let Some(mut folder) = open.pop() {
            let Some(name) = self.spill.next(&mut folder.names)? else {
                self.leave(folder)?;
                continue;
            };
            let path =
                if folder.path.is_empty() { name.clone() } else { [&folder.path[..], b"/", &name].concat() };
            let below = folder.below;
            open.push(folder);
            if name.starts_with(WHITEOUT) {
                self.out.emit(&Entry::marker(path, self.times.epoch), &mut io::empty())?;
            } else {
                open.extend(self.child(path, below)?);
            }
        }
        Ok(())
    }

    /// The names in a directory in the form and order of the archive: a whiteout's prefix changes its position.
    fn names(&mut self, place: &Path, below: Below, whiteouts: Whiteouts) -> Result<Sorted> {
        let mut names = self.spill.begin();
        if below == Below::Hidden {
            self.spill.add(&mut names, OPAQUE)?;
        }
        for child in fs::read_dir(place).at("reading", place)? {
            let child = child.at("reading", place)?;
            let mut name = child.file_name().into_vec();
            if name.starts_with(WHITEOUT) {
                return Err(refuse_whiteout_name(child.path().display().to_string()));
            }
            if is_whiteout(&child, whiteouts)? {
                name.splice(..0, WHITEOUT.iter().copied());
            }
            self.spill.add(&mut names, &name)?;
        }
        self.spill.sort(names)
    }

    /// Writes the entry at `path`, unless it is a directory, which is walked first.
    fn child(&mut self, path: Vec<u8>, within: Below) -> Result<Option<Folder>> {
        let place = self.upper.join(OsStr::from_bytes(&path));
        let metadata = fs::symlink_metadata(&place).at("reading", &place)?;
        if metadata.is_dir() {
            return self.enter(path, within, &place, &metadata).map(Some);
        }
        if metadata.file_type().is_socket() {
            // A socket is meaningless without its process, and archives cannot have sockets.
            self.applied
                .push(AppliedRule { rule: "sockets", path: String::from_utf8_lossy(&path).into_owned() });
            fs::remove_file(&place).at("removing", &place)?;
            return Ok(None);
        }
        let Some(metadata) = self.normalise(&path, &place, metadata)? else { return Ok(None) };
        // Later steps see the time in the layer.
        set_time(&place, (self.clamp(&metadata) as i64, 0), &metadata)?;
        let attributes = Attributes::of(&place)?;
        if attributes.whiteout() {
            let reason = "it is marked as the overlay's whiteout where the overlay would not take it for one";
            return Err(Error::refused(place.display().to_string(), reason));
        }
        let kind = self.kind(&path, &place, &metadata)?;
        let entry = self.entry(path, kind, &metadata, attributes.own);
        match entry.kind {
            Kind::File { size } if size > 0 => {
                self.out.emit(&entry, &mut File::open(&place).at("opening", &place)?)?
            }
            _ => self.out.emit(&entry, &mut io::empty())?,
        }
        Ok(None)
    }

    fn enter(
        &mut self,
        path: Vec<u8>,
        within: Below,
        place: &Path,
        metadata: &fs::Metadata,
    ) -> Result<Folder> {
        let attributes = Attributes::of(place)?;
        let lower = if within == Below::Hidden { None } else { self.directory_below(&path)? };
        // The kernel also marks some new directories as opaque; in the layer the mark is set only if it hides
        // something.
        let hidden = if attributes.opaque() && lower.is_some() { Below::Hidden } else { Below::Shows };
        let below = if lower.is_none() { Below::Hidden } else { hidden };
        let names = self.names(place, hidden, Whiteouts::of(&attributes))?;
        let entry = self.entry(path.clone(), Kind::Directory, metadata, attributes.own);
        let time = entry.mtime;
        let entered = self.out.enter(entry);
        Ok(Folder { path, names, below, entry: Some((time, entered)) })
    }

    fn leave(&mut self, folder: Folder) -> Result<()> {
        self.spill.end(folder.names);
        let Some((time, entered)) = folder.entry else { return Ok(()) };
        let place = self.upper.join(OsStr::from_bytes(&folder.path));
        let metadata = fs::symlink_metadata(&place).at("reading", &place)?;
        if let Some(entry) = self.out.leave(entered) {
            let below = if folder.below == Below::Hidden { None } else { self.only_copied_up(&entry)? };
            if let Some(below) = below {
                // It has no entry in the layer, so it gets its lower time back.
                return set_time(&place, (below.mtime(), below.mtime_nsec()), &metadata);
            }
            self.out.emit(&entry, &mut io::empty())?;
        }
        // The walk may have removed entries, which changes the time; the layer has the previous one.
        set_time(&place, (time as i64, 0), &metadata)
    }

    /// The lower directory, if this one is a mere copy of it.
    fn only_copied_up(&self, entry: &Entry) -> Result<Option<fs::Metadata>> {
        let Some((place, below)) = self.directory_below(&entry.path)? else { return Ok(None) };
        let same = (below.mode() & 0o7777, below.uid(), below.gid()) == (entry.mode, entry.uid, entry.gid);
        Ok((same && Attributes::of(&place)?.own == entry.xattrs).then_some(below))
    }

    /// The directory that the step saw at `path` when it began.
    fn directory_below(&self, path: &[u8]) -> Result<Option<(PathBuf, fs::Metadata)>> {
        Ok(on_disk(self.lowers, path)?.filter(|(_, metadata)| metadata.is_dir()))
    }

    fn normalise(
        &mut self,
        path: &[u8],
        place: &Path,
        metadata: fs::Metadata,
    ) -> Result<Option<fs::Metadata>> {
        // A program is the step's work, in whatever folder it is.
        let is_data = metadata.is_file() && metadata.mode() & 0o111 == 0;
        let Some((rule, action)) = is_data.then(|| self.rules.action(path)).flatten() else {
            return Ok(Some(metadata));
        };
        let written = metadata.nlink() > 1 && self.links.first(metadata.ino())?.is_some();
        if written && !matches!(action, Action::Drop) {
            // A hard link to a file that the layer already has: it stays as it is there.
            return Ok(Some(metadata));
        }
        let applied = AppliedRule { rule, path: String::from_utf8_lossy(path).into_owned() };
        match action {
            Action::Drop => {
                fs::remove_file(place).at("removing", place)?;
                self.applied.push(applied);
                return Ok(None);
            }
            Action::Empty if metadata.len() > 0 => {
                File::options().write(true).truncate(true).open(place).at("emptying", place)?;
                self.applied.push(applied);
            }
            Action::Rewrite(rewrite) if metadata.len() <= MAX_REWRITTEN => {
                let bytes = fs::read(place).at("reading", place)?;
                if let Some(other) = rewrite(&bytes, self.times.epoch).filter(|other| *other != bytes) {
                    // In place, so that owner, permissions and hard links stay.
                    fs::write(place, other).at("rewriting", place)?;
                    self.applied.push(applied);
                }
            }
            Action::Empty | Action::Rewrite(_) => {}
        }
        fs::symlink_metadata(place).at("reading", place).map(Some)
    }

    fn clamp(&self, metadata: &fs::Metadata) -> u64 {
        self.times.of(metadata.mtime())
    }

    fn kind(&mut self, path: &[u8], place: &Path, metadata: &fs::Metadata) -> Result<Kind> {
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.first(metadata.ino())? {
                return Ok(Kind::HardLink(first));
            }
            self.links.remember(metadata.ino(), path)?;
        }
        let file_type = metadata.file_type();
        if file_type.is_char_device() || file_type.is_block_device() {
            // Unpacking would refuse it; and on a machine that does not, a device gives access to its disks.
            return Err(Error::refused(
                format!("/{}", String::from_utf8_lossy(path)),
                "a device node, which no image may bring",
            ));
        }
        Ok(match () {
            () if file_type.is_symlink() => {
                Kind::Symlink(fs::read_link(place).at("reading", place)?.into_os_string().into_vec())
            }
            () if file_type.is_fifo() => Kind::Fifo,
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
        // A symbolic link's own mode has no meaning on Linux.
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

/// The root has no entry in the layer: whatever attributes a step gave it, the next one finds the default.
fn settle_root(upper: &Path) -> Result<()> {
    let own = Attributes::of(upper)?.own;
    for name in own.into_keys() {
        let name = std::ffi::CString::new(name).map_err(io::Error::from).at("reading", upper)?;
        rustix::fs::lremovexattr(upper, &name).at("removing an attribute of", upper)?;
    }
    std::os::unix::fs::lchown(upper, Some(0), Some(0)).at("setting the owner of", upper)?;
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(ROOT_MODE);
    fs::set_permissions(upper, mode).at("setting the mode of", upper)?;
    set_time(upper, (0, 0), &fs::symlink_metadata(upper).at("reading", upper)?)
}

/// Sets seconds and nanoseconds, if they differ.
fn set_time(place: &Path, (seconds, nanoseconds): (i64, i64), metadata: &fs::Metadata) -> Result<()> {
    if (metadata.mtime(), metadata.mtime_nsec()) == (seconds, nanoseconds) {
        return Ok(());
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW).at("setting the time of", place)
}

/// In overlayfs's forms: a device 0/0, or an empty file with an attribute, in a directory that is marked for it.
fn is_whiteout(child: &DirEntry, whiteouts: Whiteouts) -> Result<bool> {
    let place = child.path();
    let file_type = child.file_type().at("reading", &place)?;
    if file_type.is_char_device() {
        return Ok(child.metadata().at("reading", &place)?.rdev() == 0);
    }
    let may_be = whiteouts == Whiteouts::FilesToo && file_type.is_file();
    let empty = may_be && child.metadata().at("reading", &place)?.len() == 0;
    Ok(empty && Attributes::of(&place)?.whiteout())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layer::Compression;

    #[test]
    fn what_is_not_kept_is_known_all_the_same() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path().join("store")).unwrap();
        let upper = place.path().join("upper");
        fs::create_dir(&upper).unwrap();
        fs::write(upper.join("large"), vec![7; 3 << 20]).unwrap();
        fs::write(upper.join("small"), "").unwrap();
        let made = |keeping| {
            from_upper(&store, &upper, &[], 0, keeping, Normaliser::default()).unwrap().layer.unwrap()
        };
        let known = made(Keeping::DiffId);
        assert_eq!(fs::read_dir(place.path().join("store/blobs/sha256")).unwrap().count(), 0);
        assert!(known.is_done() && known.layer().unwrap_err().to_string().contains("not kept"));
        let kept = made(Keeping::Blob(Compression::Gzip)).layer().unwrap();
        assert_eq!((known.diff_id, known.entries), (kept.diff_id, kept.entries));
    }

    #[test]
    fn a_layer_of_another_build_is_what_it_would_be_in_this_one() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path().join("store")).unwrap();
        let made = |name: &str, times: Times, old: i64| {
            let upper = place.path().join(name);
            fs::create_dir_all(upper.join("d")).unwrap();
            for (file, time) in [("d/new", i64::from(u32::MAX)), ("d/old", old), ("d/older", 7)] {
                fs::write(upper.join(file), file).unwrap();
                std::os::unix::fs::symlink("x", upper.join(format!("{file}.link"))).unwrap();
                let metadata = fs::symlink_metadata(upper.join(file)).unwrap();
                set_time(&upper.join(file), (time, 0), &metadata).unwrap();
            }
            from_upper(&store, &upper, &[], times, Keeping::DiffId, Normaliser::default()).unwrap();
            let again = from_upper(&store, &upper, &[], times, Compression::Gzip, Normaliser::default());
            (upper, again.unwrap().layer.unwrap().layer().unwrap())
        };
        let (_, one) = made("one", 1000.into(), 300);
        let (_, two) = made("two", 2000.into(), 300);
        assert_ne!(one.diff_id, two.diff_id);
        let upper = place.path().join("three");
        fs::create_dir(&upper).unwrap();
        super::super::unpack(&store, &one.descriptor, &one.diff_id, &upper, LayerLimits::default()).unwrap();
        let times = Times { epoch: 2000, other: Some(1000) };
        let three = from_upper(&store, &upper, &[], times, Compression::Gzip, Normaliser::default());
        assert_eq!(three.unwrap().layer.unwrap().layer().unwrap(), two);
        assert_eq!(
            fs::metadata(upper.join("d/new")).unwrap().mtime(),
            2000,
            "what stands on it sees that too"
        );
        assert_eq!(fs::metadata(upper.join("d/old")).unwrap().mtime(), 300);
    }

    #[test]
    fn what_nobody_could_read_again_is_not_written() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path().join("store")).unwrap();
        let upper = place.path().join("upper");
        fs::create_dir_all(upper.join("d/e")).unwrap();
        let made = |limits| {
            let keeping = Compression::None.into();
            from_upper_within(&store, &upper, &[], 0.into(), keeping, Normaliser::default(), limits)
        };
        for name in ["d/e/a", "d/e/b"] {
            fs::write(upper.join(name), "12345").unwrap();
        }
        assert_eq!(made(LayerLimits { bytes: 10, entries: 4 }).unwrap().layer.unwrap().entries, 4);
        let few = made(LayerLimits { bytes: 10, entries: 3 }).unwrap_err().to_string();
        assert!(few.contains("more than 3 entries"), "{few}");
        let small = made(LayerLimits { bytes: 9, entries: 4 }).unwrap_err().to_string();
        assert!(small.contains("more than 9 bytes"), "{small}");
        // It takes no space, but reading it would take days.
        File::create(upper.join("hole")).unwrap().set_len(1 << 42).unwrap();
        let hole = made(LayerLimits::default()).unwrap_err().to_string();
        assert!(hole.contains("more than 68719476736 bytes"), "{hole}");
        assert_eq!(fs::read_dir(place.path().join("store/blobs/sha256")).unwrap().count(), 1);
    }
}
