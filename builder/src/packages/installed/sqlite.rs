//! Reads one table of an SQLite file (sqlite.org's `fileformat2.html`). No program of SQLite's is given a file of strangers.

use super::{Content, RecordError, Result, malformed};

const MAGIC: &[u8] = b"SQLite format 3\0";
/// The most pages that are looked at, however the file links them.
const MAX_PAGES: usize = 1 << 20;
/// The largest row, in bytes.
const MAX_ROW: u64 = 64 << 20;
/// The bytes of all rows together.
const MAX_ROWS: u64 = 1 << 30;

/// The blobs of a table's rows: of each, the last column.
pub(super) fn blobs(content: Content<'_>, table: &str) -> Result<Vec<Vec<u8>>> {
    let head = content.at(0, 100)?;
    let page_size = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        size => usize::from(size),
    };
    let usable = page_size.checked_sub(usize::from(head[20]));
    let Some(usable) = usable.filter(|usable| *usable >= 480 && page_size.is_power_of_two()) else {
        return malformed("its pages have no proper size");
    };
    if !head.starts_with(MAGIC) {
        return malformed("it is no SQLite file");
    }
    let mut reading = Reading { content, page_size, usable, pages: MAX_PAGES, bytes: MAX_ROWS };
    let root = reading.rows(1)?.iter().find_map(|row| {
        let columns = columns(row)?;
        let [kind, name, _, root, ..] = &columns[..] else { return None };
        (*kind == b"table" && *name == table.as_bytes()).then(|| whole(root))
    });
    let root = root.ok_or(RecordError::Malformed("it lacks the table of packages"))?;
    let rows = reading.rows(root)?;
    let last = |row: &Vec<u8>| columns(row).and_then(|columns| columns.last().map(|blob| blob.to_vec()));
    rows.iter().map(|row| last(row).ok_or(RecordError::Malformed("a malformed row"))).collect()
}

struct Reading<'a> {
    content: Content<'a>,
    page_size: usize,
    usable: usize,
    /// How many more pages are read.
    pages: usize,
    /// How many more bytes of rows.
    bytes: u64,
}

impl Reading<'_> {
    fn page(&mut self, number: u64) -> Result<Vec<u8>> {
        self.pages = self.pages.checked_sub(1).ok_or(RecordError::Malformed("it has too many pages"))?;
        let before = number.checked_sub(1).ok_or(RecordError::Malformed("a page without a number"))?;
        let at = before.checked_mul(self.page_size as u64);
        self.content.at(at.ok_or(RecordError::Malformed("a page beyond its end"))?, self.page_size)
    }

    /// The records of a table, by its root.
    fn rows(&mut self, root: u64) -> Result<Vec<Vec<u8>>> {
        let mut rows = Vec::new();
        let mut left = vec![root];
        while let Some(number) = left.pop() {
            let page = self.page(number)?;
            let start = if number == 1 { 100 } else { 0 };
            let parsed = Page::of(&page, start).ok_or(RecordError::Malformed("a malformed page"))?;
            for cell in &parsed.cells {
                match parsed.is_leaf {
                    true => rows.push(self.row(&page, *cell)?),
                    false => {
                        left.push(be(&page, *cell, 4).ok_or(RecordError::Malformed("a malformed cell"))?)
                    }
                }
            }
            left.extend(parsed.rightmost);
        }
        Ok(rows)
    }

    /// The record of a leaf's cell, with what of it is on other pages.
    fn row(&mut self, page: &[u8], cell: usize) -> Result<Vec<u8>> {
        const CUT: RecordError = RecordError::Malformed("a malformed cell");
        let cell = page.get(cell..).ok_or(CUT)?;
        let (size, first) = varint(cell).ok_or(CUT)?;
        let (_, second) = varint(cell.get(first..).ok_or(CUT)?).ok_or(CUT)?;
        self.bytes = self.bytes.checked_sub(size).ok_or(RecordError::Malformed("it is too large"))?;
        if size > MAX_ROW {
            return malformed("a row is too large");
        }
        let size = size as usize;
        let local = self.local(size);
        let start = first + second;
        let mut row = cell.get(start..start + local).ok_or(CUT)?.to_vec();
        if local == size {
            return Ok(row);
        }
        let mut next = be(cell, start + local, 4).ok_or(CUT)?;
        while row.len() < size {
            let page = self.page(next)?;
            let length = (size - row.len()).min(self.usable - 4);
            row.extend_from_slice(&page[4..4 + length]);
            next = be(&page, 0, 4).ok_or(CUT)?;
        }
        Ok(row)
    }

    /// How much of a record of this size is in its cell.
    fn local(&self, size: usize) -> usize {
        let most = self.usable - 35;
        if size <= most {
            return size;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let part = least + (size - least) % (self.usable - 4);
        if part <= most { part } else { least }
    }
}

/// A page of a table.
struct Page {
    is_leaf: bool,
    /// The offsets of its cells.
    cells: Vec<usize>,
    rightmost: Option<u64>,
}

impl Page {
    fn of(page: &[u8], start: usize) -> Option<Self> {
        let is_leaf = match page.get(start)? {
            0x0d => true,
            0x05 => false,
            _ => return None,
        };
        let count = be(page, start + 3, 2)? as usize;
        let rightmost = if is_leaf { None } else { Some(be(page, start + 8, 4)?) };
        let first = start + if is_leaf { 8 } else { 12 };
        let cell = |at: usize| be(page, first + 2 * at, 2).map(|offset| offset as usize);
        Some(Self { is_leaf, cells: (0..count).map(cell).collect::<Option<_>>()?, rightmost })
    }
}

/// The columns of a record, as bytes; numbers are big-endian, and none where their value is in their type.
fn columns(record: &[u8]) -> Option<Vec<&[u8]>> {
    let (head, mut at) = varint(record)?;
    let head = usize::try_from(head).ok()?;
    let mut value = head;
    let mut columns = Vec::new();
    while at < head {
        let (kind, length) = varint(record.get(at..)?)?;
        at += length;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            _ if kind >= 12 => usize::try_from((kind - 12) / 2).ok()?,
            _ => return None,
        };
        columns.push(record.get(value..value.checked_add(size)?)?);
        value += size;
    }
    Some(columns)
}

fn whole(number: &[u8]) -> u64 {
    number.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A big-endian number of some bytes.
fn be(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(length)?).map(whole)
}

/// A number of one to nine bytes, and how many there are.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(8).enumerate() {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    bytes.get(8).map(|byte| (number << 8 | u64::from(*byte), 9))
}
