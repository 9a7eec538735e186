//! Reads the records by which installers say what they installed. Each is a file of the image, and may hold anything: it is
//! read with a limit, and what cannot be read is an error, since a package may be named there.

mod apk;
mod cargo;
mod conda;
mod dpkg;
mod elf;
mod go;
mod ndb;
mod npm;
mod os_release;
mod python;
mod r;
mod rpm;
mod sqlite;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::Purl;

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordKind {
    /// The distribution's name, which Debian's, Alpine's and RPM's packages have in their purls.
    OsRelease,
    /// dpkg's list of packages, or one package's part of it.
    Dpkg,
    /// apk's list of packages.
    Apk,
    /// RPM's database in SQLite.
    RpmSqlite,
    /// RPM's database in its own format.
    RpmNdb,
    /// RPM's database in a form that is not read here.
    RpmOther,
    /// `METADATA` or `PKG-INFO` of a Python package.
    Python,
    /// `package.json` below `node_modules`.
    Npm,
    /// `DESCRIPTION` of an R package.
    R,
    /// A file of `conda-meta`.
    Conda,
    /// A program or library, which Go and Rust tell their parts in.
    Program,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// It is not what it should be.
    #[error("{0}")]
    Malformed(&'static str),
    /// The machine's fault.
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Result<T> = std::result::Result<T, RecordError>;

fn malformed<T>(why: &'static str) -> Result<T> {
    Err(RecordError::Malformed(why))
}

/// The kind of record that a file is by its path, if it may be one. A program is only one if it [begins](is_program) like
/// one.
pub(crate) fn kind_of(path: &[u8], mode: u32) -> Option<RecordKind> {
    let by_path = std::str::from_utf8(path).ok().and_then(by_path);
    by_path.or_else(|| {
        let is_library = || path.windows(3).any(|part| part == b".so");
        (mode & 0o111 != 0 || is_library()).then_some(RecordKind::Program)
    })
}

/// Whether a file with these first bytes is a program or library.
pub(crate) fn is_program(start: [u8; 4]) -> bool {
    &start == elf::MAGIC
}

fn by_path(path: &str) -> Option<RecordKind> {
    match path {
        "etc/os-release" | "usr/lib/os-release" => return Some(RecordKind::OsRelease),
        "var/lib/dpkg/status" => return Some(RecordKind::Dpkg),
        "lib/apk/db/installed" | "usr/lib/apk/db/installed" => return Some(RecordKind::Apk),
        _ => {}
    }
    let (above, name) = path.rsplit_once('/')?;
    let rpm = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"].contains(&above);
    Some(match (above.rsplit('/').next()?, name) {
        _ if above == "var/lib/dpkg/status.d" && !name.ends_with(".md5sums") => RecordKind::Dpkg,
        (_, "rpmdb.sqlite") if rpm => RecordKind::RpmSqlite,
        (_, "Packages.db") if rpm => RecordKind::RpmNdb,
        (_, "Packages" | "rpmdb.sqlite-wal") if rpm => RecordKind::RpmOther,
        (folder, "METADATA") if folder.ends_with(".dist-info") => RecordKind::Python,
        (folder, "PKG-INFO") if folder.ends_with(".egg-info") => RecordKind::Python,
        (_, name) if name.ends_with(".egg-info") => RecordKind::Python,
        (_, "package.json") if npm::folder_name(above).is_some() => RecordKind::Npm,
        (_, "DESCRIPTION") => RecordKind::R,
        ("conda-meta", name) if name.ends_with(".json") => RecordKind::Conda,
        _ => return None,
    })
}

/// A record's content, of which only what is asked for is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    file: &'a File,
    size: u64,
}

impl<'a> Content<'a> {
    /// The whole of a regular file.
    ///
    /// # Errors
    /// When the system does not tell its size.
    pub(crate) fn of(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, size: file.metadata()?.len() })
    }

    /// The bytes at an offset; an error if there are fewer.
    fn at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return malformed("it ends too early");
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// All of it, at most `limit` bytes.
    fn whole(&self, limit: u64) -> Result<Vec<u8>> {
        match usize::try_from(self.size) {
            Ok(size) if self.size <= limit => self.at(0, size),
            _ => malformed("it is too large"),
        }
    }

    /// The same as text; what is no UTF-8 is replaced.
    fn text(&self, limit: u64) -> Result<String> {
        self.whole(limit).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The name of the distribution.
    Vendor(String),
    /// The packages that are installed. Those of a distribution lack its name.
    Packages(Vec<Purl>),
}

/// Reads a record.
///
/// # Errors
/// When it is malformed or too large, or the machine fails.
pub(crate) fn read(kind: RecordKind, path: &str, content: Content<'_>) -> Result<Said> {
    let packages = match kind {
        RecordKind::OsRelease => return os_release::read(content).map(Said::Vendor),
        RecordKind::Dpkg => dpkg::read(content)?,
        RecordKind::Apk => apk::read(content)?,
        RecordKind::RpmSqlite => rpm::read(&sqlite::blobs(content, "Packages")?)?,
        RecordKind::RpmNdb => rpm::read(&ndb::blobs(content)?)?,
        // An empty journal says nothing.
        RecordKind::RpmOther if content.size == 0 => Vec::new(),
        RecordKind::RpmOther => return malformed("this form of RPM's database is not read"),
        RecordKind::Python => vec![python::read(content)?],
        RecordKind::Npm => vec![npm::read(path, content)?],
        RecordKind::R => r::read(content)?.into_iter().collect(),
        RecordKind::Conda => vec![conda::read(content)?],
        RecordKind::Program => {
            let Some(program) = elf::Program::read(content)? else { return Ok(Said::Packages(Vec::new())) };
            let mut packages = go::read(&program)?;
            packages.extend(cargo::read(&program)?);
            packages
        }
    };
    Ok(Said::Packages(packages))
}

/// The fields of a record in paragraphs, as Debian, R and Python write them: `Name: value`, continued where a line begins
/// with a space. An empty line ends a paragraph.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty())
}

/// The value of a field, on one line.
fn field<'t>(paragraph: &'t str, name: &str) -> Option<&'t str> {
    let value = |line: &'t str| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    };
    paragraph.lines().find_map(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
