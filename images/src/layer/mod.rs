//! Layers: written in one canonical form, read with suspicion.
//!
//! The form is written down in `docs/layers.md`; golden digests in the tests hold it still.

mod added;
mod archive;
mod compress;
mod entry;
mod links;
mod names;
mod normalise;
mod read;
mod unpack;
mod upper;
mod write;
mod xattrs;

pub use added::{Added, AddedArchive, AddedKind};
pub(crate) use archive::{Entries, Found};
pub use compress::{COMPRESSOR, Compression};
pub use entry::{Entry, Kind};
pub use normalise::{Fired, NORMALISER, Normaliser};
pub use read::{Limits, open_archive};
pub use unpack::unpack;
pub use upper::{FromUpper, from_upper};
pub use write::{Layer, LayerWriter};
