//! Appending: the entry and its hashes to the ends of their files, then the checkpoint, each durable before the next.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestations::Signer;

use super::read::{Reader, read_checkpoint};
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::error::{Error, Result};
use crate::layout::{self, CHECKPOINT, HASH, WIDTH};
use crate::merkle::{self, Edge};
use crate::note::{Purpose, Signature, VerifierKey};

/// The name of the file whose lock an append holds.
const LOCK: &str = "lock";
/// What the checkpoint is called before it counts.
const NEXT: &str = "checkpoint.new";

/// A log that can be appended to. Several programs may have the same one open: each append locks it.
pub struct Log {
    folder: PathBuf,
    key: VerifierKey,
    signer: Arc<dyn Signer>,
    lock: File,
    state: Option<LogState>,
}

/// What the end of the log looks like.
struct LogState {
    signed: SignedCheckpoint,
    edge: Edge,
    /// Bytes of the last bundle, unless that is full.
    bundle: u64,
}

/// An entry that is on the disk, and what covers it.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Its place in the log.
    pub index: u64,
    /// The log with it.
    pub checkpoint: SignedCheckpoint,
}

impl Log {
    /// Opens a log, or makes it; what a killed program left half-written behind the checkpoint is cut off.
    ///
    /// # Errors
    /// When the folder cannot be had, the checkpoint is of another key or name, or the files are not what it covers.
    pub fn open(folder: &Path, origin: &str, signer: Arc<dyn Signer>) -> Result<Self> {
        let key = VerifierKey::new(origin, Purpose::Log, signer.public_key())?;
        make_folder(folder)?;
        let path = folder.join(LOCK);
        let lock = open_private(&path).map_err(Error::file("opening", &path))?;
        let mut log = Self { folder: folder.to_owned(), key, signer, lock, state: None };
        log.locked(|_| Ok(()))?;
        Ok(log)
    }

    /// The key that verifies its checkpoints.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The log as it is now, for reading.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn reader(&self) -> Result<Reader> {
        Reader::open(&self.folder, &self.key)
    }

    /// Appends an entry. When this returns, the entry and a checkpoint that covers it are on the disk.
    ///
    /// # Errors
    /// When the entry is too large, the disk fails, or the log was changed otherwise; then nothing was appended.
    pub fn append(&mut self, entry: &[u8]) -> Result<Appended> {
        let framed = layout::framed(entry)?;
        self.locked(|log| log.add(entry, &framed))
    }

    /// Adds signatures to the checkpoint, if it still is the one of this size.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn cosign(&mut self, size: u64, signatures: Vec<Signature>) -> Result<SignedCheckpoint> {
        self.locked(|log| {
            let folder = log.folder.clone();
            let state = log.state()?;
            if state.edge.size() == size {
                let mut signed = state.signed.clone();
                signed.add(signatures);
                write_checkpoint(&folder, &signed)?;
                state.signed = signed;
            }
            Ok(state.signed.clone())
        })
    }

    /// Works with the log as it is on the disk, while nobody else does. After a failure it is read again.
    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let path = self.folder.join(LOCK);
        self.lock.lock().map_err(Error::file("locking", &path))?;
        let done = self.refresh().and_then(|()| work(self));
        if done.is_err() {
            self.state = None;
        }
        self.lock.unlock().map_err(Error::file("unlocking", &path))?;
        done
    }

    fn refresh(&mut self) -> Result<()> {
        let signed = match read_checkpoint(&self.folder)? {
            Some(signed) => signed,
            None => self.create()?,
        };
        match &self.state {
            Some(state) if state.signed.note() == signed.note() => Ok(()),
            _ => {
                self.state = Some(self.recover(signed)?);
                Ok(())
            }
        }
    }

    fn create(&self) -> Result<SignedCheckpoint> {
        if self.folder.join("tile").exists() {
            return Err(Error::NoCheckpoint(self.folder.clone()));
        }
        let signed = self.sign(&Edge::default())?;
        write_checkpoint(&self.folder, &signed)?;
        Ok(signed)
    }

    /// Checks the end of the log against its checkpoint, and cuts off what an append that never ended left behind.
    fn recover(&self, signed: SignedCheckpoint) -> Result<LogState> {
        let reader = Reader::at(&self.folder, signed, &self.key)?;
        let edge = reader.edge()?;
        let size = edge.size();
        let tail = reader.tail()?;
        cut(&tail.path, tail.kept, tail.found)?;
        for level in 0..8 {
            let all = layout::hashes_at(size, level);
            let path = self.folder.join(layout::tile_path(level, all / WIDTH));
            let length = std::fs::metadata(&path).map_or(0, |found| found.len());
            cut(&path, (all % WIDTH) * HASH as u64, length)?;
        }
        Ok(LogState { signed: reader.signed().clone(), edge, bundle: tail.kept })
    }

    fn add(&mut self, entry: &[u8], framed: &[u8]) -> Result<Appended> {
        let folder = self.folder.clone();
        let state = self.state()?;
        let (index, at) = (state.edge.size(), state.bundle);
        if index >= merkle::MAX_SIZE {
            return Err(Error::malformed("log", "it is full"));
        }
        let mut edge = state.edge.clone();
        let hashes = edge.push(merkle::leaf_hash(entry));
        write_at(&folder, &layout::bundle_path(index / WIDTH), at, framed)?;
        for (level, hash) in (0..).zip(hashes) {
            // The last hash of this level, which is the one that was added.
            let place = layout::hashes_at(edge.size(), level) - 1;
            write_at(
                &folder,
                &layout::tile_path(level, place / WIDTH),
                (place % WIDTH) * HASH as u64,
                &hash.0,
            )?;
        }
        let signed = self.sign(&edge)?;
        write_checkpoint(&folder, &signed)?;
        let bundle = if edge.size() % WIDTH == 0 { 0 } else { at + framed.len() as u64 };
        self.state = Some(LogState { signed: signed.clone(), edge, bundle });
        Ok(Appended { index, checkpoint: signed })
    }

    fn sign(&self, edge: &Edge) -> Result<SignedCheckpoint> {
        let origin = self.key.name().to_owned();
        let checkpoint = Checkpoint { origin, size: edge.size(), root: edge.root() };
        SignedCheckpoint::sign(checkpoint, &self.key, &*self.signer)
    }

    fn state(&mut self) -> Result<&mut LogState> {
        // It was read when the lock was taken.
        self.state.as_mut().ok_or_else(|| Error::NoCheckpoint(self.folder.clone()))
    }
}

/// Writes at a place of a file, to the disk; folders that are missing are made.
fn write_at(folder: &Path, name: &str, at: u64, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let is_new = at == 0;
    if is_new {
        make_parents(folder, name)?;
    }
    let file = open_private(&path).map_err(Error::file("opening", &path))?;
    file.write_all_at(bytes, at).and_then(|()| file.sync_data()).map_err(Error::file("writing", &path))?;
    if is_new { sync_folder(&path) } else { Ok(()) }
}

fn make_parents(folder: &Path, name: &str) -> Result<()> {
    let mut place = folder.to_owned();
    let parts: Vec<&str> = name.split('/').collect();
    for part in &parts[..parts.len().saturating_sub(1)] {
        place.push(part);
        match DirBuilder::new().mode(0o700).create(&place) {
            Ok(()) => sync_folder(&place)?,
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(Error::file("making", &place)(cause)),
        }
    }
    Ok(())
}

fn write_checkpoint(folder: &Path, signed: &SignedCheckpoint) -> Result<()> {
    let (next, path) = (folder.join(NEXT), folder.join(CHECKPOINT));
    let text = signed.to_string();
    let written = open_private(&next).and_then(|file| {
        file.set_len(0)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_data()
    });
    written.map_err(Error::file("writing", &next))?;
    std::fs::rename(&next, &path).map_err(Error::file("replacing", &path))?;
    sync_folder(&path)
}

/// Makes the name of a file durable: it is in the file's folder.
fn sync_folder(path: &Path) -> Result<()> {
    let folder = errors::files::folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file("syncing", folder))
}

fn cut(path: &Path, length: u64, found: u64) -> Result<()> {
    if found <= length {
        return Ok(());
    }
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(length)?;
        file.sync_all()
    });
    cut.map_err(Error::file("cutting", path))
}

fn make_folder(folder: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::file("making", folder))
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
