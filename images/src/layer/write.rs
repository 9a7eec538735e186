//! Writes a layer in one pass: hashed before and after compression.

use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use attestations::Digest;

use super::compress::{Compressed, Compressing, Keeping};
use super::entry::{self, Entry, Kind};
use super::normalise::AppliedRule;
use crate::descriptor::Descriptor;
use crate::error::{At, Error, Result};
use crate::hashing::Hashing;
use crate::store::Store;

/// A layer in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed archive, which identifies the layer.
    pub diff_id: Digest,
    /// The number of its entries.
    pub entries: u64,
}

/// A layer whose archive is complete, so that its diff ID is known, while its blob, if stored, is still being
/// compressed. Dropping the last clone cancels that and leaves nothing behind.
#[derive(Clone)]
pub struct Packing {
    /// The digest of the uncompressed archive, which identifies the layer.
    pub diff_id: Digest,
    /// The number of its entries.
    pub entries: u64,
    /// None once it failed.
    blob: Arc<Mutex<Option<Compressed>>>,
    place: PathBuf,
}

impl Packing {
    /// Waits for the blob.
    ///
    /// # Errors
    /// When the store cannot be written, or the layer was not to be stored. The cause is returned once; later calls
    /// only say that the layer could not be written.
    pub fn layer(&self) -> Result<Layer> {
        self.layer_unless(&|| false)
    }

    /// Waits for the blob, but ends shortly after `stop` returns true.
    ///
    /// # Errors
    /// When the store cannot be written, or `stop` returned true.
    pub fn layer_unless(&self, stop: &dyn Fn() -> bool) -> Result<Layer> {
        let mut blob = self.blob.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = || Error::refused(self.diff_id.to_string(), "the layer could not be written");
        let descriptor = blob.take().ok_or_else(failed)?.wait(stop, &self.place)?;
        *blob = Some(Compressed::Whole(descriptor.clone()));
        Ok(Layer { descriptor, diff_id: self.diff_id, entries: self.entries })
    }

    /// Whether compression has ended, so that waiting takes no longer than the disk.
    pub fn is_done(&self) -> bool {
        self.blob.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_none_or(Compressed::is_done)
    }
}

impl fmt::Debug for Packing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Packing").field("diff_id", &self.diff_id).finish_non_exhaustive()
    }
}

/// The result of writing a step's changes.
#[derive(Debug)]
pub struct Written {
    /// The layer; none when the step changed nothing.
    pub layer: Option<Packing>,
    /// The rules that changed something, by rule and path.
    pub applied: Vec<AppliedRule>,
}

/// Writes entries in canonical order into a store.
pub struct LayerWriter {
    out: Hashing<Compressing>,
    last: Option<Vec<u8>>,
    entries: u64,
    place: PathBuf,
}

impl LayerWriter {
    /// A layer without entries.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn new(store: &Store, keeping: impl Into<Keeping>) -> Result<Self> {
        let place = store.root().to_owned();
        let out = Hashing::new(Compressing::new(keeping.into(), store)?);
        Ok(Self { out, last: None, entries: 0, place })
    }

    /// Adds an entry. For a file, `content` is read to exactly its size.
    ///
    /// # Errors
    /// When the entry is out of order, its content is shorter or longer than its size, or the store cannot be
    /// written.
    pub fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| order(last, &entry.path) != std::cmp::Ordering::Less) {
            return Err(Error::refused(
                "layer",
                format!("{} is out of order", String::from_utf8_lossy(&entry.path)),
            ));
        }
        let place = self.place.clone();
        entry::write_header(entry, &mut self.out).at("writing a layer in", &place)?;
        if let Kind::File { size } = entry.kind {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let copied = self.out.copy(content, size).at("writing a layer in", &place)?;
            if copied != size || content.read(&mut [0]).at("reading", &name)? != 0 {
                return Err(Error::refused(name, "changed its size while it was read"));
            }
            entry::write_padding(size, &mut self.out).at("writing a layer in", &place)?;
        }
        self.last = Some(entry.path.clone());
        self.entries += 1;
        Ok(())
    }

    /// The output for an archive that is copied unchanged.
    pub(super) fn copied(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// Ends an archive that was copied unchanged, including its end blocks.
    pub(super) fn pack_copied(self, entries: u64) -> Result<Packing> {
        let (diff_id, out) = self.out.finish().at("writing a layer in", &self.place)?;
        let blob = Arc::new(Mutex::new(Some(out.finish(diff_id, &self.place)?)));
        Ok(Packing { diff_id, entries, blob, place: self.place })
    }

    /// The number of entries added.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Ends the layer.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn finish(self) -> Result<Layer> {
        self.pack()?.layer()
    }

    /// Ends the archive, while compression continues in the background.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn pack(mut self) -> Result<Packing> {
        entry::write_end(&mut self.out).at("writing a layer in", &self.place)?;
        let entries = self.entries;
        self.pack_copied(entries)
    }
}

/// The order of entries: by the bytes of the path's components, so that a directory comes right before its contents.
pub(super) fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/'))
}
