//! Recompresses a layer that may have been compressed by another program.

use std::io::{self, Read, Write};

use attestations::Digest;

use super::archive::Entries;
use super::compress::Compression;
use super::read::{LayerLimits, open_archive};
use super::write::{LayerWriter, Packing};
use crate::descriptor::Descriptor;
use crate::error::{At, Error, Result};
use crate::store::Store;

/// Reads a layer's blob from one store, and writes its archive into another with this builder's compression: equal
/// diff IDs give equal blobs.
///
/// # Errors
/// When the layer does not match its digests, exceeds `limits`, or the other store cannot be written; and soon after
/// `stop` returns true, with [`io::ErrorKind::Interrupted`] as the cause.
pub fn repack(
    (from, layer, diff_id): (&Store, &Descriptor, &Digest),
    (into, compression): (&Store, Compression),
    limits: LayerLimits,
    stop: &dyn Fn() -> bool,
) -> Result<Packing> {
    let what = format!("layer {}", layer.digest);
    let archive = open_archive(from, layer, Some(diff_id), limits)?;
    let mut writer = LayerWriter::new(into, compression)?;
    let mut passing = Passing { from: archive.reader(), into: &mut writer, stop };
    let mut entries = Entries::new(&mut passing, &what);
    let mut count = 0;
    while entries.next()?.is_some() {
        count += 1;
        if count > limits.entries {
            return Err(Error::refused(what, format!("it has more than {} entries", limits.entries)));
        }
    }
    io::copy(&mut passing, &mut io::sink()).at("reading", &what)?;
    archive.finish()?;
    writer.pack_copied(count)
}

/// A reader that copies everything read to the layer writer.
struct Passing<'a, R> {
    from: R,
    into: &'a mut LayerWriter,
    stop: &'a dyn Fn() -> bool,
}

impl<R: Read> Read for Passing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stop)() {
            // Not as the error's own kind: readers would take it for a signal, and retry.
            return Err(io::Error::other(io::Error::from(io::ErrorKind::Interrupted)));
        }
        let count = self.from.read(buffer)?;
        self.into.copied().write_all(&buffer[..count])?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::entry::{Entry, Kind};
    use super::super::write::Layer;
    use super::*;

    fn layer(store: &Store, compression: Compression) -> Layer {
        let mut writer = LayerWriter::new(store, compression).unwrap();
        for name in ["a", "b"] {
            let mut entry = Entry::marker(name.into(), 7);
            // Several members, the last one incomplete.
            let content: Vec<u8> = (0..3_000_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
            entry.kind = Kind::File { size: content.len() as u64 };
            writer.add(&entry, &mut &content[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn however_it_was_compressed_it_is_what_would_have_been_written_here() {
        let place = tempfile::tempdir().unwrap();
        let [from, into] = ["from", "into"].map(|name| Store::open(place.path().join(name)).unwrap());
        let ours = layer(&into, Compression::Gzip);
        for compression in [Compression::None, Compression::Zstd, Compression::Gzip] {
            let theirs = layer(&from, compression);
            let source = (&from, &theirs.descriptor, &theirs.diff_id);
            let again = repack(source, (&into, Compression::Gzip), LayerLimits::default(), &|| false);
            assert_eq!(again.unwrap().layer().unwrap(), ours);
        }
    }

    #[test]
    fn what_is_another_or_too_large_or_not_wanted_any_more_is_not_packed() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let theirs = layer(&store, Compression::Zstd);
        let blobs = || std::fs::read_dir(place.path().join("blobs/sha256")).unwrap().count();
        let before = blobs();
        let tried = |diff_id: &Digest, limits: LayerLimits, stop: &dyn Fn() -> bool| {
            let source = (&store, &theirs.descriptor, diff_id);
            repack(source, (&store, Compression::Gzip), limits, stop).map(|_| ()).unwrap_err().to_string()
        };
        let other = tried(&Digest::of(b"another"), LayerLimits::default(), &|| false);
        assert!(other.contains("should have the digest"), "{other}");
        let few = LayerLimits { entries: 1, ..LayerLimits::default() };
        assert!(tried(&theirs.diff_id, few, &|| false).contains("more than 1 entries"));
        let small = LayerLimits { bytes: 1 << 20, ..LayerLimits::default() };
        assert!(tried(&theirs.diff_id, small, &|| false).contains("more than 1048576 bytes"));
        tried(&theirs.diff_id, LayerLimits::default(), &|| true);
        assert_eq!(blobs(), before);
    }
}
