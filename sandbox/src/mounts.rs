use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

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
/// It never deletes through a mount: when one remains, nothing is deleted and the error says which.
pub(crate) fn remove_tree(directory: &Path) -> Result<()> {
    for mounted in mounted_beneath(directory)?.iter().rev() {
        unmount(mounted)?;
    }
    if let Some(left) = mounted_beneath(directory)?.first() {
        return Err(Error::path("unmount", left)(io::Error::other("still mounted")));
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path("remove", directory)(error)),
        _ => Ok(()),
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
    #[test]
    fn mountinfo_escapes_are_read() {
        assert_eq!(super::unescape(br"/a\040b\134c\"), br"/a b\c\");
    }
}
