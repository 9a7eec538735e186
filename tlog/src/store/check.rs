//! Checking a whole log: every entry against its hash, every hash against those below it, and the whole against what was
//! signed, now and before.

use super::read::{Reader, read_checkpoint};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::layout::{self, HEIGHT, WIDTH};
use crate::merkle::{self, Edge};

/// A log that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How many entries were read.
    pub entries: u64,
    /// How many earlier checkpoints it goes on from.
    pub earlier: usize,
}

impl Reader {
    /// Reads all of the log. `earlier` are checkpoints of the same log that somebody kept, whose signatures are verified:
    /// the log has to go on from each. `entry` looks at each entry, and may refuse it.
    ///
    /// # Errors
    /// [`Error::Unproven`] with what is wrong where; those of `entry`.
    pub fn check<E: From<Error>>(
        &self,
        earlier: &[Checkpoint],
        mut entry: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<Checked, E> {
        let Checkpoint { size, root, .. } = *self.checkpoint();
        if let Some(cut) = earlier.iter().find(|old| old.size > size) {
            let problem = format!("it has {size} entries, and had {} when it was signed before", cut.size);
            return Err(Error::Unproven(problem).into());
        }
        let mut edge = Edge::default();
        self.compare(&edge, earlier)?;
        for index in 0..size {
            let bytes = self.entry_unchecked(index)?;
            let leaf = merkle::leaf_hash(&bytes);
            if leaf != self.leaf(index)? {
                return Err(Error::Unproven(format!("entry {index} was changed")).into());
            }
            for (level, hash) in (0..).zip(edge.push(leaf)).skip(1) {
                self.compare_tile(level, index, hash)?;
            }
            self.compare(&edge, earlier)?;
            entry(index, &bytes)?;
        }
        self.check_end()?;
        match edge.root() == root {
            true => Ok(Checked { entries: size, earlier: earlier.len() }),
            false => {
                Err(Error::Unproven("its entries do not give the hash that was signed".to_owned()).into())
            }
        }
    }

    /// That there is no more than the checkpoint covers, unless more was appended meanwhile.
    fn check_end(&self) -> Result<()> {
        match (self.tail(), read_checkpoint(self.folder())?) {
            (Err(Error::Behind { .. }), Some(now)) if now.unverified().size > self.checkpoint().size => {
                Ok(())
            }
            (tail, _) => tail.map(|_| ()),
        }
    }

    fn compare(&self, edge: &Edge, earlier: &[Checkpoint]) -> Result<()> {
        let of_now = earlier.iter().filter(|old| old.size == edge.size());
        match of_now.into_iter().all(|old| old.root == edge.root()) {
            true => Ok(()),
            false => {
                let size = edge.size();
                Err(Error::Unproven(format!(
                    "its first {size} entries are not those that were signed before"
                )))
            }
        }
    }

    /// Compares a hash above the leaves, which entry `index` has completed.
    fn compare_tile(&self, level: u8, index: u64, hash: merkle::Hash) -> Result<()> {
        let place = index >> (u32::from(HEIGHT) * u32::from(level));
        let tile = self.tile(level, place / WIDTH)?;
        let found = layout::hashes(&tile).nth(usize::try_from(place % WIDTH).unwrap_or_default());
        match found == Some(hash) {
            true => Ok(()),
            false => {
                let path = layout::tile_path(level, place / WIDTH);
                Err(Error::Unproven(format!("{path} is not the hash of what is below it")))
            }
        }
    }
}
