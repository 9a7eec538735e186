//! Entries on their way to a layer: a directory waits until something in it is written, since one that was merely passed
//! through is no change.

use std::io::{self, Read};

use super::compress::Keeping;
use super::entry::{Entry, Kind};
use super::read::Limits;
use super::write::{LayerWriter, Packing};
use crate::error::{Error, Result};
use crate::store::Store;

/// How names begin in an archive that delete something below.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The name in an archive that hides all that is below its directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Takes entries in canonical order, each directory before what is in it.
pub(super) struct Emitter<'a> {
    store: &'a Store,
    keeping: Keeping,
    limits: Limits,
    /// The bytes of files that were written so far.
    bytes: u64,
    /// The directories on the way to the present one in which nothing has changed so far.
    waiting: Vec<Entry>,
    /// None before the first change: a step without changes makes no layer.
    writer: Option<LayerWriter>,
}

/// How many directories waited when this one was entered.
#[derive(Clone, Copy)]
pub(super) struct Entered(usize);

impl<'a> Emitter<'a> {
    pub(super) fn new(store: &'a Store, keeping: Keeping, limits: Limits) -> Self {
        Self { store, keeping, limits, bytes: 0, waiting: Vec::new(), writer: None }
    }

    /// A directory, to be written before the first thing in it.
    pub(super) fn enter(&mut self, directory: Entry) -> Entered {
        self.waiting.push(directory);
        Entered(self.waiting.len())
    }

    /// At the end of a directory: its entry, if nothing in it was written.
    pub(super) fn leave(&mut self, entered: Entered) -> Option<Entry> {
        // Otherwise no directory would be waiting as long as it.
        if self.waiting.len() == entered.0 { self.waiting.pop() } else { None }
    }

    /// Writes an entry, and those that wait before it.
    pub(super) fn emit(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        self.check(entry)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(LayerWriter::new(self.store, self.keeping)?),
        };
        for directory in self.waiting.drain(..) {
            writer.add(&directory, &mut io::empty())?;
        }
        writer.add(entry, content)
    }

    /// The layer; none when nothing was written.
    pub(super) fn finish(self) -> Result<Option<Packing>> {
        self.writer.map(LayerWriter::pack).transpose()
    }

    /// What could not be unpacked again is not written: neither more entries, nor a file that claims petabytes.
    fn check(&mut self, entry: &Entry) -> Result<()> {
        if let Kind::File { size } = entry.kind {
            self.bytes = self.bytes.saturating_add(size);
        }
        if self.bytes > self.limits.bytes {
            return Err(Error::TooLarge { what: "the layer".to_owned(), limit: self.limits.bytes });
        }
        let entries = self.writer.as_ref().map_or(0, LayerWriter::entries) + self.waiting.len() as u64;
        if entries >= self.limits.entries {
            let reason = format!("more than {} entries, the most that are read", self.limits.entries);
            return Err(Error::refused("the layer", reason));
        }
        Ok(())
    }
}

/// A name that a layer would take for an order to delete something.
pub(super) fn refuse_whiteout_name(shown: String) -> Error {
    Error::refused(shown, "a step made a name that begins with `.wh.`: in a layer it would delete something")
}
