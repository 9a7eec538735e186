//! Archives for the Dockerfile's `ADD`: recognised by their bytes, in any compression that Docker supports, with
//! limits, and with names that stay within the destination.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use tar::EntryType;

use super::archive::{Entries, is_header};
use super::read::{LayerLimits, damaged};
use crate::error::{At, Error, Result};

/// The memory limit for decompressing xz, in KiB: `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 128 * 1024;
/// The limit for zstd's window, as a power of two: the maximum that the format recommends decoders to support.
const ZSTD_WINDOW: u32 = 27;

/// An archive to unpack.
pub struct AddedArchive {
    entries: Entries<Bounded>,
    left: u64,
    what: String,
}

/// One of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Relative, without `.` and `..`; empty for the archive's root.
    pub path: Vec<u8>,
    /// The kind of entry.
    pub kind: AddedKind,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddedKind {
    /// A regular file; [`AddedArchive::content`] has its content.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its unchanged target: it may point anywhere, and is never followed outside the image.
    Symlink(Vec<u8>),
    /// A hard link to an earlier entry, whose path is cleaned like other paths.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

impl AddedArchive {
    /// Opens an archive at the file's current position. None if it is not one; that includes a compressed file
    /// without an archive in it, and an archive without entries.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(file: File, what: &str, limits: LayerLimits) -> Result<Option<Self>> {
        let mut source = BufReader::with_capacity(1 << 17, file);
        let start = source.fill_buf().at("reading", what)?.to_vec();
        let Ok(mut inner) = decompress(source, &start) else { return Ok(None) };
        let mut block = Vec::new();
        // A file damaged at its very beginning is copied like any other, as in Docker.
        if (&mut inner).take(512).read_to_end(&mut block).is_err() || !is_header(&block) {
            return Ok(None);
        }
        let inner: Box<dyn Read> = Box::new(Cursor::new(block).chain(inner));
        let bounded = Bounded { inner, left: limits.bytes, limit: limits.bytes, what: what.to_owned() };
        Ok(Some(Self { entries: Entries::new(bounded, what), left: limits.entries, what: what.to_owned() }))
    }

    /// The next entry; none at the end.
    ///
    /// # Errors
    /// When the archive is damaged, exceeds the limits, or has an entry that may not be unpacked: a device, a sparse
    /// file, a name that leads outside.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry's content is read before the next is asked for"
    )]
    pub fn next(&mut self) -> Result<Option<Added>> {
        let Some(found) = self.entries.next()? else { return Ok(None) };
        let shown = String::from_utf8_lossy(&found.path).into_owned();
        let refused = |reason: &str| Error::refused(&self.what, format!("entry `{shown}`: {reason}"));
        self.left = self.left.checked_sub(1).ok_or_else(|| refused("there are too many"))?;
        let target = || found.link.clone().ok_or_else(|| refused("a link without target"));
        let kind = match found.kind {
            EntryType::Regular | EntryType::Continuous => AddedKind::File,
            EntryType::Directory => AddedKind::Directory,
            EntryType::Symlink => AddedKind::Symlink(target()?),
            EntryType::Link => AddedKind::HardLink(
                clean(&target()?).ok_or_else(|| refused("a hard link that leads out of the archive"))?,
            ),
            EntryType::Fifo => AddedKind::Fifo,
            EntryType::Char | EntryType::Block => {
                return Err(refused("a device node, which no image may bring"));
            }
            other => return Err(refused(&format!("it is of type {:?}", other.as_byte() as char))),
        };
        let path = clean(&found.path).ok_or_else(|| refused("its name leads out of the archive"))?;
        let (mode, owner) = (found.mode & 0o7777, (found.uid, found.gid));
        Ok(Some(Added { path, kind, mode, owner, mtime: found.mtime, xattrs: found.xattrs }))
    }

    /// The content of the entry returned last.
    pub fn content(&mut self) -> impl Read {
        self.entries.content()
    }
}

fn decompress(source: BufReader<File>, start: &[u8]) -> io::Result<Box<dyn Read>> {
    let is_skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    Ok(match start {
        [0x1f, 0x8b, 0x08, ..] => Box::new(MultiGzDecoder::new(source)),
        [b'B', b'Z', b'h', ..] => Box::new(MultiBzDecoder::new(source)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(XzReader::new_mem_limit(source, true, XZ_MEMORY)),
        _ if is_skippable || start.starts_with(b"\x28\xb5\x2f\xfd") => {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        }
        _ => Box::new(source),
    })
}

/// A name without leading slashes, `.` and `..`. None if it leads outside, or cannot be the name of a file.
fn clean(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    (!name.contains(&0)).then(|| parts.join(&b'/'))
}

struct Bounded {
    inner: Box<dyn Read>,
    left: u64,
    limit: u64,
    what: String,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer).map_err(|cause| damaged(cause, &self.what))?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                let what = format!("{}, unpacked,", self.what);
                return Err(io::Error::other(Error::TooLarge { what, limit: self.limit }));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Seek, Write};
    use tar::Header;

    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, name, link) in entries {
            let mut header = Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_uid(5);
            header.set_gid(6);
            header.set_mtime(9);
            header.set_size(0);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn open(bytes: &[u8], limits: LayerLimits) -> Option<AddedArchive> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        AddedArchive::open(file, "x.tar", limits).unwrap()
    }

    fn first(bytes: &[u8]) -> Result<Option<Added>> {
        open(bytes, LayerLimits::default()).unwrap().next()
    }

    #[test]
    fn an_archive_is_known_by_its_bytes() {
        let plain = archive(&[(EntryType::Regular, "a", "")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip.write_all(&plain).unwrap();
        for bytes in [
            plain.clone(),
            gzip.finish().unwrap(),
            bzip.finish().unwrap(),
            zstd::encode_all(&plain[..], 1).unwrap(),
        ] {
            let added = first(&bytes).unwrap().unwrap();
            assert_eq!(
                (added.path, added.kind, added.mode, added.owner, added.mtime),
                (b"a".to_vec(), AddedKind::File, 0o640, (5, 6), 9)
            );
            assert!(open(&bytes[..bytes.len().min(40)], LayerLimits::default()).is_none());
        }
        for bytes in [
            &b""[..],
            b"text",
            b"BZh",
            b"\x1f\x8b\x08",
            b"\xfd7zXZ\0",
            &[0; 4096],
            &zstd::encode_all(&b"text"[..], 1).unwrap(),
        ] {
            assert!(open(bytes, LayerLimits::default()).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn names_stay_within() {
        for (name, path) in
            [("./a//b", "a/b"), ("/etc/x", "etc/x"), ("./", ""), ("a/../b", "b"), ("..a/.b", "..a/.b")]
        {
            let added = first(&archive(&[(EntryType::Regular, name, "")])).unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&added.path), path);
        }
        for name in ["..", "../x", "/../x", "a/../../x"] {
            let error = first(&archive(&[(EntryType::Regular, name, "")])).unwrap_err();
            assert!(error.to_string().contains("leads out"), "{error}");
            let error = first(&archive(&[(EntryType::Link, "a", name)])).unwrap_err();
            assert!(error.to_string().contains("leads out"), "{error}");
        }
        let link = first(&archive(&[(EntryType::Symlink, "a", "/../etc")])).unwrap().unwrap();
        assert_eq!(link.kind, AddedKind::Symlink(b"/../etc".to_vec()));
    }

    #[test]
    fn what_may_not_be_unpacked_is_refused() {
        for kind in [EntryType::Char, EntryType::Block, EntryType::GNUSparse, EntryType::new(b'Z')] {
            let error = first(&archive(&[(kind, "a", "")])).unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
        }
        let cut = archive(&[(EntryType::Regular, "a", ""), (EntryType::Regular, "b", "")]);
        let mut archive = open(&cut[..700], LayerLimits::default()).unwrap();
        assert!(archive.next().unwrap().is_some() && archive.next().is_err());
    }

    #[test]
    fn there_is_an_end_to_what_is_read() {
        let bytes = archive(&[(EntryType::Regular, "a", ""), (EntryType::Regular, "b", "")]);
        let mut few = open(&bytes, LayerLimits { bytes: 1 << 20, entries: 1 }).unwrap();
        assert!(few.next().is_ok() && few.next().is_err());
        let mut header = Header::from_byte_slice(&bytes[..512]).clone();
        header.set_size(1 << 30);
        header.set_cksum();
        let mut bomb = header.as_bytes().to_vec();
        bomb.resize(1 << 20, 0);
        let mut bomb =
            open(&zstd::encode_all(&bomb[..], 1).unwrap(), LayerLimits { bytes: 1 << 16, entries: 9 })
                .unwrap();
        assert!(bomb.next().is_ok());
        assert!(io::copy(&mut bomb.content(), &mut io::sink()).is_err());
    }
}
