//! Reads the entries of an untrusted archive: ustar headers with PAX records and GNU long names, each with a limit
//! before it is read.
//!
//! PAX values may contain newlines (capabilities do), so records are split by their lengths. GNU sparse files are
//! refused: images do not need them, and their size differs from that of their data in the archive.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::error::{At, Error, Result};

const BLOCK: u64 = 512;
/// The most bytes of one extension header; names and attributes are small.
const MAX_EXTENSION: u64 = 1 << 20;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Reads entries one after another.
pub(crate) struct Entries<R> {
    inner: R,
    what: String,
    /// Unread bytes of the last entry's content, with its padding.
    left: u64,
    padding: u64,
}

/// An entry's header, merged with its extensions.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveEntry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whole seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) size: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// All other records of the extension header.
    pub(crate) records: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) header: Header,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(inner: R, what: impl Into<String>) -> Self {
        Self { inner, what: what.into(), left: 0, padding: 0 }
    }

    /// The next entry; none at the archive's end. Unread content of the last one is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<ArchiveEntry>> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                let dangling =
                    extensions.path.is_some() || extensions.link.is_some() || extensions.records.is_some();
                return if dangling {
                    Err(self.refused("an extension header of no entry"))
                } else {
                    Ok(None)
                };
            };
            let size = header.entry_size().map_err(|cause| self.refused(&cause.to_string()))?;
            self.expect_content(size);
            match header.entry_type() {
                EntryType::GNULongName => set(&mut extensions.path, self.name()?, &self.what)?,
                EntryType::GNULongLink => set(&mut extensions.link, self.name()?, &self.what)?,
                EntryType::XHeader => {
                    let bytes = self.extension()?;
                    let records = records(&bytes).ok_or_else(|| self.refused("a malformed PAX header"))?;
                    set(&mut extensions.records, records, &self.what)?;
                }
                // A global header (comments, the commit of `git archive`) has nothing about an entry.
                EntryType::XGlobalHeader => drop(self.extension()?),
                EntryType::GNUSparse => return Err(self.refused("a sparse file, which no image may bring")),
                _ => return self.found(header, extensions).map(Some),
            }
        }
    }

    /// The content of the entry returned last.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn found(&mut self, header: Header, extensions: Extensions) -> Result<ArchiveEntry> {
        let bad = |cause: io::Error| Error::refused(&self.what, format!("a malformed header: {cause}"));
        let mut records = extensions.records.unwrap_or_default();
        if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(self.refused("a sparse file, which no image may bring"));
        }
        let number = |value: &[u8]| {
            let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            parsed.ok_or_else(|| self.refused("a PAX number that is none"))
        };
        let mut take = |key: &[u8]| records.remove(key);
        let size = take(b"size").map_or_else(|| header.entry_size().map_err(bad), |value| number(&value))?;
        let uid = take(b"uid").map_or_else(|| header.uid().map_err(bad), |value| number(&value))?;
        let gid = take(b"gid").map_or_else(|| header.gid().map_err(bad), |value| number(&value))?;
        let mtime = match take(b"mtime") {
            Some(value) => seconds(&value).ok_or_else(|| self.refused("a PAX time that is none"))?,
            None => header.mtime().map_err(bad)?.min(i64::MAX as u64) as i64,
        };
        let path = take(b"path").or(extensions.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = take(b"linkpath")
            .or(extensions.link)
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let id = |value: u64| u32::try_from(value).map_err(|_| self.refused("an owner beyond 32 bits"));
        let (uid, gid) = (id(uid)?, id(gid)?);
        let (xattrs, records): (BTreeMap<_, _>, _) =
            records.into_iter().partition(|(key, _)| key.starts_with(XATTR));
        let xattrs = xattrs.into_iter().map(|(key, value)| (key[XATTR.len()..].to_vec(), value)).collect();
        let mode = header.mode().map_err(bad)?;
        let kind = header.entry_type();
        self.expect_content(size);
        Ok(ArchiveEntry { path, link, kind, mode, uid, gid, mtime, size, xattrs, records, header })
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let skip = self.left.saturating_add(self.padding);
        let skipped =
            io::copy(&mut (&mut self.inner).take(skip), &mut io::sink()).at("reading", &self.what)?;
        if skipped != skip {
            return Err(self.refused("it ends in the middle of an entry"));
        }
        let mut header = Header::new_old();
        let mut block = Vec::with_capacity(BLOCK as usize);
        (&mut self.inner).take(BLOCK).read_to_end(&mut block).at("reading", &self.what)?;
        if block.is_empty() || block.iter().all(|byte| *byte == 0) {
            (self.left, self.padding) = (0, 0);
            return Ok(None);
        }
        if block.len() as u64 != BLOCK {
            return Err(self.refused("it ends in the middle of a header"));
        }
        header.as_mut_bytes().copy_from_slice(&block);
        match is_header(&block) {
            true => Ok(Some(header)),
            false => Err(self.refused("a header whose checksum is wrong")),
        }
    }

    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > MAX_EXTENSION {
            return Err(Error::TooLarge {
                what: format!("an extension header of {}", self.what),
                limit: MAX_EXTENSION,
            });
        }
        let mut bytes = Vec::new();
        let what = self.what.clone();
        self.content().read_to_end(&mut bytes).at("reading", what)?;
        Ok(bytes)
    }

    /// GNU long names end with a NUL.
    fn name(&mut self) -> Result<Vec<u8>> {
        let mut name = self.extension()?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn refused(&self, reason: &str) -> Error {
        Error::refused(&self.what, reason)
    }
}

/// The rest of an entry's content. Reading fails if the archive ends early.
pub(crate) struct Content<'a, R>(&'a mut Entries<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.0.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.0.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::other(self.0.refused("it ends in the middle of an entry")));
        }
        self.0.left -= count as u64;
        Ok(count)
    }
}

/// Whether a block is an entry's header, by its checksum.
pub(super) fn is_header(block: &[u8]) -> bool {
    if block.len() as u64 != BLOCK || block.iter().all(|byte| *byte == 0) {
        return false;
    }
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 256;
    header.cksum().is_ok_and(|said| said == sum)
}

fn set<T>(place: &mut Option<T>, value: T, what: &str) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::refused(what, "two extension headers of one kind for one entry")),
    }
}

/// Records of the form `length key=value\n`, where the length includes itself.
fn records(mut bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        found.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    Some(found)
}

/// A decimal number of seconds, rounded down.
fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let below = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    fraction.bytes().all(|digit| digit.is_ascii_digit()).then_some(())?;
    whole.parse::<i64>().ok()?.checked_sub(i64::from(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_by_their_length() {
        let found = records(b"12 a=b\nc=d\ne\n");
        assert!(found.is_none());
        let found = records(b"9 a=b\nc\n\n8 k=v\nw\n");
        assert_eq!(found.map(|found| found[&b"a"[..]].clone()), Some(b"b\nc\n".to_vec()));
        assert!(records(b"99 a=b\n").is_none());
        assert!(records(b"1 a=b\n").is_none());
    }

    #[test]
    fn times_round_down() {
        assert_eq!(seconds(b"17179869184"), Some(17_179_869_184));
        assert_eq!(seconds(b"12.75"), Some(12));
        assert_eq!(seconds(b"-1.5"), Some(-2));
        assert_eq!(seconds(b"x"), None);
    }
}
