use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::directory::{ORDINARY, epoch, make_directory, make_directory_of, set_epoch};
use crate::network::in_thread;
use crate::owned::{EMPTY, Owned};
use crate::{Error, Process, Result, mounts};

/// Several directories seen as one root. Dropped, it is unmounted and its upper directory is gone.
#[derive(Debug)]
pub struct Overlay {
    /// On the disk: the upper directory and what it needs beside it.
    directory: PathBuf,
    merged: PathBuf,
    upper: PathBuf,
    /// Kept so that the owner's directory outlives us.
    owner: Arc<Owned>,
}

/// What was written to an overlay that is mounted no longer, or would have been. Dropped, it is gone.
#[derive(Debug)]
pub struct Upper(Overlay);

impl Upper {
    /// An empty one, to be filled by hand.
    pub(crate) fn empty(owner: Arc<Owned>) -> Result<Self> {
        let overlay = Overlay::new(owner);
        make_directory(&overlay.directory)?;
        make_directory(&overlay.upper)?;
        Ok(Self(overlay))
    }

    /// The directory, in overlayfs's own form.
    pub fn path(&self) -> &Path {
        &self.0.upper
    }
}

/// A place for a mount, made in the lowest layer so that the upper one shows nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountPoint {
    /// An absolute path for a directory.
    Directory(String),
    /// An absolute path for a tmpfs. Of mode 1777, since `runc` gives a tmpfs the mode of the directory that it covers.
    Temporary(String),
    /// An absolute path for a single file.
    File(String),
}

impl MountPoint {
    /// The places that a process's own mounts need.
    pub fn of(process: &Process) -> Vec<Self> {
        let mounts = process.mounts.iter().map(|mount| match mount.source.is_dir() {
            true => Self::Directory(mount.target.clone()),
            false => Self::File(mount.target.clone()),
        });
        mounts.chain(process.tmpfs.iter().map(|tmpfs| Self::Temporary(tmpfs.target.clone()))).collect()
    }
}

/// Where every sandbox has something mounted. `/tmp` is not among them: what an image lacks, its programs shall miss.
const ALWAYS: [(&str, bool); 6] = [
    ("/proc", true),
    ("/sys", true),
    ("/dev", true),
    ("/etc/resolv.conf", false),
    ("/etc/hosts", false),
    ("/etc/hostname", false),
];

/// Extended attributes of overlayfs stay as they are known since Linux 4.19, whatever this kernel's defaults: a layer
/// is read from the upper directory, and a redirect or a metadata-only copy there could not be told.
const FIXED: &str = "index=off,metacopy=off,redirect_dir=off,xino=off";

/// Linux's own limit is 500 with the scaffold.
const MOST_LOWERS: usize = 498;

impl Overlay {
    pub(crate) fn writable(owner: Arc<Owned>, lowers: &[PathBuf], points: &[MountPoint]) -> Result<Self> {
        let overlay = Self::new(owner);
        make_directory(&overlay.directory)?;
        for name in ["upper", "work"] {
            make_directory(&overlay.directory.join(name))?;
        }
        let bottom = overlay.bottom(points)?;
        let own = overlay.owner.link(&overlay.directory)?;
        let lowers = overlay.names(&[], lowers, &bottom)?;
        let data = format!("lowerdir={lowers},upperdir={own}/upper,workdir={own}/work,{FIXED}");
        // Nobody needs this directory after a crash, so the file system may skip every fsync in it (Linux 5.10).
        let volatile = format!("{data},volatile");
        overlay.mount(&volatile, MsFlags::empty()).or_else(|_| overlay.mount(&data, MsFlags::empty()))?;
        Ok(overlay)
    }

    pub(crate) fn readonly(owner: Arc<Owned>, lowers: &[PathBuf], points: &[MountPoint]) -> Result<Self> {
        let overlay = Self::new(owner);
        let bottom = overlay.bottom(points)?;
        overlay.mount_readonly(lowers, &bottom)
    }

    pub(crate) fn view(owner: Arc<Owned>, lowers: &[PathBuf]) -> Result<Self> {
        let [_, bottom] = EMPTY.map(|name| owner.empty(name));
        Self::new(owner).mount_readonly(lowers, &bottom)
    }

    fn mount_readonly(self, lowers: &[PathBuf], bottom: &Path) -> Result<Self> {
        // Two lowers at least are asked for without an upper: the bottom may be listed under an empty directory.
        let [top, _] = EMPTY.map(|name| self.owner.empty(name));
        let names = self.names(&[top], lowers, bottom)?;
        self.mount(&format!("lowerdir={names},{FIXED}"), MsFlags::MS_RDONLY)?;
        Ok(self)
    }

    /// The root directory: give this to [`crate::Host::run`].
    pub fn merged(&self) -> &Path {
        &self.merged
    }

    /// What was written: overlayfs's own form, with whiteouts as devices 0:0 and `trusted.overlay.*` attributes.
    /// Read it when nothing runs. Of a read-only overlay it is always empty.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Takes the overlay down and keeps what was written, to lie below others. No [`Self::merged`] is left to write through.
    ///
    /// # Errors
    /// When it cannot be unmounted; then it is all cleared as ever.
    pub fn into_upper(self) -> Result<Upper> {
        mounts::unmount(&self.merged)?;
        Ok(Upper(self))
    }

    /// Nothing yet.
    fn new(owner: Arc<Owned>) -> Self {
        let directory = owner.fresh_on_disk();
        Self { merged: owner.fresh("merged"), upper: directory.join("upper"), directory, owner }
    }

    /// What lies beneath all layers, with the places for mounts.
    fn bottom(&self, points: &[MountPoint]) -> Result<PathBuf> {
        if points.is_empty() {
            return Ok(self.owner.scaffold());
        }
        if !self.directory.exists() {
            make_directory(&self.directory)?;
        }
        let own = self.directory.join("scaffold");
        make_scaffold(&own, points)?;
        Ok(own)
    }

    /// The names of the layers for the kernel, the topmost first.
    fn names(&self, top: &[PathBuf], lowers: &[PathBuf], bottom: &Path) -> Result<String> {
        if lowers.len() > MOST_LOWERS {
            return Err(Error::Invalid { what: format!("{} layers", lowers.len()), why: "at most 498" });
        }
        let all = top.iter().chain(lowers).map(PathBuf::as_path).chain([bottom]);
        let names = all.map(|lower| self.owner.link(lower).map(|number| number.to_string()));
        Ok(names.collect::<Result<Vec<_>>>()?.join(":"))
    }

    fn mount(&self, data: &str, flags: MsFlags) -> Result<()> {
        if !self.merged.exists() {
            make_directory(&self.merged)?;
        }
        let (links, merged, data) = (self.owner.memory("links"), self.merged.clone(), data.to_owned());
        in_thread(move || {
            // A working directory of the thread's own, in which the short names mean something.
            unshare(CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(&links)?;
            Ok(mount(Some("overlay"), &merged, Some("overlay"), flags, Some(data.as_str()))?)
        })
        .map_err(Error::path("mount an overlay at", &self.merged))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        for place in [&self.merged, &self.directory] {
            if let Err(error) = mounts::remove_tree(place) {
                tracing::warn!(%error, "left behind, to be cleared later");
            }
        }
    }
}

/// Makes a directory tree with the places of [`ALWAYS`] and of `points`, all dated 1970.
pub(crate) fn make_scaffold(root: &Path, points: &[MountPoint]) -> Result<()> {
    make_directory(root)?;
    for (path, directory) in ALWAYS {
        let form = if directory { Form::Directory(ORDINARY) } else { Form::File };
        make_point(root, path, form)?;
    }
    for point in points {
        match point {
            MountPoint::Directory(path) => make_point(root, path, Form::Directory(ORDINARY))?,
            MountPoint::Temporary(path) => make_point(root, path, Form::Directory(0o1777))?,
            MountPoint::File(path) => make_point(root, path, Form::File)?,
        }
    }
    Ok(())
}

/// The mode of a directory that nothing special is said of.
#[derive(Clone, Copy)]
enum Form {
    /// Of this mode.
    Directory(u32),
    File,
}

fn make_point(root: &Path, path: &str, form: Form) -> Result<()> {
    let invalid = |why| Error::Invalid { what: format!("mount point {path:?}"), why };
    let inner = path.strip_prefix('/').ok_or_else(|| invalid("must be absolute"))?;
    let mut at = root.to_path_buf();
    let mut parts = Path::new(inner).components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(invalid("must hold no `..`")) };
        let parent = at.clone();
        at.push(name);
        if at.symlink_metadata().is_err() {
            match form {
                _ if parts.peek().is_some() => make_directory(&at)?,
                Form::Directory(mode) => make_directory_of(&at, mode)?,
                Form::File => {
                    let made = File::options().write(true).create_new(true).mode(0o644).open(&at);
                    made.and_then(|file| file.set_times(epoch())).map_err(Error::path("create", &at))?;
                }
            }
            set_epoch(&parent)?;
        }
    }
    Ok(())
}
