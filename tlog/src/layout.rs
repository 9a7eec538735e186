//! Where what is: the paths of `tlog-tiles`, and the bundles that entries lie in.

use crate::error::{Error, Result};
use crate::merkle::Hash;

pub use crate::merkle::HEIGHT;

/// Hashes of a full tile, and entries of a full bundle.
pub const WIDTH: u64 = 1 << HEIGHT;
/// The most bytes of an entry: bundles write its length as 16 bits.
pub const MAX_ENTRY: usize = u16::MAX as usize;
/// The most bytes of a bundle.
pub const MAX_BUNDLE: u64 = WIDTH * (MAX_ENTRY as u64 + 2);
/// Bytes of a hash.
pub(crate) const HASH: usize = 32;

/// The name of the checkpoint's file.
pub const CHECKPOINT: &str = "checkpoint";

/// The path of a full tile of hashes.
pub fn tile_path(level: u8, number: u64) -> String {
    format!("tile/{level}/{}", numbered(number))
}

/// The path of a full bundle of entries.
pub fn bundle_path(number: u64) -> String {
    format!("tile/entries/{}", numbered(number))
}

/// The path of the first `width` hashes or entries of a tile or bundle that is not full; that of the full one otherwise.
pub fn partial_path(path: &str, width: u64) -> String {
    if width == WIDTH { path.to_owned() } else { format!("{path}.p/{width}") }
}

/// A number in steps of three digits, as directories that stay small.
fn numbered(number: u64) -> String {
    let mut text = format!("{:03}", number % 1000);
    let mut rest = number / 1000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    text
}

/// How many hashes the whole of a level has in a tree of `size` leaves.
pub fn hashes_at(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(HEIGHT) * u32::from(level)).unwrap_or(0)
}

/// The levels that have a hash in a tree of `size` leaves.
pub fn levels(size: u64) -> impl Iterator<Item = u8> {
    (0..8).take_while(move |level| hashes_at(size, *level) > 0)
}

/// How many of `all` hashes or entries are in the tile or bundle of this number.
pub fn width_of(all: u64, number: u64) -> u64 {
    all.saturating_sub(number * WIDTH).min(WIDTH)
}

/// An entry as it stands in a bundle.
///
/// # Errors
/// When it is larger than [`MAX_ENTRY`].
pub fn framed(entry: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(entry.len()).map_err(|_| Error::TooLarge { size: entry.len() })?;
    Ok([&length.to_be_bytes(), entry].concat())
}

/// The entries at the beginning of a bundle; whatever follows the last whole one is left out.
pub fn entries(bundle: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bundle;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(entry)
    })
}

/// The hashes of a tile.
pub fn hashes(tile: &[u8]) -> impl Iterator<Item = Hash> {
    tile.as_chunks::<HASH>().0.iter().map(|hash| Hash(*hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(tile_path(0, 0), "tile/0/000");
        assert_eq!(tile_path(1, 1_234_067), "tile/1/x001/x234/067");
        assert_eq!(bundle_path(1_000), "tile/entries/x001/000");
        assert_eq!(partial_path("tile/0/273", 112), "tile/0/273.p/112");
        assert_eq!(partial_path("tile/0/272", 256), "tile/0/272");
    }

    #[test]
    fn a_tree_of_70000_has_the_tiles_that_the_specification_counts() {
        let size = 70_000;
        assert_eq!((hashes_at(size, 0) / WIDTH, width_of(hashes_at(size, 0), 273)), (273, 112));
        assert_eq!((hashes_at(size, 1) / WIDTH, width_of(hashes_at(size, 1), 1)), (1, 17));
        assert_eq!((hashes_at(size, 2) / WIDTH, width_of(hashes_at(size, 2), 0)), (0, 1));
        assert_eq!(levels(size).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(levels(256).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(levels(0).count(), 0);
    }

    #[test]
    fn half_an_entry_is_none() {
        let mut bundle = [framed(b"one").unwrap(), framed(b"").unwrap(), framed(b"three").unwrap()].concat();
        assert_eq!(entries(&bundle).collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        bundle.pop();
        assert_eq!(entries(&bundle).count(), 2);
        framed(&vec![0; MAX_ENTRY + 1]).unwrap_err();
    }
}
