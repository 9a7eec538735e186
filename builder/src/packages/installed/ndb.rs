//! RPM's own database, `Packages.db` (rpm's `lib/backend/ndb/rpmpkg.c`): pages of slots, each of which points to a header.

use super::{Content, Result, malformed};

const FILE_MAGIC: u32 = u32::from_le_bytes(*b"RpmP");
const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"Slot");
const BLOB_MAGIC: u32 = u32::from_le_bytes(*b"BlbS");
const PAGE: u64 = 4096;
const SLOT: usize = 16;
/// Offsets are in these units.
const BLOCK: u64 = 16;
/// The most slots, which are 64 KiB for each thousand packages.
const MAX_PAGES: u32 = 1 << 12;
/// The largest header, in bytes: it names every file of a package.
const MAX_HEADER: u32 = 64 << 20;

/// The headers.
pub(super) fn blobs(content: Content<'_>) -> Result<Vec<Vec<u8>>> {
    let start = content.at(0, 2 * SLOT)?;
    let pages = number(&start, 12);
    if number(&start, 0) != FILE_MAGIC || pages > MAX_PAGES {
        return malformed("it is no database of packages");
    }
    let slots = content.at(0, (PAGE * u64::from(pages)) as usize)?;
    let mut blobs = Vec::new();
    for slot in slots.chunks_exact(SLOT).skip(2) {
        let (number_of_package, block) = (number(slot, 4), number(slot, 8));
        if number(slot, 0) != SLOT_MAGIC {
            return malformed("a slot that is none");
        }
        if block == 0 {
            continue;
        }
        let at = u64::from(block) * BLOCK;
        let head = content.at(at, SLOT)?;
        let length = number(&head, 12);
        if number(&head, 0) != BLOB_MAGIC || number(&head, 4) != number_of_package || length > MAX_HEADER {
            return malformed("a header that is none");
        }
        blobs.push(content.at(at + SLOT as u64, length as usize)?);
    }
    Ok(blobs)
}

/// The number at an offset that is there.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
