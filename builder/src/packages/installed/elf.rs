//! Sections and addresses of ELF files (System V ABI, chapter 4).

use super::{Content, RecordError, Result};

/// What an ELF file begins with.
pub(super) const MAGIC: &[u8; 4] = b"\x7fELF";
/// The most sections that are looked at.
const MAX_SECTIONS: u64 = 1 << 16;
/// The most bytes of their names.
const MAX_NAMES: u64 = 4 << 20;
/// The most segments that are looked at.
const MAX_SEGMENTS: u64 = 1 << 10;

/// A program or library.
pub(super) struct Program<'a> {
    content: Content<'a>,
    form: Form,
    /// Name, offset and size.
    sections: Vec<(String, u64, u64)>,
    /// Address, offset and size in the file.
    segments: Vec<(u64, u64, u64)>,
}

/// How numbers are written.
#[derive(Debug, Clone, Copy)]
struct Form {
    is_wide: bool,
    is_little: bool,
}

impl Form {
    fn number(self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.is_little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    /// The number at one of two places, and of one of two lengths, by the width of addresses.
    fn address(self, bytes: &[u8], narrow: usize, wide: usize) -> Option<u64> {
        if self.is_wide { self.number(bytes, wide, 8) } else { self.number(bytes, narrow, 4) }
    }
}

impl<'a> Program<'a> {
    /// None for what no machine would start: it has no parts to tell.
    ///
    /// # Errors
    /// When the machine cannot read it.
    pub(super) fn read(content: Content<'a>) -> Result<Option<Self>> {
        match Self::parsed(content) {
            Err(RecordError::Malformed(_)) => Ok(None),
            other => other,
        }
    }

    fn parsed(content: Content<'a>) -> Result<Option<Self>> {
        let head = content.at(0, 64)?;
        if !head.starts_with(MAGIC) {
            return Ok(None);
        }
        let form = Form { is_wide: head[4] == 2, is_little: head[5] == 1 };
        let table = |narrow, wide, sizes: [usize; 2]| {
            let [size, count] = if form.is_wide { [sizes[0] + 12, sizes[1] + 12] } else { sizes };
            let number = |at| form.number(&head, at, 2);
            Some((form.address(&head, narrow, wide)?, number(size)?, number(count)?))
        };
        let (Some(sections), Some(segments)) = (table(32, 40, [46, 48]), table(28, 32, [42, 44])) else {
            return Ok(None);
        };
        let name_table = form.number(&head, if form.is_wide { 62 } else { 50 }, 2).unwrap_or_default();
        let mut program = Self { content, form, sections: Vec::new(), segments: Vec::new() };
        program.segments(segments)?;
        program.sections(sections, name_table)?;
        Ok(Some(program))
    }

    fn segments(&mut self, (at, size, count): (u64, u64, u64)) -> Result<()> {
        let table = self.table(at, size, count.min(MAX_SEGMENTS))?;
        let form = self.form;
        for entry in table.chunks_exact(size.max(1) as usize) {
            let (Some(1), Some(offset), Some(address), Some(length)) = (
                form.number(entry, 0, 4),
                form.address(entry, 4, 8),
                form.address(entry, 8, 16),
                form.address(entry, 16, 32),
            ) else {
                continue;
            };
            self.segments.push((address, offset, length));
        }
        Ok(())
    }

    fn sections(&mut self, (at, size, mut count): (u64, u64, u64), mut names: u64) -> Result<()> {
        let form = self.form;
        if at == 0 {
            return Ok(());
        }
        let first = self.table(at, size, 1)?;
        if count == 0 {
            count = form.address(&first, 20, 32).unwrap_or_default();
        }
        if names == 0xffff {
            names = form.number(&first, if form.is_wide { 40 } else { 24 }, 4).unwrap_or_default();
        }
        let table = self.table(at, size, count.min(MAX_SECTIONS))?;
        let place = |entry: &[u8]| Some((form.address(entry, 16, 24)?, form.address(entry, 20, 32)?));
        let entries: Vec<&[u8]> = table.chunks_exact(size.max(1) as usize).collect();
        let Some((offset, length)) = usize::try_from(names).ok().and_then(|at| place(entries.get(at)?))
        else {
            return Ok(());
        };
        let names = self.content.at(offset, length.min(MAX_NAMES) as usize)?;
        self.sections = entries
            .into_iter()
            .filter_map(|entry| {
                let name = names.get(usize::try_from(form.number(entry, 0, 4)?).ok()?..)?;
                let name = name.split(|byte| *byte == 0).next()?;
                // A section of this kind takes no space in the file.
                (form.number(entry, 4, 4)? != 8).then_some(())?;
                let (offset, length) = place(entry)?;
                Some((String::from_utf8_lossy(name).into_owned(), offset, length))
            })
            .collect();
        Ok(())
    }

    fn table(&self, at: u64, size: u64, count: u64) -> Result<Vec<u8>> {
        self.content.at(at, (size * count) as usize)
    }

    /// The content of a section of at most `limit` bytes, if there is one of this name.
    ///
    /// # Errors
    /// When it is larger, or not in the file.
    pub(super) fn section(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.sections.iter().find(|(found, ..)| found == name) {
            None => Ok(None),
            Some((_, _, length)) if *length > limit => {
                Err(RecordError::Malformed("the section that names its parts is too large"))
            }
            Some((_, offset, length)) => self.content.at(*offset, *length as usize).map(Some),
        }
    }

    /// The bytes at an address of the running program.
    ///
    /// # Errors
    /// When they are not in the file.
    pub(super) fn memory(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        let held = self.segments.iter().find_map(|(start, offset, size)| {
            let into = address.checked_sub(*start)?;
            (into.checked_add(length as u64)? <= *size).then_some(())?;
            offset.checked_add(into)
        });
        self.content.at(held.ok_or(RecordError::Malformed("an address that is not in the file"))?, length)
    }
}
