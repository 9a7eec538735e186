//! The names in a directory, sorted, in bounded memory however many there are.
//!
//! A step may leave a million names in one directory, and nest directories. Names that do not fit are written to a
//! nameless file as sorted runs, and merged when they are read. Directories are left in the reverse order of entering
//! them, so the file is used like a stack and never grows beyond the names on one path.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::{At, Result};

/// The most bytes of names in memory, for all directories on a path together.
const HELD: usize = 8 << 20;
/// The most bytes of one sorted run.
const RUN: usize = 4 << 20;
/// The read buffer per run.
const BUFFER: usize = 8 << 10;

/// The file for names that do not fit into memory.
pub(super) struct Spill {
    folder: PathBuf,
    file: Option<Rc<File>>,
    end: u64,
    held: usize,
    limits: (usize, usize),
}

/// The names of one directory while they are added, in any order.
pub(super) struct Names {
    block: Block,
    runs: Vec<Section>,
    begun: u64,
}

/// The names of one directory in byte order.
pub(super) struct Sorted {
    from: From,
    begun: u64,
    held: usize,
}

enum From {
    Memory { block: Block, next: usize },
    Runs { heap: BinaryHeap<Reverse<(Vec<u8>, usize)>>, runs: Vec<BufReader<Section>> },
}

/// Names in one buffer, with the start and end of each.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    places: Vec<(u32, u32)>,
}

/// A range of the file, read without moving its cursor.
struct Section {
    file: Rc<File>,
    at: u64,
    end: u64,
}

impl Spill {
    /// Creates no file until one is needed. It is nameless and in `folder`, so that even a killed process leaves none
    /// behind.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, end: 0, held: 0, limits: (HELD, RUN) }
    }

    pub(super) fn begin(&self) -> Names {
        Names { block: Block::default(), runs: Vec::new(), begun: self.end }
    }

    pub(super) fn add(&mut self, names: &mut Names, name: &[u8]) -> Result<()> {
        names.block.push(name);
        if names.block.size() >= self.limits.1 { self.write_run(names) } else { Ok(()) }
    }

    pub(super) fn sort(&mut self, mut names: Names) -> Result<Sorted> {
        let size = names.block.size();
        if names.runs.is_empty() && self.held + size <= self.limits.0 {
            names.block.sort();
            self.held += size;
            return Ok(Sorted {
                from: From::Memory { block: names.block, next: 0 },
                begun: names.begun,
                held: size,
            });
        }
        self.write_run(&mut names)?;
        let mut runs: Vec<_> =
            names.runs.into_iter().map(|run| BufReader::with_capacity(BUFFER, run)).collect();
        let mut heap = BinaryHeap::with_capacity(runs.len());
        for (index, run) in runs.iter_mut().enumerate() {
            if let Some(name) = next_of(run).at("reading a temporary file in", &self.folder)? {
                heap.push(Reverse((name, index)));
            }
        }
        Ok(Sorted { from: From::Runs { heap, runs }, begun: names.begun, held: 0 })
    }

    pub(super) fn next(&self, sorted: &mut Sorted) -> Result<Option<Vec<u8>>> {
        match &mut sorted.from {
            From::Memory { block, next } => {
                let name = block.places.get(*next).map(|place| block.name(*place).to_vec());
                *next += 1;
                Ok(name)
            }
            From::Runs { heap, runs } => {
                let Some(Reverse((name, index))) = heap.pop() else { return Ok(None) };
                let next = next_of(&mut runs[index]).at("reading a temporary file in", &self.folder)?;
                heap.extend(next.map(|next| Reverse((next, index))));
                Ok(Some(name))
            }
        }
    }

    /// Releases the space of a directory. Must be called in the reverse order of [`Spill::begin`].
    pub(super) fn end(&mut self, sorted: Sorted) {
        self.held -= sorted.held;
        self.end = sorted.begun;
    }

    fn write_run(&mut self, names: &mut Names) -> Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let made =
                    tempfile::tempfile_in(&self.folder).at("making a temporary file in", &self.folder)?;
                self.file.insert(Rc::new(made)).clone()
            }
        };
        names.block.sort();
        let length = names.block.write(&file, self.end).at("writing a temporary file in", &self.folder)?;
        names.runs.push(Section { file, at: self.end, end: self.end + length });
        self.end += length;
        Ok(())
    }
}

impl Block {
    fn push(&mut self, name: &[u8]) {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.places.push((at, self.bytes.len() as u32));
    }

    fn size(&self) -> usize {
        self.bytes.len() + size_of_val(&self.places[..])
    }

    fn name(&self, (at, end): (u32, u32)) -> &[u8] {
        &self.bytes[at as usize..end as usize]
    }

    fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        self.places = places;
    }

    /// Writes each name after its length, and clears the block.
    fn write(&mut self, mut file: &File, at: u64) -> io::Result<u64> {
        file.seek(SeekFrom::Start(at))?;
        let mut out = BufWriter::new(file);
        for place in &self.places {
            out.write_all(&(place.1 - place.0).to_le_bytes())?;
            out.write_all(self.name(*place))?;
        }
        out.flush()?;
        let length = self.bytes.len() + 4 * self.places.len();
        self.bytes.clear();
        self.places.clear();
        Ok(length as u64)
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn next_of(run: &mut BufReader<Section>) -> io::Result<Option<Vec<u8>>> {
    if run.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut length = [0; 4];
    run.read_exact(&mut length)?;
    let mut name = vec![0; u32::from_le_bytes(length) as usize];
    run.read_exact(&mut name)?;
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(spill: &Spill, sorted: &mut Sorted) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| spill.next(sorted).unwrap()).collect()
    }

    proptest! {
        /// With any amount of memory, and any names of upper directories in the file.
        #[test]
        fn names_come_sorted(
            outer in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..20), 1..60),
            inner in prop::collection::hash_set(prop::collection::vec(any::<u8>(), 1..20), 0..60),
            held in 0_usize..400,
            run in 1_usize..200,
        ) {
            let mut spill = Spill { limits: (held, run), ..Spill::new(Path::new("/tmp")) };
            let mut names = spill.begin();
            outer.iter().rev().for_each(|name| spill.add(&mut names, name).unwrap());
            let mut above = spill.sort(names).unwrap();
            let first = spill.next(&mut above).unwrap().unwrap();
            for _ in 0..2 {
                let mut names = spill.begin();
                inner.iter().for_each(|name| spill.add(&mut names, name).unwrap());
                let mut below = spill.sort(names).unwrap();
                let wanted: BTreeSet<_> = inner.iter().cloned().collect();
                prop_assert_eq!(all(&spill, &mut below), wanted.into_iter().collect::<Vec<_>>());
                spill.end(below);
            }
            let mut found = vec![first];
            found.extend(all(&spill, &mut above));
            prop_assert_eq!(found, outer.into_iter().collect::<Vec<_>>());
            spill.end(above);
            prop_assert_eq!((spill.held, spill.end), (0, 0));
        }
    }
}
