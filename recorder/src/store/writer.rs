//! Keeping what passes: a body is written to the store, and hashed, on its way to the step.

use std::io::{self, Write};

use attestations::Digest;
use images::Store;
use images::store::BlobWriter;
use sha2::{Digest as _, Sha256};

use super::record::{RECORD_MEDIA_TYPE, Record};
use errors::Result;

/// The media type of a body in the store: whatever it is, it is bytes here.
pub(crate) const BODY_MEDIA_TYPE: &str = "application/octet-stream";

/// Where the bodies of a build are kept.
#[derive(Debug, Clone)]
pub struct StoreWriter {
    store: Store,
}

impl StoreWriter {
    /// Keeps in `store`.
    pub fn new(store: Store) -> StoreWriter {
        StoreWriter { store }
    }

    /// Writes the record, once every body that it names is on the disk.
    ///
    /// # Errors
    /// When the disk refuses, or there is more than a record holds.
    pub fn finish(&self, record: &Record) -> Result<Digest> {
        self.store.flush()?;
        Ok(self.store.put(RECORD_MEDIA_TYPE, &record.to_bytes()?)?.digest)
    }
}

/// A body that is being taken down. It has its name only when it is whole.
pub(crate) struct BodyWriter {
    size: u64,
    way: Mode,
}

enum Mode {
    Hash(Sha256),
    /// No byte yet: the empty body needs no file of its own.
    Waiting(Store),
    Write(Box<BlobWriter>),
}

impl BodyWriter {
    /// A body that goes to the keeper, or is only hashed when there is none.
    pub(crate) fn new(keeper: Option<&StoreWriter>) -> BodyWriter {
        let way = match keeper {
            Some(keeper) => Mode::Waiting(keeper.store.clone()),
            None => Mode::Hash(Sha256::new()),
        };
        BodyWriter { size: 0, way }
    }

    /// How many bytes there were so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the store refuses them; then the body can no longer be kept.
    pub(crate) fn take(&mut self, data: &[u8]) -> io::Result<()> {
        self.size += data.len() as u64;
        if let Mode::Waiting(store) = &self.way {
            self.way = Mode::Write(Box::new(store.writer().map_err(io::Error::other)?));
        }
        match &mut self.way {
            Mode::Hash(hash) => {
                hash.update(data);
                Ok(())
            }
            Mode::Write(writer) => writer.write_all(data),
            Mode::Waiting(_) => Ok(()),
        }
    }

    /// The digest of the whole. A kept body reaches the disk with [`StoreWriter::finish`].
    ///
    /// # Errors
    /// When the store refuses it.
    pub(crate) fn finish(self) -> io::Result<Digest> {
        let kept = match self.way {
            Mode::Hash(hash) => return Ok(Digest::from_bytes(hash.finalize().into())),
            Mode::Waiting(store) => {
                let empty = Digest::of(b"");
                match store.contains(&empty) {
                    true => return Ok(empty),
                    false => store.put(BODY_MEDIA_TYPE, b""),
                }
            }
            Mode::Write(writer) => writer.commit_unflushed(BODY_MEDIA_TYPE),
        };
        kept.map(|blob| blob.digest).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_hashed_bodies_have_the_same_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keeper = StoreWriter::new(store.clone());
        for body in [&b""[..], b"some bytes"] {
            for keeper in [None, Some(&keeper)] {
                let mut sink = BodyWriter::new(keeper);
                for piece in body.chunks(3) {
                    sink.take(piece).unwrap();
                }
                assert_eq!(sink.size(), body.len() as u64);
                assert_eq!(sink.finish().unwrap(), Digest::of(body));
                assert_eq!(store.contains(&Digest::of(body)), keeper.is_some());
            }
        }
    }

    #[test]
    fn a_body_that_breaks_off_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut sink = BodyWriter::new(Some(&StoreWriter::new(store.clone())));
        sink.take(b"half").unwrap();
        drop(sink);
        let blobs = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap();
        assert_eq!(blobs.count(), 0);
    }
}
