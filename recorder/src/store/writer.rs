//! Stores responses: a body is hashed and written to the store while it is forwarded to the step.

use std::io::{self, Write};

use attestations::Digest;
use images::Store;
use images::store::BlobWriter;
use sha2::{Digest as _, Sha256};

use super::record::{RECORD_MEDIA_TYPE, Record};
use errors::Result;

/// The media type of a body in the store, whatever its content.
pub(crate) const BODY_MEDIA_TYPE: &str = "application/octet-stream";

/// The writer of a build's responses.
#[derive(Debug, Clone)]
pub struct StoreWriter {
    store: Store,
}

impl StoreWriter {
    /// A writer to `store`.
    pub fn new(store: Store) -> StoreWriter {
        StoreWriter { store }
    }

    /// Writes the record, once all bodies that it refers to are synced to disk.
    ///
    /// # Errors
    /// When the disk refuses, or the record is too large.
    pub fn finish(&self, record: &Record) -> Result<Digest> {
        self.store.flush()?;
        Ok(self.store.put(RECORD_MEDIA_TYPE, &record.to_bytes()?)?.digest)
    }
}

/// A body that is being received. It gets its name in the store only when it is complete.
pub(crate) struct BodyWriter {
    size: u64,
    output: Output,
}

enum Output {
    Hash(Sha256),
    /// No byte yet: an empty body needs no temporary file.
    Waiting(Store),
    Write(Box<BlobWriter>),
}

impl BodyWriter {
    /// A body that is stored, or only hashed if there is no writer.
    pub(crate) fn new(writer: Option<&StoreWriter>) -> BodyWriter {
        let output = match writer {
            Some(writer) => Output::Waiting(writer.store.clone()),
            None => Output::Hash(Sha256::new()),
        };
        BodyWriter { size: 0, output }
    }

    /// The number of bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When the store cannot write them; then the body cannot be stored any more.
    pub(crate) fn take(&mut self, data: &[u8]) -> io::Result<()> {
        self.size += data.len() as u64;
        if let Output::Waiting(store) = &self.output {
            self.output = Output::Write(Box::new(store.writer().map_err(io::Error::other)?));
        }
        match &mut self.output {
            Output::Hash(hash) => {
                hash.update(data);
                Ok(())
            }
            Output::Write(writer) => writer.write_all(data),
            Output::Waiting(_) => Ok(()),
        }
    }

    /// The digest of the complete body. [`StoreWriter::finish`] syncs stored bodies to disk.
    ///
    /// # Errors
    /// When the store cannot write it.
    pub(crate) fn finish(self) -> io::Result<Digest> {
        let kept = match self.output {
            Output::Hash(hash) => return Ok(Digest::from_bytes(hash.finalize().into())),
            Output::Waiting(store) => {
                let empty = Digest::of(b"");
                match store.contains(&empty) {
                    true => return Ok(empty),
                    false => store.put(BODY_MEDIA_TYPE, b""),
                }
            }
            Output::Write(writer) => writer.commit_unflushed(BODY_MEDIA_TYPE),
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
        let writer = StoreWriter::new(store.clone());
        for body in [&b""[..], b"some bytes"] {
            for writer in [None, Some(&writer)] {
                let mut body_writer = BodyWriter::new(writer);
                for piece in body.chunks(3) {
                    body_writer.take(piece).unwrap();
                }
                assert_eq!(body_writer.size(), body.len() as u64);
                assert_eq!(body_writer.finish().unwrap(), Digest::of(body));
                assert_eq!(store.contains(&Digest::of(body)), writer.is_some());
            }
        }
    }

    #[test]
    fn a_body_that_breaks_off_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut body_writer = BodyWriter::new(Some(&StoreWriter::new(store.clone())));
        body_writer.take(b"half").unwrap();
        drop(body_writer);
        let blobs = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap();
        assert_eq!(blobs.count(), 0);
    }
}
