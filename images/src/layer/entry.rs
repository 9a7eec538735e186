//! The canonical form of one archive entry. These bytes are hashed, so they are written here and do not depend on a
//! library's choices.
//!
//! POSIX ustar headers; values that do not fit are in a PAX header before (path, link target, size, owner, time,
//! extended attributes). The form is specified in `docs/layers.md`.

use std::collections::BTreeMap;
use std::io::{self, Write};

const BLOCK: usize = 512;
/// The largest size in eleven octal digits: 8 GiB less one byte.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;
/// The largest owner in seven octal digits.
const MAX_OCTAL_OWNER: u32 = 0o7_777_777;
/// The length of the header's name fields.
const NAME_LENGTH: usize = 100;

/// One entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path without leading slash; a directory's without the trailing one.
    pub path: Vec<u8>,
    /// The kind of entry.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: the low twelve.
    pub mode: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its time in whole seconds since 1970, never before.
    pub mtime: u64,
    /// Its extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A hard link to an earlier entry.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
}

impl Entry {
    /// An empty file whose name alone has a meaning.
    pub(super) fn marker(path: Vec<u8>, epoch: i64) -> Self {
        let (kind, xattrs) = (Kind::File { size: 0 }, BTreeMap::new());
        Self { path, kind, mode: 0o600, uid: 0, gid: 0, mtime: epoch.max(0) as u64, xattrs }
    }
}

impl Kind {
    fn flag(&self) -> u8 {
        match self {
            Self::File { .. } => b'0',
            Self::HardLink(_) => b'1',
            Self::Symlink(_) => b'2',
            Self::CharDevice(..) => b'3',
            Self::BlockDevice(..) => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }

    fn size(&self) -> u64 {
        if let Self::File { size } = self { *size } else { 0 }
    }

    fn target(&self) -> &[u8] {
        if let Self::Symlink(target) | Self::HardLink(target) = self { target } else { b"" }
    }
}

/// Writes the header of `entry`. A file's content and its padding must follow.
pub(crate) fn write_header(entry: &Entry, out: &mut impl Write) -> io::Result<()> {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Directory {
        path.push(b'/');
    }
    let records = pax_records(entry, &path);
    if !records.is_empty() {
        let header = block(b"././@PaxHeader", b"", b'x', 0o644, [0, 0], records.len() as u64, 0, [0, 0]);
        out.write_all(&header)?;
        out.write_all(&records)?;
        write_padding(records.len() as u64, out)?;
    }
    let device = match entry.kind {
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => [major, minor],
        _ => [0, 0],
    };
    let owner = [entry.uid, entry.gid].map(|id| if id > MAX_OCTAL_OWNER { 0 } else { id });
    let size = if entry.kind.size() > MAX_OCTAL_SIZE { 0 } else { entry.kind.size() };
    let mtime = if entry.mtime > MAX_OCTAL_SIZE { 0 } else { entry.mtime };
    let (name, target) = (cut(&path), cut(entry.kind.target()));
    out.write_all(&block(name, target, entry.kind.flag(), entry.mode, owner, size, mtime, device))
}

/// Pads a content of `size` bytes to whole blocks.
pub(crate) fn write_padding(size: u64, out: &mut impl Write) -> io::Result<()> {
    let rest = (size % BLOCK as u64) as usize;
    if rest == 0 { Ok(()) } else { out.write_all(&[0; BLOCK][rest..]) }
}

/// Writes the end of an archive: two empty blocks.
pub(crate) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_LENGTH)]
}

fn pax_records(entry: &Entry, path: &[u8]) -> Vec<u8> {
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut add = |key: &[u8], value: &[u8]| {
        records.insert(key.to_vec(), value.to_vec());
    };
    if needs_record(path) {
        add(b"path", path);
    }
    if needs_record(entry.kind.target()) {
        add(b"linkpath", entry.kind.target());
    }
    if entry.kind.size() > MAX_OCTAL_SIZE {
        add(b"size", entry.kind.size().to_string().as_bytes());
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > MAX_OCTAL_OWNER {
            add(key, id.to_string().as_bytes());
        }
    }
    if entry.mtime > MAX_OCTAL_SIZE {
        add(b"mtime", entry.mtime.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records.iter().flat_map(|(key, value)| record(key, value)).collect()
}

fn needs_record(name: &[u8]) -> bool {
    name.len() > NAME_LENGTH || !name.is_ascii()
}

/// A record of the form `length key=value\n`, where the length includes itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[expect(clippy::too_many_arguments, reason = "the fields of one fixed header, in its order")]
fn block(
    name: &[u8],
    target: &[u8],
    flag: u8,
    mode: u32,
    owner: [u32; 2],
    size: u64,
    mtime: u64,
    device: [u32; 2],
) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    put(&mut header, 0, name);
    octal(&mut header, 100, 7, u64::from(mode & 0o7777));
    octal(&mut header, 108, 7, owner[0].into());
    octal(&mut header, 116, 7, owner[1].into());
    octal(&mut header, 124, 11, size);
    octal(&mut header, 136, 11, mtime);
    put(&mut header, 148, b"        ");
    header[156] = flag;
    put(&mut header, 157, target);
    put(&mut header, 257, b"ustar\x0000");
    octal(&mut header, 329, 7, device[0].into());
    octal(&mut header, 337, 7, device[1].into());
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header, 148, 6, sum);
    header[155] = b' ';
    header
}

fn put(header: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes `digits` octal digits and a NUL.
fn octal(header: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    put(header, at, format!("{value:0digits$o}\0").as_bytes());
}
