//! Reading a log, in the growing form of [`super`] or in that of the specification.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog_tiles::{HashReader, Tile, prove_record, prove_tree, sub_tree_index, tree_hash};

use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::error::{Error, Result};
use crate::layout::{self, CHECKPOINT, HASH, HEIGHT, WIDTH};
use crate::merkle::{self, Edge, Hash};
use crate::note::{MAX_NOTE, VerifierKey};
use crate::proof::Proof;

/// The most tiles that are kept in memory: 2 MiB.
const KEPT_TILES: usize = 256;

/// The bytes of a tile's hashes.
type Hashes = Arc<[u8]>;

/// A log at one checkpoint, whose signature is verified. What is appended meanwhile is not seen.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    signed: SignedCheckpoint,
    checkpoint: Checkpoint,
    tiles: RefCell<HashMap<(u8, u64), Hashes>>,
    /// The bundle that was read last.
    bundle: RefCell<Option<(u64, Vec<u8>)>>,
}

impl Reader {
    /// Opens a log whose checkpoint this key signed.
    ///
    /// # Errors
    /// When there is none, or another key signed it.
    pub fn open(folder: &Path, key: &VerifierKey) -> Result<Self> {
        let signed = read_checkpoint(folder)?.ok_or_else(|| Error::NoCheckpoint(folder.to_owned()))?;
        Self::at(folder, signed, key)
    }

    pub(super) fn at(folder: &Path, signed: SignedCheckpoint, key: &VerifierKey) -> Result<Self> {
        let checkpoint = signed.verify(key)?.clone();
        let (tiles, bundle) = (RefCell::default(), RefCell::default());
        Ok(Self { folder: folder.to_owned(), signed, checkpoint, tiles, bundle })
    }

    /// What the log holds.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The same with its signatures.
    pub fn signed(&self) -> &SignedCheckpoint {
        &self.signed
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// An entry, which is checked against the tree's leaf and nothing above it: see [`Self::prove`] and [`Self::check`].
    ///
    /// # Errors
    /// When there is none, or it is not what the tree has.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>> {
        self.bounded(index)?;
        let entry = self.entry_unchecked(index)?;
        let leaf = self.leaf(index)?;
        match merkle::leaf_hash(&entry) == leaf {
            true => Ok(entry),
            false => Err(Error::Unproven(format!("entry {index} was changed"))),
        }
    }

    pub(super) fn entry_unchecked(&self, index: u64) -> Result<Vec<u8>> {
        let number = index / WIDTH;
        let mut kept = self.bundle.borrow_mut();
        let bundle = match &mut *kept {
            Some((at, bundle)) if *at == number => bundle,
            kept => {
                let width = layout::width_of(self.checkpoint.size, number);
                let path = layout::bundle_path(number);
                &mut kept.insert((number, self.file(&path, width, layout::MAX_BUNDLE)?)).1
            }
        };
        let at = usize::try_from(index % WIDTH).unwrap_or_default();
        let entry = layout::entries(bundle).nth(at);
        entry.map(<[u8]>::to_vec).ok_or_else(|| Error::Unproven(format!("entry {index} was cut off")))
    }

    pub(super) fn leaf(&self, index: u64) -> Result<Hash> {
        let tile = self.tile(0, index / WIDTH)?;
        let at = usize::try_from(index % WIDTH).unwrap_or_default();
        layout::hashes(&tile)
            .nth(at)
            .ok_or_else(|| Error::Unproven(format!("the hash of entry {index} was cut off")))
    }

    /// The proof that an entry is in the log.
    ///
    /// # Errors
    /// When there is no such entry, or the tiles do not give the hash that was signed.
    pub fn prove(&self, index: u64) -> Result<Proof> {
        self.bounded(index)?;
        let entry = self.entry(index)?;
        let hashes = prove_record(self.checkpoint.size, index, self).map_err(|_| self.damaged())?;
        let proof = Proof { extra: None, index, hashes, checkpoint: self.signed.clone() };
        let Checkpoint { size, root, .. } = self.checkpoint;
        merkle::verify_inclusion(&proof.hashes, size, root, index, merkle::leaf_hash(&entry))?;
        Ok(proof)
    }

    /// The proof that the log begins with its first `old` entries, as a witness or an auditor knows them.
    ///
    /// # Errors
    /// When the log has fewer, or its tiles are damaged.
    pub fn prove_since(&self, old: u64) -> Result<Vec<Hash>> {
        self.prove_between(old, self.checkpoint.size)
    }

    /// The proof that the first `size` entries begin with the first `old`.
    ///
    /// # Errors
    /// As [`Self::prove_since`].
    pub fn prove_between(&self, old: u64, size: u64) -> Result<Vec<Hash>> {
        match (old, size) {
            (0, _) => Ok(Vec::new()),
            _ if old > size || size > self.checkpoint.size => {
                Err(Error::NoEntry { index: old.max(size) - 1, size: self.checkpoint.size })
            }
            _ => prove_tree(size, old, self).map_err(|_| self.damaged()),
        }
    }

    /// The hash of the first `size` entries.
    ///
    /// # Errors
    /// When the log has fewer, or its tiles are damaged.
    pub fn root_at(&self, size: u64) -> Result<Hash> {
        if size > self.checkpoint.size {
            return Err(Error::NoEntry { index: size - 1, size: self.checkpoint.size });
        }
        tree_hash(size, self).map_err(|_| self.damaged())
    }

    /// The tree's right edge, which has to give the hash that was signed.
    pub(super) fn edge(&self) -> Result<Edge> {
        let size = self.checkpoint.size;
        let peaks = self.read_hashes(&sub_tree_index(0, size, Vec::new())).map_err(|_| self.damaged())?;
        Edge::of(size, peaks).filter(|edge| edge.root() == self.checkpoint.root).ok_or_else(|| self.damaged())
    }

    /// The last bundle that is not full, in a log of the growing form.
    pub(super) fn tail(&self) -> Result<Tail> {
        let size = self.checkpoint.size;
        let whole = usize::try_from(size % WIDTH).unwrap_or_default();
        let path = self.folder.join(layout::bundle_path(size / WIDTH));
        let found = match self.file(&layout::bundle_path(size / WIDTH), size % WIDTH, layout::MAX_BUNDLE) {
            Err(Error::Unproven(_)) if whole == 0 => Vec::new(),
            read => read?,
        };
        let lengths: Vec<usize> = layout::entries(&found).map(|entry| entry.len() + 2).collect();
        if lengths.len() < whole {
            return Err(Error::Unproven(format!("{} was cut off", path.display())));
        }
        // One append at a time: no more than one entry can have been written without its checkpoint.
        if lengths.len() > whole + 1 || self.folder.join(layout::bundle_path(size / WIDTH + 1)).exists() {
            return Err(Error::Behind { folder: self.folder.clone(), size });
        }
        let kept: usize = lengths[..whole].iter().sum();
        Ok(Tail { path, kept: kept as u64, found: found.len() as u64 })
    }

    /// The hashes of a tile, as many as the checkpoint covers.
    pub(super) fn tile(&self, level: u8, number: u64) -> Result<Hashes> {
        if let Some(tile) = self.tiles.borrow().get(&(level, number)) {
            return Ok(Arc::clone(tile));
        }
        let width = layout::width_of(layout::hashes_at(self.checkpoint.size, level), number);
        let path = layout::tile_path(level, number);
        let mut tile = self.file(&path, width, WIDTH * HASH as u64)?;
        let length = usize::try_from(width).unwrap_or_default() * HASH;
        if tile.len() < length {
            return Err(Error::Unproven(format!("{path} was cut off")));
        }
        tile.truncate(length);
        let tile: Hashes = tile.into();
        let mut tiles = self.tiles.borrow_mut();
        if tiles.len() >= KEPT_TILES {
            tiles.clear();
        }
        tiles.insert((level, number), Arc::clone(&tile));
        Ok(tile)
    }

    /// A file of which the first `width` parts are wanted: the growing one, or the partial one of the specification.
    fn file(&self, path: &str, width: u64, limit: u64) -> Result<Vec<u8>> {
        let growing = self.folder.join(path);
        let partial = self.folder.join(layout::partial_path(path, width));
        let (path, read) = match read_bounded(&growing, limit) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let read = read_bounded(&partial, limit);
                (partial, read)
            }
            read => (growing, read),
        };
        match read {
            Ok(bytes) => Ok(bytes),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Err(Error::Unproven(format!("{} is gone", path.display())))
            }
            Err(cause) => Err(Error::file("reading", &path)(cause)),
        }
    }

    fn bounded(&self, index: u64) -> Result<()> {
        let size = self.checkpoint.size;
        if index < size { Ok(()) } else { Err(Error::NoEntry { index, size }) }
    }

    pub(super) fn damaged(&self) -> Error {
        let folder = self.folder.display();
        Error::Unproven(format!("the tiles of {folder} do not give the hash that was signed"))
    }
}

/// The last bundle that is not full.
pub(super) struct Tail {
    /// Its file.
    pub(super) path: PathBuf,
    /// How many of its bytes the checkpoint covers.
    pub(super) kept: u64,
    /// How many there are.
    pub(super) found: u64,
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl HashReader for Reader {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |index: &u64| {
            let tile = Tile::from_index(HEIGHT, *index);
            let bytes = self.tile(tile.level(), tile.level_index());
            tile.hash_at_index(&bytes.map_err(|_| tlog_tiles::Error::InvalidTile)?, *index)
        };
        indexes.iter().map(hash).collect()
    }
}

/// The checkpoint of a folder, if it has one.
pub(super) fn read_checkpoint(folder: &Path) -> Result<Option<SignedCheckpoint>> {
    let path = folder.join(CHECKPOINT);
    match read_bounded(&path, MAX_NOTE as u64 + 1) {
        Ok(bytes) => SignedCheckpoint::parse(&bytes).map(Some),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::file("reading", &path)(cause)),
    }
}
