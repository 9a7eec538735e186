//! The extended attributes of a path: those of the image, and overlayfs's own.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::error::{At, Error, Result};

const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// The largest value that Linux allows (`XATTR_SIZE_MAX`).
const LARGEST: usize = 1 << 16;
/// The most bytes of names that Linux lists (`XATTR_LIST_MAX`).
const LONGEST_LIST: usize = 1 << 16;

/// The attributes of one path.
pub(super) struct Attributes {
    /// Those of the image.
    pub(super) own: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Those of overlayfs, without their prefix. With two prefixes a name may occur twice.
    overlay: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Reads the attributes; of a symbolic link, its own.
    ///
    /// # Errors
    /// When they cannot be read, or when overlayfs keeps the entry's content or position elsewhere, so that it is not
    /// complete here.
    pub(super) fn of(place: &Path) -> Result<Self> {
        let mut found = Self { own: BTreeMap::new(), overlay: Vec::new() };
        let names = names(place)?;
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let Some(value) = read(place, name)? else { continue };
            match OVERLAY.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
                Some(rest) => found.overlay.push((rest.to_vec(), value)),
                None => drop(found.own.insert(name.to_vec(), value)),
            }
        }
        if found.overlay.iter().any(|(name, _)| name == b"redirect" || name == b"metacopy") {
            let reason = "the overlay keeps its content or its place elsewhere: mount it with redirect_dir=off,metacopy=off";
            return Err(Error::refused(place.display().to_string(), reason));
        }
        Ok(found)
    }

    /// Whether the directory hides its lower content.
    pub(super) fn opaque(&self) -> bool {
        self.overlay.iter().any(|(name, value)| name == b"opaque" && value == b"y")
    }

    /// Whether empty files in the directory may be whiteouts.
    pub(super) fn holds_whiteouts(&self) -> bool {
        self.overlay.iter().any(|(name, value)| name == b"opaque" && value == b"x")
    }

    /// Whether an empty file in such a directory is a whiteout.
    pub(super) fn whiteout(&self) -> bool {
        self.overlay.iter().any(|(name, _)| name == b"whiteout")
    }
}

/// The names, each ended by a NUL. None on a file system without attributes.
fn names(place: &Path) -> Result<Vec<u8>> {
    let mut names = vec![0; 1 << 10];
    loop {
        match rustix::fs::llistxattr(place, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names);
            }
            Err(rustix::io::Errno::RANGE) if names.len() < LONGEST_LIST => names.resize(names.len() * 2, 0),
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(cause) => return Err(cause).at("listing the attributes of", place),
        }
    }
}

fn read(place: &Path, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let name = CString::new(name).map_err(io::Error::from).at("reading the attributes of", place)?;
    let mut value = vec![0; LARGEST];
    match rustix::fs::lgetxattr(place, &name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            value.shrink_to_fit();
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(cause) => Err(cause).at("reading the attributes of", OsString::from_vec(name.into_bytes())),
    }
}
