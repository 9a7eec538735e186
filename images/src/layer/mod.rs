//! Layers: written in one canonical form; foreign ones are read as untrusted input.
//!
//! The form is specified in `docs/layers.md`, and pinned by golden digests in the tests.

mod added;
mod archive;
mod compress;
mod emit;
mod entry;
mod layer_stack;
mod links;
mod members;
mod names;
mod node;
mod normalise;
mod picked;
mod read;
mod repack;
mod root;
mod tree;
mod unpack;
mod upper;
mod virtual_layer;
mod virtual_layer_builder;
mod write;
mod xattrs;

pub use added::{Added, AddedArchive, AddedKind};
pub(crate) use archive::{ArchiveEntry, Entries};
pub use compress::{COMPRESSOR, Compression, Keeping};
pub use entry::{Entry, Kind};
pub(crate) use entry::{write_end, write_header, write_padding};
pub use layer_stack::{FoundNode, LayerStack, StackedLayer};
pub use node::{Node, NodeKind};
pub use normalise::{AppliedRule, NORMALISER, Normaliser, rules};
pub use picked::{Picked, pick};
pub use read::{LayerLimits, open_archive};
pub use repack::repack;
pub use root::write_root;
pub use tree::{FilePlace, TreeFile};
pub use unpack::unpack;
pub use upper::{Times, from_upper};
pub use virtual_layer::VirtualLayer;
pub use virtual_layer_builder::{NewNode, NodeAttributes, VirtualLayerBuilder};
pub use write::{Layer, LayerWriter, Packing, Written};
