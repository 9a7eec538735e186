//! Blobs being written to or read from a store. A blob has no name before its digest is known, and its content is not
//! trusted before it is verified.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use attestations::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::descriptor::Descriptor;
use crate::error::{At, Error, Result};
use crate::hashing::Hashing;
use crate::streaming::Streaming;

/// A blob that is being written and hashed.
pub struct BlobWriter {
    out: Hashing<BlobFile>,
    size: u64,
}

impl BlobWriter {
    pub(crate) fn new(file: BlobFile) -> Self {
        Self { out: Hashing::new(file), size: 0 }
    }

    fn finish(self) -> Result<(Digest, BlobFile)> {
        self.out.finish().at("writing", "a blob")
    }

    /// Flushes the blob to disk and gives it its name.
    ///
    /// # Errors
    /// When the disk refuses; nothing is left behind then.
    pub fn commit(self, media_type: &str) -> Result<Descriptor> {
        let (digest, file) = self.finish()?;
        file.commit(digest, media_type)
    }

    /// Gives the blob its name at once and leaves flushing to [`Store::flush`](crate::Store::flush), which must come
    /// before anything that relies on the blob is written. For many small blobs, a flush of each would cost more than
    /// the blob. A blob damaged by a power cut is detected by its digest like any other changed byte, and written
    /// again when it is stored the next time.
    ///
    /// # Errors
    /// When the disk refuses; nothing is left behind then.
    pub fn commit_unflushed(self, media_type: &str) -> Result<Descriptor> {
        let (digest, file) = self.finish()?;
        file.name(digest, media_type, |_, _| Ok(()))
    }

    /// Like [`BlobWriter::commit`], for foreign content that must match a descriptor.
    ///
    /// # Errors
    /// When its size or digest does not match, or the disk refuses; nothing is left behind then.
    pub fn commit_as(self, promised: &Descriptor) -> Result<Descriptor> {
        let what = || format!("blob {}", promised.digest);
        if self.size() != promised.size {
            return Err(Error::Size { what: what(), wanted: promised.size, found: self.size() });
        }
        let (found, file) = self.finish()?;
        if found != promised.digest {
            return Err(Error::Digest { what: what(), wanted: promised.digest, found });
        }
        file.commit(found, &promised.media_type)
    }

    /// The number of bytes written.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A blob that is being written without hashing: the caller computes the digest, so that no byte is hashed twice.
pub(crate) struct BlobFile {
    folder: PathBuf,
    file: BufWriter<Streaming>,
    size: u64,
}

impl BlobFile {
    /// `folder` is where blobs get their names; `file` is in it.
    pub(crate) fn new(folder: PathBuf, file: NamedTempFile) -> Self {
        Self { folder, file: BufWriter::with_capacity(1 << 17, Streaming::new(file)), size: 0 }
    }

    /// Flushes the blob to disk and names it by `digest`, which must be that of everything written.
    pub(crate) fn commit(self, digest: Digest, media_type: &str) -> Result<Descriptor> {
        let folder = self.folder.clone();
        let blob = self.name(digest, media_type, |file, path| file.sync_data().at("flushing", path))?;
        File::open(&folder).and_then(|folder| folder.sync_all()).at("flushing", &folder)?;
        Ok(blob)
    }

    fn name(
        self,
        digest: Digest,
        media_type: &str,
        before: impl FnOnce(&File, &Path) -> Result<()>,
    ) -> Result<Descriptor> {
        let path = self.folder.join(digest.hex());
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error).at("writing", &path)?;
        let file = file.into_inner();
        before(file.as_file(), &path)?;
        file.persist(&path).map_err(|failed| failed.error).at("naming", &path)?;
        Ok(Descriptor::new(media_type, digest, self.size))
    }
}

impl Write for BlobFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A reader that returns the end only after size and digest were verified.
pub struct VerifyingReader<R> {
    inner: R,
    hash: Sha256,
    left: u64,
    wanted: Descriptor,
    done: bool,
}

impl<R: Read> VerifyingReader<R> {
    /// A reader of `inner` that verifies it against `wanted`.
    pub fn new(inner: R, wanted: &Descriptor) -> Self {
        Self { inner, hash: Sha256::new(), left: wanted.size, wanted: wanted.clone(), done: false }
    }

    fn finish(&mut self) -> io::Result<usize> {
        if self.done {
            return Ok(0);
        }
        if self.left > 0 {
            return Err(self.wrong_size(self.wanted.size - self.left));
        }
        let found = Digest::from_bytes(self.hash.finalize_reset().into());
        if found != self.wanted.digest {
            return Err(io::Error::other(Error::Digest {
                what: format!("blob {}", self.wanted.digest),
                wanted: self.wanted.digest,
                found,
            }));
        }
        self.done = true;
        Ok(0)
    }

    fn wrong_size(&self, found: u64) -> io::Error {
        let what = format!("blob {}", self.wanted.digest);
        io::Error::other(Error::Size { what, wanted: self.wanted.size, found })
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            return self.finish();
        }
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| self.wrong_size(self.wanted.size + 1))?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
