//! Files that decide: policies, configurations, tokens, keys, certificates. Whoever may change one decides in its
//! owner's place, so it is refused when somebody other than us or root owns it, or may write to it or to a folder on
//! the way to it.
//!
//! Every step of a path is opened by itself and checked by what was opened, so that nothing can be exchanged between
//! the check and the use. Links on the way are followed under the same conditions; the last component is none.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;

use crate::{Error, Kind, Result, files};

/// The most links that are followed on the way to a file; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// Reads a file that decides, of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and when it is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    files::fill(&mut bytes, file, path, limit)?;
    Ok(bytes)
}

/// Reads a text that decides, of at most `limit` bytes.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    files::text(read(path, limit)?, path)
}

/// Opens a file that decides, for reading.
///
/// A pipe that the caller handed over as `/dev/fd/N` or `/dev/stdin` is taken: no other user can put one in its place.
///
/// # Errors
/// [`Kind::Refused`], with the owner or the mode and what to do, when it is a link, no regular file, or others may
/// change it or a folder on the way; else as when it is missing or unreadable.
pub fn open(path: &Path) -> Result<File> {
    Owners::ours().open(path)
}

/// Makes a state directory with `mode` where it is not there yet, and checks it and the way to it.
///
/// # Errors
/// When it cannot be made, or others may write to it: they could put other content below what was verified.
pub fn state_directory(path: &Path, mode: u32) -> Result<()> {
    let making = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    making.map_err(|cause| Error::io("making", path, cause))?;
    Owners::ours().state_directory(path)
}

/// The users who decide here anyway.
struct Owners(Vec<u32>);

impl Owners {
    /// Root, and who runs the program; for root by way of sudo, also who called sudo (as git does).
    fn ours() -> Self {
        let us = rustix::process::geteuid().as_raw();
        let by_sudo = std::env::var("SUDO_UID").ok().filter(|_| us == 0);
        Self([Some(0), Some(us), by_sudo.and_then(|id| id.parse().ok())].into_iter().flatten().collect())
    }

    fn open(&self, path: &Path) -> Result<File> {
        let failed = |cause: io::Error| Error::io("reading", path, cause);
        if is_descriptor(path) {
            let file = File::open(path).map_err(failed)?;
            let found = file.metadata().map_err(failed)?;
            self.check(path, found.uid(), found.mode())?;
            return Ok(file);
        }
        let mut walk = Walk::start(self, path).map_err(|stop| stop.at("reading", path))?;
        let Some(name) = walk.take_last() else {
            return Err(not_regular(path));
        };
        walk.walk_on().map_err(|stop| stop.at("reading", path))?;
        // A pipe in its place must not hold the program up before it is refused.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&walk.folder, &name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP) => return Err(link(path, &walk.target(&name))),
            Err(cause) => return Err(failed(cause.into())),
        };
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(not_regular(path));
        }
        self.check(path, found.uid(), found.mode())?;
        Ok(file)
    }

    fn state_directory(&self, path: &Path) -> Result<()> {
        let failed = |stop| match stop {
            Stop::Failed(cause) => Error::io("looking at", path, cause),
            Stop::Refused(error) => {
                let what = format!("others may write to the state directory {}: {error}", path.display());
                let remedy = error.hint_text().unwrap_or_default();
                let hint = format!("{remedy}; or name another state directory with --state-dir");
                Error::new(error.kind(), what).hint(hint)
            }
        };
        let checked = || {
            let mut walk = Walk::start(self, path)?;
            walk.walk_on()?;
            let found = fstat(&walk.folder)?;
            // A sticky bit protects names, but a state directory has to be nobody else's at all.
            Ok(self.check(&walk.place, found.st_uid, found.st_mode & !0o1000)?)
        };
        checked().map_err(failed)
    }

    /// Refuses what others own or may write to. A sticky folder is everybody's, but what lies in it can only be renamed
    /// or removed by its owner, who is checked next.
    fn check(&self, path: &Path, owner: u32, mode: u32) -> Result<()> {
        let shown = path.display();
        let warning = "after seeing that nobody changed it";
        if !self.0.contains(&owner) {
            let us = rustix::process::geteuid().as_raw();
            let what = format!(
                "{shown} belongs to the user {owner} (mode {:04o}), who could change it",
                mode & 0o7777
            );
            return Err(Error::new(Kind::Refused, what).hint(format!("`chown {us} {shown}` {warning}")));
        }
        let is_sticky_folder = FileType::from_raw_mode(mode) == FileType::Directory && mode & 0o1000 != 0;
        if mode & 0o022 == 0 || is_sticky_folder {
            return Ok(());
        }
        let who = if mode & 0o002 != 0 { "everybody" } else { "its group" };
        let what = format!("{who} may write to {shown} (mode {:04o}, user {owner})", mode & 0o7777);
        Err(Error::new(Kind::Refused, what).hint(format!("`chmod go-w {shown}` {warning}")))
    }
}

/// Whether a path names a descriptor that this process was started with.
fn is_descriptor(path: &Path) -> bool {
    let parts = ["/dev/fd", "/proc/self/fd"];
    let is_number = |name: &OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    path == Path::new("/dev/stdin")
        || parts.iter().any(|folder| path.parent() == Some(Path::new(folder)))
            && path.file_name().is_some_and(is_number)
}

fn not_regular(path: &Path) -> Error {
    Error::new(Kind::Refused, format!("{} is no regular file", path.display()))
}

fn link(path: &Path, target: &Path) -> Error {
    let what = format!("{} is a symbolic link, which is not followed", path.display());
    Error::new(Kind::Refused, what).hint(format!("name the file itself: {}", target.display()))
}

/// Why a walk stopped.
enum Stop {
    Refused(Error),
    Failed(io::Error),
}

impl Stop {
    fn at(self, doing: &str, path: &Path) -> Error {
        match self {
            Self::Refused(error) => {
                let what = format!("{} is not used: {error}", path.display());
                let hint = error.hint_text().unwrap_or_default().to_owned();
                Error::new(error.kind(), what).hint(hint)
            }
            Self::Failed(cause) => Error::io(doing, path, cause),
        }
    }
}

impl From<Errno> for Stop {
    fn from(cause: Errno) -> Self {
        Self::Failed(cause.into())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// A walk from the root along the components of a path; each folder is checked when it is entered.
struct Walk<'a> {
    owners: &'a Owners,
    folder: OwnedFd,
    /// Where it is, for messages.
    place: PathBuf,
    ahead: VecDeque<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn start(owners: &'a Owners, path: &Path) -> Result<Self, Stop> {
        let path = std::path::absolute(path).map_err(Stop::Failed)?;
        let folder = openat(CWD, "/", folder_flags(), Mode::empty())?;
        let mut walk = Self { owners, folder, place: PathBuf::from("/"), ahead: VecDeque::new(), links: 0 };
        walk.check(&fstat(&walk.folder)?)?;
        walk.prepend(&path);
        Ok(walk)
    }

    fn take_last(&mut self) -> Option<OsString> {
        self.ahead.pop_back().filter(|name| name != "..")
    }

    fn walk_on(&mut self) -> Result<(), Stop> {
        while let Some(name) = self.ahead.pop_front() {
            self.step(&name)?;
        }
        Ok(())
    }

    fn step(&mut self, name: &OsStr) -> Result<(), Stop> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(&self.folder, name, flags, Mode::empty())?;
        let found = fstat(&next)?;
        let place = match name == ".." {
            true => self.place.parent().unwrap_or(Path::new("/")).to_owned(),
            false => self.place.join(name),
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                // Everybody "may write" to a link by its mode; its owner and its folder decide.
                self.owners.check(&place, found.st_uid, found.st_mode & !0o022)?;
                let target = read_link(&next, "")?;
                if target.is_absolute() {
                    self.folder = openat(CWD, "/", folder_flags(), Mode::empty())?;
                    self.place = PathBuf::from("/");
                }
                self.prepend(&target);
                Ok(())
            }
            FileType::Directory => {
                (self.folder, self.place) = (next, place);
                self.check(&found)
            }
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn check(&self, found: &Stat) -> Result<(), Stop> {
        Ok(self.owners.check(&self.place, found.st_uid, found.st_mode)?)
    }

    fn prepend(&mut self, path: &Path) {
        for component in path.components().rev() {
            if let Component::Normal(_) | Component::ParentDir = component {
                self.ahead.push_front(component.as_os_str().to_owned());
            }
        }
    }

    /// Where a link in the folder leads, as an absolute path.
    fn target(&self, name: &OsStr) -> PathBuf {
        read_link(&self.folder, name).map(|target| self.place.join(target)).unwrap_or_default()
    }
}

fn folder_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn read_link(folder: &OwnedFd, name: impl rustix::path::Arg) -> Result<PathBuf, Errno> {
    Ok(OsString::from_vec(readlinkat(folder.as_fd(), name, Vec::new())?.into_bytes()).into())
}

#[cfg(test)]
mod tests;
