//! Writes the entries of a layer. A directory is held back until something in it is written, since a directory that
//! was only traversed is not a change.

use std::io::{self, Read};

use super::compress::Keeping;
use super::entry::{Entry, Kind};
use super::read::LayerLimits;
use super::write::{LayerWriter, Packing};
use crate::error::{Error, Result};
use crate::store::Store;

/// The prefix of whiteout names in an archive, which delete a path of a lower layer.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The name in an archive that hides the lower content of its directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Takes entries in canonical order, each directory before its contents.
pub(super) struct Emitter<'a> {
    store: &'a Store,
    keeping: Keeping,
    limits: LayerLimits,
    /// The total size of the files written so far.
    bytes: u64,
    /// The ancestors of the current entry in which nothing has been written so far.
    waiting: Vec<Entry>,
    /// None before the first entry: a step without changes makes no layer.
    writer: Option<LayerWriter>,
}

/// The number of waiting directories when this one was entered.
#[derive(Clone, Copy)]
pub(super) struct Entered(usize);

impl<'a> Emitter<'a> {
    pub(super) fn new(store: &'a Store, keeping: Keeping, limits: LayerLimits) -> Self {
        Self { store, keeping, limits, bytes: 0, waiting: Vec::new(), writer: None }
    }

    /// Enters a directory, whose entry is written before the first entry in it.
    pub(super) fn enter(&mut self, directory: Entry) -> Entered {
        self.waiting.push(directory);
        Entered(self.waiting.len())
    }

    /// Leaves a directory. Returns its entry if nothing in it was written.
    pub(super) fn leave(&mut self, entered: Entered) -> Option<Entry> {
        // If something was written, no directory was left waiting.
        if self.waiting.len() == entered.0 { self.waiting.pop() } else { None }
    }

    /// Writes an entry, after its waiting ancestors.
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

    /// Refuses a layer that exceeds the limits for unpacking, in entries or in file sizes.
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

/// A name that would be a whiteout in a layer.
pub(super) fn refuse_whiteout_name(shown: String) -> Error {
    Error::refused(shown, "a step made a name that begins with `.wh.`: in a layer it would delete something")
}
