//! Remembers the first name of each file with several hard links, in constant memory.
//!
//! A tree may have a million of them, so they are kept in two nameless files: the names one after another, and a hash
//! table with the position of each file's name. Without hard links no files are created.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{At, Result};

/// The bytes of a slot: an inode number, and the position of its name. A slot of zeros is free, since no inode has
/// the number zero.
const SLOT: u64 = 16;
/// The initial number of slots; a power of two.
const FIRST: u64 = 1 << 12;

/// First names by inode: a hash table in a file with open addressing.
pub(super) struct Links {
    folder: PathBuf,
    kept: Option<Kept>,
}

struct Kept {
    table: File,
    slots: u64,
    used: u64,
    names: File,
    end: u64,
}

impl Links {
    /// `folder` is where the files are created, if they are needed.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), kept: None }
    }

    /// The name that was remembered for this inode.
    pub(super) fn first(&self, inode: u64) -> Result<Option<Vec<u8>>> {
        match &self.kept {
            Some(kept) => kept.find(inode).at("reading a temporary file in", &self.folder),
            None => Ok(None),
        }
    }

    /// Remembers the name of an inode that has none yet.
    pub(super) fn remember(&mut self, inode: u64, name: &[u8]) -> Result<()> {
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => Kept::new(&self.folder).at("making a temporary file in", &self.folder)?,
        };
        kept.insert(inode, name, &self.folder).at("writing a temporary file in", &self.folder)?;
        self.kept = Some(kept);
        Ok(())
    }
}

impl Kept {
    fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            table: empty_table(folder, FIRST)?,
            slots: FIRST,
            used: 0,
            names: tempfile::tempfile_in(folder)?,
            end: 0,
        })
    }

    fn find(&self, inode: u64) -> io::Result<Option<Vec<u8>>> {
        let (found, at) = slot(&self.table, self.slots, inode)?.1;
        if found == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.names.read_exact_at(&mut length, at)?;
        let mut name = vec![0; u32::from_le_bytes(length) as usize];
        self.names.read_exact_at(&mut name, at + 4)?;
        Ok(Some(name))
    }

    fn insert(&mut self, inode: u64, name: &[u8], folder: &Path) -> io::Result<()> {
        if 2 * self.used >= self.slots {
            self.grow(folder)?;
        }
        let record = [&(name.len() as u32).to_le_bytes(), name].concat();
        self.names.write_all_at(&record, self.end)?;
        put(&self.table, self.slots, inode, self.end)?;
        self.end += record.len() as u64;
        self.used += 1;
        Ok(())
    }

    fn grow(&mut self, folder: &Path) -> io::Result<()> {
        let table = empty_table(folder, 2 * self.slots)?;
        for index in 0..self.slots {
            let (inode, at) = read(&self.table, index)?;
            if inode != 0 {
                put(&table, 2 * self.slots, inode, at)?;
            }
        }
        (self.table, self.slots) = (table, 2 * self.slots);
        Ok(())
    }
}

fn empty_table(folder: &Path, slots: u64) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    file.set_len(slots * SLOT)?;
    Ok(file)
}

/// The slot of an inode, or the free one for it. At least half of the table is free, so there is one.
fn slot(table: &File, slots: u64, inode: u64) -> io::Result<(u64, (u64, u64))> {
    // Inodes of one directory have close numbers; the multiplication (by 2⁶⁴ over the golden ratio) spreads them.
    let mut index = (inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % slots;
    loop {
        let found = read(table, index)?;
        if found.0 == 0 || found.0 == inode {
            return Ok((index, found));
        }
        index = (index + 1) % slots;
    }
}

fn put(table: &File, slots: u64, inode: u64, at: u64) -> io::Result<()> {
    let (index, _) = slot(table, slots, inode)?;
    let bytes = u128::from(at) << 64 | u128::from(inode);
    table.write_all_at(&bytes.to_le_bytes(), index * SLOT)
}

fn read(table: &File, index: u64) -> io::Result<(u64, u64)> {
    let mut bytes = [0; SLOT as usize];
    table.read_exact_at(&mut bytes, index * SLOT)?;
    let both = u128::from_le_bytes(bytes);
    Ok((both as u64, (both >> 64) as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_found_again_after_the_table_grew() {
        let mut links = Links::new(Path::new("/tmp"));
        assert_eq!(links.first(1).unwrap(), None);
        // Consecutive numbers, as a file system assigns them, and numbers that are far apart.
        let inodes = || (1..5000).chain((1..5000).map(|it| it << 40));
        for inode in inodes() {
            links.remember(inode, format!("name of {inode}").as_bytes()).unwrap();
        }
        for inode in inodes() {
            assert_eq!(links.first(inode).unwrap().unwrap(), format!("name of {inode}").as_bytes());
        }
        assert_eq!(links.first(5000).unwrap(), None);
        assert!(links.kept.unwrap().slots >= 2 * 9998);
    }
}
