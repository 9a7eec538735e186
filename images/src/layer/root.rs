//! A whole root file system as one archive, in the canonical form of a layer.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::entry::{Entry, Kind, write_end, write_header, write_padding};
use super::links::Links;
use super::xattrs::Attributes;
use crate::error::{At, Error, Result};

/// Writes the file system in `root`: entries in canonical order, with owners, modes, times and attributes. `scratch`
/// is a folder for temporary files.
///
/// # Errors
/// When something cannot be read or written; for devices and sockets, which images must not have.
pub fn write_root(root: &Path, scratch: &Path, out: &mut impl Write) -> Result<()> {
    let mut links = Links::new(scratch);
    // A stack of paths still to write, the next one last; a folder's own entries are pushed on top.
    let mut open = names(root, b"")?;
    while let Some(path) = open.pop() {
        let place = root.join(OsStr::from_bytes(&path));
        let metadata = fs::symlink_metadata(&place).at("reading", &place)?;
        let kind = kind(&path, &place, &metadata, &mut links)?;
        let xattrs = match kind {
            Kind::HardLink(_) => Default::default(),
            _ => Attributes::of(&place)?.own,
        };
        let mode = if metadata.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 };
        let (uid, gid, mtime) = (metadata.uid(), metadata.gid(), metadata.mtime().max(0) as u64);
        let entry = Entry { path, kind, mode, uid, gid, mtime, xattrs };
        let writing = |cause: io::Error| Err(cause).at("writing", &place);
        write_header(&entry, out).or_else(writing)?;
        match entry.kind {
            Kind::Directory => open.extend(names(root, &entry.path)?),
            Kind::File { size } => {
                let file = File::open(&place).at("opening", &place)?;
                if io::copy(&mut file.take(size), out).at("copying", &place)? != size {
                    return Err(Error::refused(
                        place.display().to_string(),
                        "changed its size while it was read",
                    ));
                }
                write_padding(size, out).or_else(writing)?;
            }
            _ => {}
        }
    }
    write_end(out).at("writing the archive of", root)
}

/// The paths in a folder, the last first.
fn names(root: &Path, folder: &[u8]) -> Result<Vec<Vec<u8>>> {
    let place = root.join(OsStr::from_bytes(folder));
    let mut paths = Vec::new();
    for child in fs::read_dir(&place).at("reading", &place)? {
        let name = child.at("reading", &place)?.file_name().into_vec();
        paths.push(if folder.is_empty() { name } else { [folder, b"/", &name].concat() });
    }
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

fn kind(path: &[u8], place: &Path, metadata: &fs::Metadata, links: &mut Links) -> Result<Kind> {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        return Ok(Kind::Directory);
    }
    if metadata.nlink() > 1 {
        match links.first(metadata.ino())? {
            Some(first) => return Ok(Kind::HardLink(first)),
            None => links.remember(metadata.ino(), path)?,
        }
    }
    match () {
        () if file_type.is_symlink() => {
            Ok(Kind::Symlink(fs::read_link(place).at("reading", place)?.into_os_string().into_vec()))
        }
        () if file_type.is_fifo() => Ok(Kind::Fifo),
        () if file_type.is_file() => Ok(Kind::File { size: metadata.len() }),
        () => Err(Error::refused(
            place.display().to_string(),
            "is a device or a socket, which no image may bring",
        )),
    }
}
