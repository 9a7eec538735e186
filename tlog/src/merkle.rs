//! The tree's hashes: RFC 6962, section 2.1, as `tlog_tiles` computes them, within bounds.

use tlog_tiles::{TreeProof, check_record, check_tree, node_hash};

pub use tlog_tiles::{EMPTY_HASH, Hash};

use crate::error::{Error, Result};

/// The height of a tile.
pub const HEIGHT: u8 = 8;
/// The most entries of a log. The arithmetic of tiles is safe far beyond it.
pub const MAX_SIZE: u64 = 1 << 40;
/// The most hashes of any proof in a tree of that size.
pub const MAX_PROOF: usize = 63;

/// The hash of an entry as a leaf of the tree.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    tlog_tiles::record_hash(entry)
}

/// The right edge of a tree: the roots of its complete subtrees, the largest first. It is all that appending needs.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    size: u64,
    peaks: Vec<Hash>,
}

impl Edge {
    /// The edge of a tree of `size` leaves with these complete subtrees; none when their number does not fit.
    pub(crate) fn of(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. Returns what the tiles get: a hash for each level that grows, from the lowest up.
    pub fn push(&mut self, leaf: Hash) -> Vec<Hash> {
        let (mut hash, mut tiles) = (leaf, vec![leaf]);
        for height in 1..=self.size.trailing_ones() {
            // As many peaks as there are ones: one for each height that the new leaf completes.
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(left, hash);
            if height % u32::from(HEIGHT) == 0 {
                tiles.push(hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
        tiles
    }

    /// The hash of the whole tree.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else { return EMPTY_HASH };
        peaks.fold(last, |right, left| node_hash(left, right))
    }
}

/// Checks that a tree of `size` leaves with the hash `root` has `leaf` at `index`.
///
/// # Errors
/// When it is not proven, or a number is out of bounds.
pub fn verify_inclusion(proof: &[Hash], size: u64, root: Hash, index: u64, leaf: Hash) -> Result<()> {
    within(proof, size)?;
    if index >= size {
        return Err(Error::NoEntry { index, size });
    }
    check_record(&proof.to_vec(), size, root, index, leaf)
        .map_err(|_| Error::Unproven(format!("the proof that entry {index} is in it is wrong")))
}

/// Checks that a tree begins with all of an older one.
///
/// # Errors
/// When it is not proven, or a number is out of bounds.
pub fn verify_consistency(proof: &[Hash], size: u64, root: Hash, old: u64, old_root: Hash) -> Result<()> {
    within(proof, size)?;
    let wrong = || Error::Unproven(format!("{size} entries do not begin with the {old} of before"));
    match old {
        0 if proof.is_empty() && old_root == EMPTY_HASH => Ok(()),
        0 => Err(wrong()),
        _ if old > size => Err(wrong()),
        _ => {
            let proof: TreeProof = proof.to_vec();
            check_tree(&proof, size, root, old, old_root).map_err(|_| wrong())
        }
    }
}

fn within(proof: &[Hash], size: u64) -> Result<()> {
    if size > MAX_SIZE || proof.len() > MAX_PROOF {
        return Err(Error::malformed("proof", format!("more than {MAX_SIZE} entries or {MAX_PROOF} hashes")));
    }
    Ok(())
}

/// Reads a hash as checkpoints and proofs write it.
pub(crate) fn parse_hash(what: &'static str, text: &str) -> Result<Hash> {
    let wrong = || Error::malformed(what, "a line that is no SHA-256 hash in base64");
    let hash = Some(text).filter(|text| text.len() == 44).and_then(|text| Hash::parse_hash(text).ok());
    hash.ok_or_else(wrong)
}

/// Reads the hashes of a proof, a line each, and no more than any tree needs.
pub(crate) fn parse_hashes<'a>(
    what: &'static str,
    lines: impl Iterator<Item = &'a str>,
) -> Result<Vec<Hash>> {
    let hashes: Vec<Hash> =
        lines.take(MAX_PROOF + 1).map(|line| parse_hash(what, line)).collect::<Result<_>>()?;
    match hashes.len() > MAX_PROOF {
        true => Err(Error::malformed(what, "more hashes than any tree needs")),
        false => Ok(hashes),
    }
}

/// Reads a number as all the texts write it: decimal, without signs and leading zeros.
pub(crate) fn parse_number(what: &'static str, text: &str) -> Result<u64> {
    let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    number
        .filter(|number| *number <= MAX_SIZE)
        .ok_or_else(|| Error::malformed(what, "a line that is no number of entries"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog_tiles::{HashReader, prove_record, prove_tree, stored_hashes, tree_hash};

    struct Stored(Vec<Hash>);

    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
        }
    }

    #[test]
    fn the_edge_gives_the_roots_that_the_whole_tree_has_and_their_proofs_hold() {
        let (mut edge, mut all, mut roots) = (Edge::default(), Stored(Vec::new()), vec![EMPTY_HASH]);
        assert_eq!(edge.root(), EMPTY_HASH);
        for index in 0..600_u64 {
            let entry = index.to_be_bytes();
            let hashes = stored_hashes(index, &entry, &all).unwrap();
            all.0.extend(hashes);
            let tiles = edge.push(leaf_hash(&entry));
            assert_eq!(tiles.len(), if (index + 1) % 256 == 0 { 2 } else { 1 });
            assert_eq!(edge.root(), tree_hash(index + 1, &all).unwrap());
            roots.push(edge.root());
        }
        let root = edge.root();
        for index in [0, 1, 255, 256, 511, 599_u64] {
            let proof = prove_record(600, index, &all).unwrap();
            let leaf = leaf_hash(&index.to_be_bytes());
            verify_inclusion(&proof, 600, root, index, leaf).unwrap();
            verify_inclusion(&proof, 600, root, index, leaf_hash(b"another")).unwrap_err();
            verify_inclusion(&proof, 600, root, (index + 1) % 600, leaf).unwrap_err();
            verify_inclusion(&proof[1..], 600, root, index, leaf).unwrap_err();
            let old = usize::try_from(index + 1).unwrap();
            let proof = prove_tree(600, index + 1, &all).unwrap();
            verify_consistency(&proof, 600, root, index + 1, roots[old]).unwrap();
            verify_consistency(&proof, 600, root, index + 1, roots[old - 1]).unwrap_err();
        }
        verify_consistency(&[], 600, root, 0, EMPTY_HASH).unwrap();
        verify_consistency(&[], 600, root, 0, root).unwrap_err();
        verify_consistency(&[], 600, root, 601, root).unwrap_err();
        verify_inclusion(&[], 600, root, 600, root).unwrap_err();
        verify_inclusion(&[root; 64], 600, root, 1, root).unwrap_err();
        verify_inclusion(&[], u64::MAX, root, 1, root).unwrap_err();
    }
}
