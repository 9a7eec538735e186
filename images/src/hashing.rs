//! Hashes data while it is written. The digest of a blob or layer is computed on a thread of its own, from the same
//! blocks that are compressed and written, so that no byte is copied for it, and only the slower of the two takes
//! time.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use attestations::Digest;
use sha2::{Digest as _, Sha256};

/// Small enough for a processor core's cache.
const BLOCK: usize = 256 << 10;
/// The initial capacity of the first block, since most writes are small.
const FIRST: usize = 8 << 10;
/// The number of blocks: one being filled, one being hashed, and some in between.
const BLOCKS: usize = 4;

/// Forwards everything written, and computes its digest.
pub(crate) struct Hashing<W> {
    inner: W,
    block: Vec<u8>,
    filled: usize,
    /// None before the first full block: most layers are smaller and need no thread.
    hasher: Option<Hasher>,
}

struct Hasher {
    blocks: SyncSender<Arc<Vec<u8>>>,
    done: Receiver<Arc<Vec<u8>>>,
    made: usize,
    thread: JoinHandle<Sha256>,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, block: vec![0; FIRST], filled: 0, hasher: None }
    }

    /// Reads at most `size` bytes from `content` directly into the block; returns their number.
    pub(crate) fn copy(&mut self, content: &mut dyn Read, size: u64) -> io::Result<u64> {
        let mut left = size;
        while left > 0 {
            let most = (self.block.len() - self.filled).min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match content.read(&mut self.block[self.filled..self.filled + most]) {
                Ok(0) => break,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            left -= count as u64;
            self.advance(count)?;
        }
        Ok(size - left)
    }

    /// The digest of everything written, and the inner writer.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, W)> {
        let last = &self.block[..self.filled];
        self.inner.write_all(last)?;
        let mut hash = match self.hasher {
            None => Sha256::new(),
            Some(Hasher { blocks, thread, .. }) => {
                drop(blocks);
                thread.join().map_err(|_| lost())?
            }
        };
        hash.update(last);
        Ok((Digest::from_bytes(hash.finalize().into()), self.inner))
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        self.filled += count;
        if self.filled < self.block.len() {
            return Ok(());
        }
        if self.block.len() < BLOCK {
            self.block.resize((self.block.len() * 4).min(BLOCK), 0);
            return Ok(());
        }
        let block = Arc::new(std::mem::take(&mut self.block));
        let hasher = match &mut self.hasher {
            Some(hasher) => hasher,
            none => none.insert(Hasher::start()?),
        };
        hasher.blocks.send(block.clone()).map_err(|_| lost())?;
        self.inner.write_all(&block)?;
        drop(block);
        self.block = hasher.free()?;
        self.filled = 0;
        Ok(())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.block.len() - self.filled);
        self.block[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
        self.advance(count)?;
        Ok(count)
    }

    /// Only full blocks are forwarded; the rest follows at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Hasher {
    fn start() -> io::Result<Self> {
        let (blocks, received) = sync_channel::<Arc<Vec<u8>>>(BLOCKS);
        let (back, done): (Sender<Arc<Vec<u8>>>, _) = channel();
        let thread = thread::Builder::new().name("sha256".to_owned()).spawn(move || {
            let mut hash = Sha256::new();
            for block in received {
                hash.update(&*block);
                // The receiver is gone when the layer ends.
                let _ = back.send(block);
            }
            hash
        })?;
        Ok(Self { blocks, done, made: 1, thread })
    }

    /// An empty block: a new one, or one that was hashed and is not shared any more.
    fn free(&mut self) -> io::Result<Vec<u8>> {
        if self.made < BLOCKS {
            self.made += 1;
            return Ok(vec![0; BLOCK]);
        }
        let block = self.done.recv().map_err(|_| lost())?;
        Ok(Arc::try_unwrap(block).unwrap_or_else(|_| vec![0; BLOCK]))
    }
}

fn lost() -> io::Error {
    io::Error::other("the hashing thread ended early")
}
