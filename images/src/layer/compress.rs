//! Deterministic compression.

use std::io::{self, Write};
use std::path::Path;

use attestations::Digest;

use super::members::{Growing, Members};
use crate::blob::{BlobFile, BlobWriter};
use crate::descriptor::{self, Descriptor};
use crate::error::{At, Error, Result};
use crate::store::Store;

/// The name of the compressor with its settings, as provenance records it.
pub const COMPRESSOR: &str = "gzip: libdeflate level 5, a member for each MiB";

const ZSTD_LEVEL: i32 = 3;

/// How a layer's blob is compressed. The layer's diff ID does not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Uncompressed.
    None,
    /// Gzip, which every client supports.
    #[default]
    Gzip,
    /// Zstandard, one frame, level 3, one thread.
    Zstd,
}

impl Compression {
    /// The media type of a layer with this compression.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => descriptor::LAYER,
            Self::Gzip => descriptor::LAYER_GZIP,
            Self::Zstd => descriptor::LAYER_ZSTD,
        }
    }
}

/// Whether a layer's archive is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// As a blob with this compression.
    Blob(Compression),
    /// Not at all; only its diff ID is computed.
    DiffId,
}

impl From<Compression> for Keeping {
    fn from(compression: Compression) -> Self {
        Self::Blob(compression)
    }
}

/// A blob that is compressed while it is written.
pub(super) enum Compressing {
    Nothing,
    None(BlobFile),
    Gzip(Box<Members<BlobWriter>>),
    Zstd(Box<zstd::Encoder<'static, BlobWriter>>),
}

impl Compressing {
    pub(super) fn new(keeping: Keeping, store: &Store) -> Result<Self> {
        Ok(match keeping {
            Keeping::DiffId => Self::Nothing,
            Keeping::Blob(Compression::None) => Self::None(store.file()?),
            Keeping::Blob(Compression::Gzip) => {
                Self::Gzip(Box::new(Members::new(store.writer()?, store.root())))
            }
            Keeping::Blob(Compression::Zstd) => {
                let encoder = zstd::Encoder::new(store.writer()?, ZSTD_LEVEL);
                Self::Zstd(Box::new(encoder.at("compressing into", store.root())?))
            }
        })
    }

    /// Ends the input. An uncompressed blob has the digest of the archive.
    pub(super) fn finish(self, diff_id: Digest, place: &Path) -> Result<Compressed> {
        Ok(match self {
            Self::Nothing => Compressed::Nothing,
            Self::None(file) => Compressed::Whole(file.commit(diff_id, Compression::None.media_type())?),
            Self::Gzip(members) => Compressed::Growing(members.finish().at("writing a layer in", place)?),
            Self::Zstd(encoder) => {
                let blob = encoder.finish().at("writing a layer in", place)?;
                Compressed::Whole(blob.commit(Compression::Zstd.media_type())?)
            }
        })
    }
}

/// A blob that has all its input.
pub(super) enum Compressed {
    /// Nothing is stored.
    Nothing,
    /// It is in the store.
    Whole(Descriptor),
    /// It is still being compressed.
    Growing(Growing<BlobWriter>),
}

impl Compressed {
    /// Whether compression has ended, so that waiting takes no longer than the disk.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Nothing | Self::Whole(_) => true,
            Self::Growing(growing) => growing.is_done(),
        }
    }

    /// Waits for the blob, until `stop` returns true.
    pub(super) fn wait(self, stop: &dyn Fn() -> bool, place: &Path) -> Result<Descriptor> {
        match self {
            Self::Nothing => {
                Err(Error::NotFound { what: "the blob of a layer that was not kept".to_owned() })
            }
            Self::Whole(descriptor) => Ok(descriptor),
            Self::Growing(growing) => {
                let blob = growing.wait(stop).at("writing a layer in", place)?;
                blob.commit(Compression::Gzip.media_type())
            }
        }
    }
}

impl Write for Compressing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Nothing => Ok(bytes.len()),
            Self::None(out) => out.write(bytes),
            Self::Gzip(members) => members.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
