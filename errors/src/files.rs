//! Files of the command line: read with a limit, and written whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::{Error, Kind, Result};

/// A path as it is from anywhere: programs that are asked to mount it have another current folder, and engines take no other.
/// For the command line.
///
/// # Errors
/// When it is empty, or the current folder is gone.
pub fn absolute(path: &str) -> io::Result<PathBuf> {
    std::path::absolute(path)
}

/// Reads a file of at most `limit` bytes. A pipe is read to its end, within the limit.
///
/// # Errors
/// When it is missing, unreadable, or larger; the limit is named.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|cause| Error::io("reading", path, cause))?;
    let mut bytes = Vec::new();
    fill(&mut bytes, file, path, limit)?;
    Ok(bytes)
}

/// Reads a regular file of at most `limit` bytes that somebody else put there: a pipe in its place holds nobody up.
///
/// # Errors
/// As [`read`], and when it is no regular file.
pub fn read_regular(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |cause| Error::io("reading", path, cause);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|cause| failed(cause.into()))?);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::new(Kind::Refused, format!("{} is no regular file", path.display())));
    }
    let mut bytes = Vec::new();
    fill(&mut bytes, file, path, limit)?;
    Ok(bytes)
}

/// Reads a text of at most `limit` bytes.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    text(read(path, limit)?, path)
}

/// Appends at most `limit` bytes of `source`, which an error calls `path`, to a buffer of the caller's: one that is
/// wiped after use, for instance.
///
/// # Errors
/// When it cannot be read, or has more bytes than that.
pub fn fill(bytes: &mut Vec<u8>, source: impl Read, path: &Path, limit: u64) -> Result<()> {
    let read = source.take(limit.saturating_add(1)).read_to_end(bytes);
    match read.map_err(|cause| Error::io("reading", path, cause))? as u64 > limit {
        true => Err(Error::new(
            Kind::Input,
            format!("{} is larger than {}, the most that is read of it", path.display(), size(limit)),
        )),
        false => Ok(()),
    }
}

/// These bytes as text; an error names `path`.
///
/// # Errors
/// When they are not UTF-8.
pub fn text(bytes: Vec<u8>, path: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|cause| {
        Error::new(Kind::Input, format!("{} is not text in UTF-8", path.display())).because(cause)
    })
}

/// A limit as people write it: all limits of the programs are round numbers.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes > 0 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes > 0 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced, at one moment.
    Replaced,
    /// It stays, and the call fails with [`Kind::Usage`].
    Kept,
}

/// Writes a file of mode 0644 (less the umask), replacing what is there. Who reads it sees all of the old file or all
/// of the new one, also after a loss of power. What is no file, such as a pipe or a terminal, is written as it comes.
///
/// # Errors
/// When its folder cannot be written; then nothing has changed.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::write(path, bytes).map_err(|cause| Error::io("writing", path, cause));
    }
    write_with(path, Existing::Replaced, 0o644, |out| {
        out.write_all(bytes).map_err(|cause| Error::io("writing", path, cause))
    })
}

/// Writes a file of mode 0644 (less the umask) where none is yet.
///
/// # Errors
/// [`Kind::Usage`] when something is there, or when the folder cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, Existing::Kept, 0o644, |out| {
        out.write_all(bytes).map_err(|cause| Error::io("writing", path, cause))
    })
}

/// Writes a file from whatever `content` writes into it: into a temporary file of the same folder, which is synced and
/// then renamed, so that it appears whole or not at all. `mode` is lessened by the umask.
///
/// # Errors
/// Those of `content`; as [`write()`] and [`write_new`] otherwise. The temporary file is removed.
pub fn write_with<T, E: From<Error>>(
    path: &Path,
    existing: Existing,
    mode: u32,
    content: impl FnOnce(&mut BufWriter<&File>) -> Result<T, E>,
) -> Result<T, E> {
    let failed = |cause: io::Error| Error::io("writing", path, cause);
    let folder = folder_of(path);
    let permissions = fs::Permissions::from_mode(mode);
    let file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
    let made = content(&mut out)?;
    out.flush().map_err(failed)?;
    drop(out);
    file.as_file().sync_all().map_err(failed)?;
    let named = match existing {
        Existing::Replaced => file.persist(path),
        Existing::Kept => file.persist_noclobber(path),
    };
    named.map_err(|error| match (existing, error.error.kind()) {
        (Existing::Kept, io::ErrorKind::AlreadyExists) => {
            Error::new(Kind::Usage, format!("{} exists and is not overwritten", path.display()))
        }
        _ => failed(error.error),
    })?;
    // The name is in the folder, which is synced by itself.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(made)
}

/// The folder that a path names a file in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_the_limit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![b'a'; 2048]).unwrap();
        assert_eq!(read_text(&path, 2048).unwrap().len(), 2048);
        let error = read(&path, 1024).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().contains("is larger than 1 KiB"), "{error}");
        assert!(read(&path, 2047).unwrap_err().to_string().contains("2047 bytes"));
        assert_eq!(read(&folder.path().join("none"), 1).unwrap_err().kind(), Kind::NotFound);
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 10).unwrap_err().kind(), Kind::Input);
        assert!(read(Path::new("/dev/zero"), 1 << 20).unwrap_err().to_string().contains("1 MiB"));
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o133, 0);
        let broken = write_with(&path, Existing::Replaced, 0o600, |out| {
            out.write_all(b"half").unwrap();
            Err::<(), _>(Error::new(Kind::Input, "the rest is damaged"))
        });
        assert_eq!(broken.unwrap_err().to_string(), "the rest is damaged");
        assert_eq!(write_new(&path, b"three").unwrap_err().kind(), Kind::Usage);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = write(&folder.path().join("none/file"), b"").unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }

    #[test]
    fn a_link_to_a_file_is_replaced_and_what_is_no_file_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "stays").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!((fs::read(&target).unwrap(), fs::read(&link).unwrap()), (b"stays".into(), b"new".into()));
        write(Path::new("/dev/null"), b"gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
