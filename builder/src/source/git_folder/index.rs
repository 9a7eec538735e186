//! The file `.git/index`: what the working tree holds, with the times and sizes that its files have in every image, so
//! that git takes them for unchanged and has nothing to write.

use std::io;

use git2::Oid;

use super::pack::Hashed;

/// An extended entry.
const EXTENDED: u16 = 0x4000;
/// Of an extended entry: the file is not in the working tree, and is not missed.
const SKIP: u16 = 0x4000;
/// The longest name whose length is written.
const LONGEST: usize = 0xfff;

/// A file of the commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    /// Its path.
    pub(super) path: Vec<u8>,
    /// Its mode, as git writes it.
    pub(super) mode: u32,
    /// Its object.
    pub(super) id: Oid,
    /// Its size in the working tree, modulo 2³².
    pub(super) size: u32,
    /// Whether the context has it.
    pub(super) is_there: bool,
}

/// The bytes of an index. `files` are sorted by path; `time` is when all were changed, in seconds since 1970.
pub(super) fn bytes(files: &[Indexed], time: u32) -> io::Result<Vec<u8>> {
    let mut written = Vec::new();
    let mut out = Hashed::new(&mut written);
    let version: u32 = if files.iter().all(|file| file.is_there) { 2 } else { 3 };
    out.put(b"DIRC")?;
    out.put(&version.to_be_bytes())?;
    let count =
        u32::try_from(files.len()).map_err(|_| io::Error::other("more files than an index can hold"))?;
    out.put(&count.to_be_bytes())?;
    for file in files {
        out.put(&entry(file, time))?;
    }
    out.end()?;
    Ok(written)
}

fn entry(file: &Indexed, time: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(72 + file.path.len());
    // Changed and modified, each in seconds and nanoseconds; device, inode; mode; user, group; size.
    for number in [time, 0, time, 0, 0, 0, file.mode, 0, 0, file.size] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(file.id.as_bytes());
    let length = file.path.len().min(LONGEST) as u16;
    out.extend_from_slice(&(if file.is_there { length } else { length | EXTENDED }).to_be_bytes());
    if !file.is_there {
        out.extend_from_slice(&SKIP.to_be_bytes());
    }
    out.extend_from_slice(&file.path);
    // One to eight zeros, to a multiple of eight.
    out.resize(out.len() / 8 * 8 + 8, 0);
    out
}
