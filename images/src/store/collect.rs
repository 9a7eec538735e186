//! Garbage collection of a store.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use attestations::Digest;

use super::{REF_NAME, Store, TEMPORARY};
use crate::descriptor::Descriptor;
use crate::error::{At, Error, Result};

/// Whether unused blobs are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collect {
    /// They are only counted.
    DryRun,
    /// They are removed.
    Remove,
}

/// The blobs found or removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Their number.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes a name from the layout's index; its blobs stay until [`Store::collect`].
    ///
    /// # Errors
    /// When there is no such name, or the index cannot be written.
    pub fn remove_ref(&self, name: &str) -> Result<Descriptor> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let has_name = |entry: &Descriptor| entry.annotations.get(REF_NAME).map(String::as_str) == Some(name);
        let place = index.manifests.iter().position(has_name);
        let place =
            place.ok_or_else(|| Error::NotFound { what: format!("`{name}` in {}", self.root.display()) })?;
        let removed = index.manifests.remove(place);
        self.write_index(&index)?;
        Ok(removed)
    }

    /// Every blob of the store, with its size on disk.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn blobs(&self) -> Result<Vec<(Digest, u64)>> {
        let folder = self.root.join("blobs/sha256");
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).at("reading", &folder)? {
            let entry = entry.at("reading", &folder)?;
            let name = entry.file_name();
            let digest = name.to_str().filter(|name| !name.starts_with(TEMPORARY)).map(Digest::from_hex);
            let Some(Ok(digest)) = digest else { continue };
            match entry.metadata() {
                Ok(metadata) => found.push((digest, metadata.size())),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause).at("looking at", entry.path()),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes every blob that is not in `needed`, or only counts them. The caller must exclude concurrent writers: a
    /// new blob that nothing refers to yet would be removed.
    ///
    /// # Errors
    /// When the folder cannot be read or a blob not removed.
    pub fn collect(&self, needed: &BTreeSet<Digest>, what: Collect) -> Result<Collected> {
        let mut collected = Collected::default();
        for (digest, size) in self.blobs()? {
            if needed.contains(&digest) {
                continue;
            }
            if what == Collect::Remove {
                let path = self.path_of(&digest);
                fs::remove_file(&path).at("removing", &path)?;
            }
            collected.blobs += 1;
            collected.bytes += size;
        }
        Ok(collected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_needs_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keep = store.put("a/b", b"keep").unwrap();
        let lose = store.put("a/b", b"lose it").unwrap();
        store.set_ref("name", &keep).unwrap();
        let needed = BTreeSet::from([keep.digest]);
        let expected = Collected { blobs: 1, bytes: 7 };
        assert_eq!(store.collect(&needed, Collect::DryRun).unwrap(), expected);
        assert!(store.contains(&lose.digest), "counting removes nothing");
        assert_eq!(store.collect(&needed, Collect::Remove).unwrap(), expected);
        assert_eq!(store.blobs().unwrap(), [(keep.digest, 4)]);
        assert_eq!(store.remove_ref("name").unwrap().digest, keep.digest);
        assert!(store.remove_ref("name").is_err() && store.manifests().unwrap().is_empty());
    }
}
