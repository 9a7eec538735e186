//! Reads an untrusted layer as a stream: verified, decompressed and with limits.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use attestations::Digest;
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::descriptor::{self, Descriptor};
use crate::error::{At, Error, Result};
use crate::store::{Store, VerifyingReader};

/// The limits for an untrusted layer.
#[derive(Debug, Clone, Copy)]
pub struct LayerLimits {
    /// The most bytes of the uncompressed archive.
    pub bytes: u64,
    /// The most entries.
    pub entries: u64,
}

impl Default for LayerLimits {
    /// 64 GiB and ten million entries: more than any algorithm needs, and less than would fill a disk unnoticed.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 10_000_000 }
    }
}

/// The uncompressed archive of a layer. Nothing read from it can be trusted before [`Archive::finish`] succeeded.
pub struct Archive {
    shared: Rc<RefCell<Counting>>,
    diff_id: Option<Digest>,
    what: String,
}

struct Counting {
    inner: Box<dyn Read>,
    hash: Sha256,
    read: u64,
    limit: u64,
    what: String,
}

/// Opens a layer's blob. With `diff_id`, the uncompressed bytes must have that digest.
///
/// # Errors
/// When the blob is missing or its media type is not supported.
pub fn open_archive(
    store: &Store,
    layer: &Descriptor,
    diff_id: Option<&Digest>,
    limits: LayerLimits,
) -> Result<Archive> {
    let blob = store.open_blob(layer)?;
    let inner = decompress(blob, &layer.media_type).at("decompressing", store.path_of(&layer.digest))?;
    let what = format!("layer {}", layer.digest);
    let counting = Counting { inner, hash: Sha256::new(), read: 0, limit: limits.bytes, what: what.clone() };
    Ok(Archive { shared: Rc::new(RefCell::new(counting)), diff_id: diff_id.copied(), what })
}

fn decompress(blob: VerifyingReader<File>, media_type: &str) -> io::Result<Box<dyn Read>> {
    let blob = BufReader::with_capacity(1 << 17, blob);
    Ok(match media_type {
        descriptor::LAYER => Box::new(blob),
        descriptor::LAYER_GZIP | descriptor::DOCKER_LAYER => Box::new(MultiGzDecoder::new(blob)),
        descriptor::LAYER_ZSTD => {
            let mut decoder = zstd::Decoder::with_buffer(blob)?;
            // A window of at most 128 MiB: the maximum that the format recommends decoders to support.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        other => return Err(io::Error::other(format!("layers of type `{other}` are not known here"))),
    })
}

impl Archive {
    /// A reader of the same stream.
    pub fn reader(&self) -> impl Read + use<> {
        Shared(self.shared.clone())
    }

    /// Reads to the end and checks the digests of the blob and of the archive.
    ///
    /// # Errors
    /// When a digest does not match, or the archive exceeds the limits.
    pub fn finish(self) -> Result<()> {
        io::copy(&mut self.reader(), &mut io::sink()).at("reading", &self.what)?;
        let found = Digest::from_bytes(self.shared.borrow_mut().hash.finalize_reset().into());
        match self.diff_id {
            Some(wanted) if wanted != found => {
                Err(Error::Digest { what: format!("{} unpacked", self.what), wanted, found })
            }
            _ => Ok(()),
        }
    }
}

struct Shared(Rc<RefCell<Counting>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut counting = self.0.borrow_mut();
        let count = counting.inner.read(buffer).map_err(|cause| damaged(cause, &counting.what))?;
        counting.hash.update(&buffer[..count]);
        counting.read += count as u64;
        if counting.read > counting.limit {
            return Err(io::Error::other(Error::TooLarge {
                what: format!("the archive of {}", counting.what),
                limit: counting.limit,
            }));
        }
        Ok(count)
    }
}

/// An error that is neither the machine's nor the verifying reader's comes from the decompressor: the blob is
/// damaged.
pub(super) fn damaged(cause: io::Error, what: &str) -> io::Error {
    let ours = cause.get_ref().is_some_and(|inner| inner.is::<Error>());
    if ours || cause.raw_os_error().is_some() || cause.kind() == io::ErrorKind::Interrupted {
        return cause;
    }
    io::Error::other(Error::refused(what, format!("its compressed form is damaged: {cause}")))
}
