//! Hashing beside writing: the digest of what goes into a blob or a layer is taken on a thread of its own, from the same blocks
//! that are compressed and written, so that no byte is copied for it and the slower of the two alone is waited for.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use attestations::Digest;
use sha2::{Digest as _, Sha256};

/// Small enough to lie in a processor's own cache.
const BLOCK: usize = 256 << 10;
/// How large the first one is until it is full: most of what is written is small.
const FIRST: usize = 8 << 10;
/// How many blocks there are: one that is filled, one that is hashed, and some between.
const BLOCKS: usize = 4;

/// Passes on what is written, and knows its digest at the end.
pub(crate) struct Hashing<W> {
    inner: W,
    block: Vec<u8>,
    filled: usize,
    /// None before the first full block: most layers are smaller, and need no thread.
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

    /// Takes at most `size` bytes from `content`, straight into the block; says how many there were.
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

    /// The digest of all that was written, and what it was written to.
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

    /// Blocks are passed on whole; what is left goes at the end.
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
                // Nobody waits for a block any more when the layer ends.
                let _ = back.send(block);
            }
            hash
        })?;
        Ok(Self { blocks, done, made: 1, thread })
    }

    /// A block to fill: a new one, or one that was hashed. Its writer has let go of it before.
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
