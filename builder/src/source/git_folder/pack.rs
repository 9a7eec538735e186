//! A pack of git objects and its index, whose bytes depend on the objects alone: sorted by id, without deltas, and
//! stored without compression, since compressors differ between versions. The layer is compressed as a whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use git2::{ObjectType, Oid};

/// Offsets from here on are in a table of their own.
const LARGE: u64 = 1 << 31;
/// The most bytes of a block that is stored.
const BLOCK: usize = 0xffff;

/// Writes `pack-….pack` and `pack-….idx` into a folder. `read` gives the objects one at a time.
pub(super) fn write(
    folder: &Path,
    objects: &BTreeMap<Oid, ObjectType>,
    read: &dyn Fn(Oid) -> Result<Vec<u8>, git2::Error>,
) -> io::Result<()> {
    let started = folder.join("started.pack");
    let mut out = Hashed::new(BufWriter::new(File::create(&started)?));
    out.put(b"PACK\0\0\0\x02")?;
    out.put(&count(objects.len())?.to_be_bytes())?;
    let mut entries = Vec::with_capacity(objects.len());
    for (id, kind) in objects {
        let offset = out.written;
        let object = head(*kind, &read(*id).map_err(io::Error::other)?);
        out.put(&object)?;
        entries.push((*id, offset, libdeflater::crc32(&object)));
    }
    let name = out.end()?;
    let index = index(&entries, &name)?;
    let called = format!("pack-{}", hex::encode(name));
    std::fs::rename(started, folder.join(format!("{called}.pack")))?;
    std::fs::write(folder.join(format!("{called}.idx")), index)?;
    Ok(())
}

fn count(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other("more objects than a pack can hold"))
}

/// An object as it is in a pack: its kind and size, and its bytes as a zlib stream.
fn head(kind: ObjectType, bytes: &[u8]) -> Vec<u8> {
    let number = match kind {
        ObjectType::Commit => 1,
        ObjectType::Tree => 2,
        ObjectType::Tag => 4,
        _ => 3,
    };
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / BLOCK * 5 + 32);
    let mut size = bytes.len() as u64;
    let mut first = (number << 4) | (size & 15) as u8;
    size >>= 4;
    while size > 0 {
        out.push(first | 0x80);
        first = (size & 0x7f) as u8;
        size >>= 7;
    }
    out.push(first);
    out.extend_from_slice(&[0x78, 0x01]);
    let mut blocks = bytes.chunks(BLOCK).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&libdeflater::adler32(bytes).to_be_bytes());
    out
}

/// The index of a pack, version 2. `entries` are sorted: id, offset and checksum.
fn index(entries: &[(Oid, u64, u32)], pack: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Hashed::new(Vec::new());
    out.put(b"\xfftOc\0\0\0\x02")?;
    for first in 0..=u8::MAX {
        let before = entries.partition_point(|(id, ..)| id.as_bytes()[0] <= first);
        out.put(&count(before)?.to_be_bytes())?;
    }
    for (id, ..) in entries {
        out.put(id.as_bytes())?;
    }
    for (.., crc) in entries {
        out.put(&crc.to_be_bytes())?;
    }
    let mut large = Vec::new();
    for (_, offset, _) in entries {
        let small = u32::try_from(*offset).ok().filter(|_| *offset < LARGE);
        let written = match small {
            Some(small) => small,
            None => {
                large.push(*offset);
                count(large.len() - 1)? | 0x8000_0000
            }
        };
        out.put(&written.to_be_bytes())?;
    }
    for offset in large {
        out.put(&offset.to_be_bytes())?;
    }
    out.put(pack)?;
    let own = out.hash.clone().finish();
    out.out.extend_from_slice(own.as_ref());
    Ok(out.out)
}

/// Counts and hashes what is written.
pub(super) struct Hashed<W> {
    out: W,
    hash: Context,
    written: u64,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, hash: Context::new(&SHA1_FOR_LEGACY_USE_ONLY), written: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Writes the hash behind it all, and returns it.
    pub(super) fn end(mut self) -> io::Result<Vec<u8>> {
        let hash = self.hash.finish().as_ref().to_vec();
        self.out.write_all(&hash)?;
        self.out.flush()?;
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_zlib() {
        assert_eq!(libdeflater::adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(libdeflater::crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn far_offsets_are_in_a_table_of_their_own() {
        let id = |first: u8| Oid::from_bytes(&[first; 20]).unwrap();
        let bytes = index(&[(id(1), 12, 7), (id(2), LARGE + 5, 8)], &[9; 20]).unwrap();
        let offsets = &bytes[8 + 1024 + 2 * 20 + 2 * 4..];
        assert_eq!(offsets[..8], [0, 0, 0, 12, 0x80, 0, 0, 0]);
        assert_eq!(offsets[8..16], (LARGE + 5).to_be_bytes());
        assert_eq!(offsets.len(), 16 + 40);
    }
}
