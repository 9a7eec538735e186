use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};

use crate::{Error, Result};

/// Unmounts whatever is mounted at `path`, even while somebody still holds a file in it. Not being mounted is fine.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(source) => Err(Error::path("unmount", path)(source.into())),
    }
}

/// As [`unmount`], where nobody can be told: the next [`crate::Host::open`] tries again.
pub(crate) fn discard_mount(path: &Path) {
    if let Err(error) = unmount(path) {
        tracing::warn!(%error, "left mounted, to be cleared later");
    }
}

/// Removes a file where nobody can be told.
pub(crate) fn discard_file(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "left behind, to be cleared later");
    }
}

/// Removes a directory with everything in it, after everything mounted in it has been unmounted.
///
/// It never deletes through a mount: when one remains, nothing is deleted and the error says which. How deeply directories are nested in
/// each other does not matter, as it does to [`fs::remove_dir_all`].
///
/// # Errors
/// When something stays mounted, or cannot be removed. That there is no such directory is fine.
pub fn remove_tree(directory: &Path) -> Result<()> {
    for mounted in mounted_beneath(directory)?.iter().rev() {
        unmount(mounted)?;
    }
    if let Some(left) = mounted_beneath(directory)?.first() {
        return Err(Error::path("unmount", left)(io::Error::other("still mounted")));
    }
    match remove_nested(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path("remove", directory)(error)),
        _ => Ok(()),
    }
}

/// As many directories of a tree are open at one time. What is nested deeper is first moved up to the top.
const MOST_OPEN: usize = 64;

/// A directory that is being emptied, and what is still in it: names, and whether they are directories.
struct Emptied {
    folder: OwnedFd,
    names: Vec<(CString, bool)>,
}

impl Emptied {
    fn open(parent: impl AsFd, name: &CStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                kind => kind == FileType::Directory,
            };
            names.push((name, is_directory));
        }
        Ok(Self { folder, names })
    }
}

/// Removes a directory and all in it. Not by recursion, and with few open files: how deeply a step nests its directories is not ours to
/// say.
fn remove_nested(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    let mut way = vec![(path.clone(), Emptied::open(rustix::fs::CWD, &path)?)];
    let mut moved: u64 = 0;
    loop {
        let is_deep = way.len() >= MOST_OPEN;
        let Some((_, emptied)) = way.last_mut() else { break };
        let Some((name, is_directory)) = emptied.names.pop() else {
            let Some((name, _)) = way.pop() else { break };
            match way.last() {
                Some((_, parent)) => rustix::fs::unlinkat(&parent.folder, &name, AtFlags::REMOVEDIR)?,
                None => fs::remove_dir(directory)?,
            }
            continue;
        };
        match is_directory {
            false => rustix::fs::unlinkat(&emptied.folder, &name, AtFlags::empty())?,
            true if !is_deep => {
                let inner = Emptied::open(&emptied.folder, &name)?;
                way.push((name, inner));
            }
            true => {
                let free = move_up(&way, &name, &mut moved)?;
                way[0].1.names.push((free, true));
            }
        }
    }
    Ok(())
}

/// Gives what is called `name` in the deepest directory a free name at the top.
fn move_up(way: &[(CString, Emptied)], name: &CStr, moved: &mut u64) -> io::Result<CString> {
    let (Some((_, top)), Some((_, deepest))) = (way.first(), way.last()) else {
        return Err(io::Error::other("nothing is open"));
    };
    loop {
        *moved += 1;
        let free = CString::new(format!("moved-{moved}"))?;
        match rustix::fs::renameat_with(&deepest.folder, name, &top.folder, &free, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(free),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The mount points in `directory`, in the order in which they were mounted.
fn mounted_beneath(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).map_err(Error::path("read", table))?;
    let points = text.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    let paths = points.map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))));
    Ok(paths.filter(|path| path.starts_with(directory)).collect())
}

/// mountinfo writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn folders_nested_deeper_than_files_can_be_open_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("tree");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("moved-1"), "in the way").unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = rustix::fs::open(&directory, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            for name in ["d", "e"] {
                rustix::fs::mkdirat(&folder, name, Mode::RWXU).unwrap();
            }
            let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&folder, "e/file", file, Mode::RUSR).unwrap();
            rustix::fs::symlinkat("/", &folder, "link").unwrap();
            folder = rustix::fs::openat(&folder, "d", flags, Mode::empty()).unwrap();
        }
        drop(folder);
        fs::create_dir(place.path().join("kept")).unwrap();
        remove_tree(&directory).unwrap();
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
    }

    #[test]
    fn mountinfo_escapes_are_read() {
        assert_eq!(super::unescape(br"/a\040b\134c\"), br"/a b\c\");
    }
}
