//! A whole layout in one file: an image layout in a tar archive (image-spec `image-layout.md`), with what is attached to
//! its images, and a few small files beside it.
//!
//! A file that is read is a stranger's: of its entries only regular files of known names are taken, each blob is checked
//! against the digest that it is named by, and everything is bounded. Whoever reads one into a folder of its own sees
//! nothing of it before all of it was checked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};

use attestations::{Digest, Foreign};
use serde::Deserialize;

use crate::descriptor::Descriptor;
use crate::error::{At, Error, Result};
use crate::layer::{Entry, Kind, write_end, write_header, write_padding};
use crate::store::{LAYOUT, Store};

/// The most entries of an archive.
pub const MAX_ENTRIES: usize = 16_384;
/// The most bytes of one blob.
pub const MAX_BLOB: u64 = 32 << 30;
/// The most bytes of one of the other files.
pub const MAX_FILE: u64 = 16 << 20;
/// The folder of the files beside the layout.
const BESIDE: &str = "countersign/";
const BLOBS: &str = "blobs/sha256/";
/// The layout's index, which names what is in it.
const INDEX_FILE: &str = "index.json";
const LAYOUT_FILE: &str = "oci-layout";

/// The files beside a layout, by their names.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Writes a store's layout, with all its blobs, and `files` beside it. Equal content gives equal bytes.
///
/// # Errors
/// When a blob is damaged, or the archive cannot be written.
pub fn write_layout(store: &Store, files: &Files, out: &mut impl Write) -> Result<()> {
    let folder = store.root().join(BLOBS);
    let mut blobs = BTreeMap::new();
    for entry in fs::read_dir(&folder).at("reading", &folder)? {
        let entry = entry.at("reading", &folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Ok(digest) = format!("sha256:{name}").parse::<Digest>() {
            let size = entry.metadata().at("looking at", entry.path())?.len();
            blobs.insert(name, Descriptor::new("application/octet-stream", digest, size));
        }
    }
    small(LAYOUT_FILE, LAYOUT.as_bytes(), out)?;
    let index = store.root().join(INDEX_FILE);
    small(INDEX_FILE, &fs::read(&index).at("reading", &index)?, out)?;
    for (name, bytes) in files {
        small(&format!("{BESIDE}{name}"), bytes, out)?;
    }
    for (name, blob) in blobs {
        let path = format!("{BLOBS}{name}");
        header(&path, blob.size, out)?;
        io::copy(&mut store.open_blob(&blob)?, out).at("writing", &path)?;
        write_padding(blob.size, out).at("writing", &path)?;
    }
    write_end(out).at("writing", "the archive")
}

/// Reads an archive into an empty store, and returns the files beside the layout.
///
/// # Errors
/// When it is not such an archive, too large, or damaged.
pub fn read_layout(archive: impl Read, store: &Store) -> Result<Files> {
    let mut files = Files::new();
    let mut count = 0;
    let mut archive = tar::Archive::new(archive);
    // Raw: headers of long names and attributes are entries of their own, which are refused before they are read.
    let entries = archive.entries().map_err(unreadable)?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(unreadable)?;
        count += 1;
        if count > MAX_ENTRIES {
            let what = "the archive's entries".to_owned();
            return Err(Error::TooMany { what, count, most: MAX_ENTRIES });
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir()
            && [BLOBS, "blobs/", "blobs", "blobs/sha256", "countersign/"].contains(&path.as_str())
        {
            continue;
        }
        if !kind.is_file() {
            return Err(refused(&path, "it is no regular file"));
        }
        let size = entry.size();
        match (path.strip_prefix(BLOBS), name_of(&path)) {
            (Some(hex), _) => {
                let digest = format!("sha256:{hex}").parse::<Digest>();
                let digest = digest.map_err(|_| refused(&path, "its name is no digest"))?;
                if size > MAX_BLOB {
                    return Err(Error::TooLarge { what: path, limit: MAX_BLOB });
                }
                let mut writer = store.writer()?;
                io::copy(&mut entry, &mut writer).map_err(unreadable)?;
                writer.commit_as(&Descriptor::new("application/octet-stream", digest, size))?;
            }
            (None, Some(name)) => {
                if size > MAX_FILE {
                    return Err(Error::TooLarge { what: path, limit: MAX_FILE });
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(unreadable)?;
                if files.insert(name.to_owned(), bytes).is_some() {
                    return Err(refused(&path, "it is there twice"));
                }
            }
            (None, None) => return Err(refused(&path, "it does not belong into an image layout")),
        }
    }
    take_index(&mut files, store)?;
    Ok(files)
}

/// The name that a file is returned by, if it belongs into an archive.
fn name_of(path: &str) -> Option<&str> {
    let is_plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    match path {
        INDEX_FILE | LAYOUT_FILE => Some(path),
        _ => path
            .strip_prefix(BESIDE)
            .filter(|name| is_plain(name) && ![INDEX_FILE, LAYOUT_FILE].contains(name)),
    }
}

/// Names in the store what the archive's index names, once everything it names is there.
fn take_index(files: &mut Files, store: &Store) -> Result<()> {
    #[derive(Deserialize)]
    struct Listed {
        manifests: Vec<Descriptor>,
    }
    let missing = |name: &str| Error::refused("the archive", format!("it has no {name}: is it whole?"));
    files.remove(LAYOUT_FILE).ok_or_else(|| missing(LAYOUT_FILE))?;
    let index = files.remove(INDEX_FILE).ok_or_else(|| missing(INDEX_FILE))?;
    let index: Listed =
        serde_json::from_slice(&index).map_err(|cause| refused(INDEX_FILE, &cause.to_string()))?;
    for entry in index.manifests {
        store.read(&entry, crate::image::MAX_MANIFEST)?;
        if let Some(name) = Store::name_of(&entry) {
            store.set_ref(name, &entry)?;
        }
    }
    Ok(())
}

fn refused(path: &str, reason: &str) -> Error {
    Error::refused(format!("`{}` in the archive", Foreign::new(path)), reason)
}

/// A stream that ends too early, or is no archive.
fn unreadable(cause: io::Error) -> Error {
    match cause.downcast::<Error>() {
        Ok(ours) => ours,
        Err(cause) => Error::refused("the archive", format!("it cannot be read: {cause}")),
    }
}

fn small(path: &str, bytes: &[u8], out: &mut impl Write) -> Result<()> {
    header(path, bytes.len() as u64, out)?;
    out.write_all(bytes).at("writing", path)?;
    write_padding(bytes.len() as u64, out).at("writing", path)
}

fn header(path: &str, size: u64, out: &mut impl Write) -> Result<()> {
    let path = path.as_bytes().to_vec();
    let kind = Kind::File { size };
    let entry = Entry { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() };
    write_header(&entry, out).at("writing", "the archive")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::descriptor::MANIFEST;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    /// A whole archive: one named manifest, one file beside.
    fn whole() -> Vec<u8> {
        let (_folder, store) = store();
        let manifest = store.put(MANIFEST, b"{}").unwrap();
        store.set_ref("v1", &manifest).unwrap();
        let mut bytes = Vec::new();
        write_layout(&store, &[("policy.toml".to_owned(), b"version = 1".to_vec())].into(), &mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let (_folder, store) = store();
        let files = read_layout(&whole()[..], &store).unwrap();
        assert_eq!(files["policy.toml"], b"version = 1");
        assert_eq!(store.manifests().unwrap().len(), 1);
        assert_eq!(whole(), whole());
    }

    #[test]
    fn a_part_is_refused() {
        let bytes = whole();
        for end in [0, 300, 512, 1024, 1600, 2300, bytes.len() - 1536] {
            let (_folder, store) = store();
            let cut = read_layout(&bytes[..end], &store);
            assert!(cut.is_err(), "{end}: {cut:?}");
        }
    }

    fn hostile(kind: tar::EntryType, path: &[u8], link: &[u8], content: &[u8]) -> String {
        let mut header = tar::Header::new_ustar();
        let raw = header.as_ustar_mut().unwrap();
        raw.name[..path.len()].copy_from_slice(path);
        raw.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(whole());
        let (_folder, store) = store();
        read_layout(&bytes[..], &store).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_belong_there_is_refused() {
        use tar::EntryType as T;
        let name = |hex: &str| format!("blobs/sha256/{hex}").into_bytes();
        type Planted<'a> = (T, Vec<u8>, &'a [u8], &'a [u8], &'a str);
        let cases: &[Planted<'_>] = &[
            (T::Regular, b"../evil".to_vec(), b"", b"", "does not belong"),
            (T::Regular, b"/etc/evil".to_vec(), b"", b"", "does not belong"),
            (T::Regular, b"countersign/../evil".to_vec(), b"", b"", "does not belong"),
            (T::Regular, b"countersign/.hidden".to_vec(), b"", b"", "does not belong"),
            (T::Regular, b"countersign/index.json".to_vec(), b"", b"", "does not belong"),
            (T::Regular, b"blobs/sha256/../x".to_vec(), b"", b"", "no digest"),
            (T::Regular, name(&"A".repeat(64)), b"", b"", "no digest"),
            (T::Regular, name(&"a".repeat(64)), b"", b"x", "should have the digest"),
            (T::Symlink, name(&"a".repeat(64)), b"/etc/passwd", b"", "no regular file"),
            (T::Link, b"index.json".to_vec(), b"/etc/passwd", b"", "no regular file"),
            (T::Block, b"countersign/sda".to_vec(), b"", b"", "no regular file"),
            (T::XHeader, b"x".to_vec(), b"", b"12 path=evil\n", "no regular file"),
            (T::GNULongName, b"x".to_vec(), b"", b"evil", "no regular file"),
            (T::Regular, b"index.json".to_vec(), b"", b"{}", "twice"),
        ];
        for (kind, path, link, content, reason) in cases {
            let told = hostile(*kind, path, link, content);
            assert!(told.contains(reason), "{}: {told}", String::from_utf8_lossy(path));
        }
    }

    /// A size in a header is no promise that memory is spent on.
    #[test]
    fn sizes_are_bounded_before_anything_is_read() {
        let mut header = tar::Header::new_ustar();
        header.set_path("countersign/policy.toml").unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(MAX_FILE + 1);
        header.set_cksum();
        let (_folder, store) = store();
        let told = read_layout(io::Cursor::new(header.as_bytes().to_vec()), &store).unwrap_err();
        assert!(matches!(told, Error::TooLarge { .. }), "{told}");
    }
}
