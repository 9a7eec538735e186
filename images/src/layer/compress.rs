//! Deterministic compression.
//!
//! Gzip is written as one member (RFC 1952 allows several) for each mebibyte of input, compressed side by side by
//! libdeflate. The cut is by input alone, so neither the number of processors nor the size of the writes shows in the bytes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use attestations::Digest;
use libdeflater::{CompressionLvl, Compressor};

use crate::blob::{BlobFile, BlobWriter};
use crate::descriptor::{self, Descriptor};
use crate::error::{At, Result};
use crate::store::Store;

/// The name of the compressor with its settings, as provenance records it.
pub const COMPRESSOR: &str = "gzip: libdeflate level 5, a member for each MiB";

const MEMBER: usize = 1 << 20;
const LEVEL: i32 = 5;
const ZSTD_LEVEL: i32 = 3;

/// How a layer's blob is compressed. Its identity is the diff ID, which does not depend on this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip, which every client reads.
    #[default]
    Gzip,
    /// Zstandard, one frame, level 3, one thread.
    Zstd,
}

impl Compression {
    /// The media type of a layer that is compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => descriptor::LAYER,
            Self::Gzip => descriptor::LAYER_GZIP,
            Self::Zstd => descriptor::LAYER_ZSTD,
        }
    }
}

/// A blob that is being written, compressed on the way.
pub(super) enum Compressing {
    None(BlobFile),
    Gzip(Box<Members<BlobWriter>>),
    Zstd(Box<zstd::Encoder<'static, BlobWriter>>),
}

impl Compressing {
    pub(super) fn new(compression: Compression, store: &Store) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(store.file()?),
            Compression::Gzip => Self::Gzip(Box::new(Members::new(store.writer()?))),
            Compression::Zstd => {
                let encoder = zstd::Encoder::new(store.writer()?, ZSTD_LEVEL);
                Self::Zstd(Box::new(encoder.at("compressing into", store.root())?))
            }
        })
    }

    /// Ends the blob. What is not compressed has the digest of the archive.
    pub(super) fn finish(self, diff_id: Digest, place: &Path) -> Result<Descriptor> {
        match self {
            Self::None(file) => file.commit(diff_id, Compression::None.media_type()),
            Self::Gzip(members) => {
                let blob = members.finish().at("writing a layer in", place)?;
                blob.commit(Compression::Gzip.media_type())
            }
            Self::Zstd(encoder) => {
                let blob = encoder.finish().at("writing a layer in", place)?;
                blob.commit(Compression::Zstd.media_type())
            }
        }
    }
}

impl Write for Compressing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Gzip(members) => members.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// Cuts the input into members, compresses them on a few threads, and writes them in order.
pub(super) struct Members<W> {
    out: W,
    block: Vec<u8>,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<thread::JoinHandle<()>>,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    any: bool,
}

impl<W: Write> Members<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            block: Vec::with_capacity(MEMBER),
            jobs: None,
            workers: Vec::new(),
            pending: VecDeque::new(),
            any: false,
        }
    }

    fn start(&mut self) -> SyncSender<Job> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(8);
        let (sender, receiver) = sync_channel::<Job>(count);
        let receiver = std::sync::Arc::new(std::sync::Mutex::new(receiver));
        for _ in 0..count {
            let receiver = receiver.clone();
            self.workers.push(thread::spawn(move || {
                loop {
                    // A poisoned lock means that another worker panicked: then this one ends too, and its receiver reports it.
                    let Ok(Ok((block, answer))) = receiver.lock().map(|jobs| jobs.recv()) else { return };
                    let _ = answer.send(member(&block));
                }
            }));
        }
        sender
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(MEMBER));
        let jobs = match self.jobs.take() {
            Some(jobs) => jobs,
            None => self.start(),
        };
        let (answer, result) = sync_channel(1);
        jobs.send((block, answer)).map_err(|_| lost())?;
        self.jobs = Some(jobs);
        self.any = true;
        self.pending.push_back(result);
        // Bounded: no more members wait than there are workers, twice.
        if self.pending.len() > 2 * self.workers.len() { self.write_next() } else { Ok(()) }
    }

    fn write_next(&mut self) -> io::Result<()> {
        let Some(result) = self.pending.pop_front() else { return Ok(()) };
        let bytes = result.recv().map_err(|_| lost())??;
        self.out.write_all(&bytes)
    }

    fn finish(mut self) -> io::Result<W> {
        if !self.any && self.block.len() < MEMBER {
            // One small member needs no threads.
            let bytes = member(&self.block)?;
            self.out.write_all(&bytes)?;
            return Ok(self.out);
        }
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.pending.is_empty() {
            self.write_next()?;
        }
        drop(self.jobs.take());
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| lost())?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for Members<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(MEMBER - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == MEMBER {
            self.submit()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn member(block: &[u8]) -> io::Result<Vec<u8>> {
    let level =
        CompressionLvl::new(LEVEL).map_err(|_| io::Error::other("libdeflate does not know its own level"))?;
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
    let length = compressor
        .gzip_compress(block, &mut out)
        .map_err(|cause| io::Error::other(format!("libdeflate: {cause:?}")))?;
    out.truncate(length);
    Ok(out)
}

fn lost() -> io::Error {
    io::Error::other("a compressing thread ended early")
}
