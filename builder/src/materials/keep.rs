//! Keeping what passes: a body is written to the store, and hashed, on its way to the step.

use std::io::{self, Write};

use attestations::Digest;
use images::Store;
use images::store::BlobWriter;
use sha2::{Digest as _, Sha256};

use super::record::{RECORD_MEDIA_TYPE, Record};
use crate::error::Result;

/// The media type of a body in the store: whatever it is, it is bytes here.
pub(crate) const BODY_MEDIA_TYPE: &str = "application/octet-stream";

/// Where the bodies of a build are kept.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    store: Store,
}

impl Keeper {
    /// Keeps in `store`.
    pub(crate) fn new(store: Store) -> Keeper {
        Keeper { store }
    }

    /// Writes the record, once every body that it names is on the disk.
    ///
    /// # Errors
    /// When the disk refuses, or there is more than a record holds.
    pub(crate) fn finish(&self, record: &Record) -> Result<Digest> {
        self.store.flush()?;
        Ok(self.store.put(RECORD_MEDIA_TYPE, &record.to_bytes()?)?.digest)
    }
}

/// A body that is being taken down. It has its name only when it is whole.
pub(crate) struct Sink {
    size: u64,
    way: Way,
}

enum Way {
    Hash(Sha256),
    /// No byte yet: the empty body needs no file of its own.
    Waiting(Store),
    Write(Box<BlobWriter>),
}

impl Sink {
    /// A body that goes to the keeper, or is only hashed when there is none.
    pub(crate) fn new(keeper: Option<&Keeper>) -> Sink {
        let way = match keeper {
            Some(keeper) => Way::Waiting(keeper.store.clone()),
            None => Way::Hash(Sha256::new()),
        };
        Sink { size: 0, way }
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
        if let Way::Waiting(store) = &self.way {
            self.way = Way::Write(Box::new(store.writer().map_err(io::Error::other)?));
        }
        match &mut self.way {
            Way::Hash(hash) => {
                hash.update(data);
                Ok(())
            }
            Way::Write(writer) => writer.write_all(data),
            Way::Waiting(_) => Ok(()),
        }
    }

    /// The digest of the whole. A kept body reaches the disk with [`Keeper::finish`].
    ///
    /// # Errors
    /// When the store refuses it.
    pub(crate) fn finish(self) -> io::Result<Digest> {
        let kept = match self.way {
            Way::Hash(hash) => return Ok(Digest::from_bytes(hash.finalize().into())),
            Way::Waiting(store) => {
                let empty = Digest::of(b"");
                match store.contains(&empty) {
                    true => return Ok(empty),
                    false => store.put(BODY_MEDIA_TYPE, b""),
                }
            }
            Way::Write(writer) => writer.commit_unflushed(BODY_MEDIA_TYPE),
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
        let keeper = Keeper::new(store.clone());
        for body in [&b""[..], b"some bytes"] {
            for keeper in [None, Some(&keeper)] {
                let mut sink = Sink::new(keeper);
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
        let mut sink = Sink::new(Some(&Keeper::new(store.clone())));
        sink.take(b"half").unwrap();
        drop(sink);
        let blobs = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap();
        assert_eq!(blobs.count(), 0);
    }
}
