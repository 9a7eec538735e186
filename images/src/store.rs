//! A content-addressed store: an OCI image layout on disk (image-spec `image-layout.md`).
//!
//! A blob appears under its name only when it is complete: it is written to a temporary file, flushed, and renamed.
//! Everything read is verified against the requested size and digest, so that damage on disk is detected before use.

mod collect;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use attestations::Digest;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::blob::BlobFile;
pub use crate::blob::{BlobWriter, VerifyingReader};
use crate::descriptor::{Descriptor, INDEX};
use crate::error::{At, Error, Result};

pub use collect::{Collect, Collected};

pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The prefix of temporary files for blobs that are being written.
const TEMPORARY: &str = ".blob";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The most bytes of an `index.json`.
const MAX_INDEX: u64 = 4 << 20;

/// An OCI image layout.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
}

impl Store {
    /// Opens the layout at `root`, or creates an empty one.
    ///
    /// # Errors
    /// When the folder cannot be written, or has other files in it.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).at("making", &blobs)?;
        let store = Self { root };
        store.sweep(&blobs)?;
        if !store.root.join("oci-layout").exists() {
            store.write_whole("oci-layout", LAYOUT.as_bytes())?;
        }
        if !store.root.join("index.json").exists() {
            store.write_index(&Index {
                schema_version: 2,
                media_type: Some(INDEX.to_owned()),
                manifests: Vec::new(),
            })?;
        }
        Ok(store)
    }

    /// Opens an existing layout.
    ///
    /// # Errors
    /// When `root` is not an OCI image layout.
    pub fn open_existing(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        if root.join("oci-layout").is_file() && root.join("index.json").is_file() {
            return Ok(Self { root });
        }
        Err(Error::NotFound {
            what: format!("an OCI image layout (oci-layout, index.json) in {}", root.display()),
        })
    }

    /// The layout's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a blob's file, whether or not it exists.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the store has the blob.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path_of(digest).is_file()
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).at("writing", self.root.join("blobs"))?;
        writer.commit(media_type)
    }

    /// A writer for a new blob. Dropping it without [`BlobWriter::commit`] leaves nothing behind.
    ///
    /// # Errors
    /// When no file can be created.
    pub fn writer(&self) -> Result<BlobWriter> {
        self.file().map(BlobWriter::new)
    }

    /// The same for callers that compute the digest themselves.
    pub(crate) fn file(&self) -> Result<BlobFile> {
        let folder = self.root.join("blobs/sha256");
        let file = loop {
            let file = tempfile::Builder::new()
                .prefix(TEMPORARY)
                .permissions(readable())
                .tempfile_in(&folder)
                .at("making a file in", &folder)?;
            flock(file.as_file(), FlockOperation::LockExclusive).at("locking", file.path())?;
            // Another process may have removed the file as a leftover just before it was locked.
            if file.as_file().metadata().at("looking at", file.path())?.nlink() > 0 {
                break file;
            }
        };
        Ok(BlobFile::new(folder, file))
    }

    /// Flushes everything written so far to disk, by any process.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<()> {
        let root = File::open(&self.root).at("opening", &self.root)?;
        rustix::fs::syncfs(&root).at("flushing", &self.root)
    }

    /// Reads a whole blob of at most `max` bytes.
    ///
    /// # Errors
    /// When it is missing, larger, or does not match its digest.
    pub fn read(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        if descriptor.size > max {
            return Err(Error::TooLarge { what: descriptor.digest.to_string(), limit: max });
        }
        let mut bytes = Vec::with_capacity(descriptor.size as usize);
        self.open_blob(descriptor)?
            .read_to_end(&mut bytes)
            .at("reading", self.path_of(&descriptor.digest))?;
        Ok(bytes)
    }

    /// Reads a blob as a stream that fails at its end unless size and digest match. Nothing of it can be trusted
    /// before.
    ///
    /// # Errors
    /// When it is missing.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<VerifyingReader<File>> {
        let path = self.path_of(&descriptor.digest);
        match File::open(&path) {
            Ok(file) => Ok(VerifyingReader::new(file, descriptor)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::NotFound {
                what: format!("blob {} in {}", descriptor.digest, self.root.display()),
            }),
            Err(cause) => Err(Error::Io { doing: "opening", path, cause }),
        }
    }

    /// The descriptor of a stored manifest, by its digest.
    ///
    /// # Errors
    /// When it is missing.
    pub fn describe(&self, media_type: &str, digest: &Digest) -> Result<Descriptor> {
        let path = self.path_of(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Descriptor::new(media_type, *digest, metadata.len())),
            Err(_) => Err(Error::NotFound { what: format!("blob {digest} in {}", self.root.display()) }),
        }
    }

    /// Sets a name for a manifest in the layout's index, and removes the name from its previous one.
    ///
    /// # Errors
    /// When the index cannot be read or written.
    pub fn set_ref(&self, name: &str, manifest: &Descriptor) -> Result<()> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        index.manifests.retain(|entry| entry.annotations.get(REF_NAME).map(String::as_str) != Some(name));
        let mut named = manifest.clone();
        named.annotations = BTreeMap::from([(REF_NAME.to_owned(), name.to_owned())]);
        index.manifests.push(named);
        self.write_index(&index)
    }

    /// The name of an entry of the index.
    pub fn name_of(entry: &Descriptor) -> Option<&str> {
        entry.annotations.get(REF_NAME).map(String::as_str)
    }

    /// The manifests in the layout's index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn manifests(&self) -> Result<Vec<Descriptor>> {
        Ok(self.index()?.manifests)
    }

    /// Removes temporary files of killed processes. Running ones hold a lock on their files.
    fn sweep(&self, blobs: &Path) -> Result<()> {
        for entry in fs::read_dir(blobs).at("reading", blobs)? {
            let entry = entry.at("reading", blobs)?;
            if !entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                continue;
            }
            let path = entry.path();
            let file = match File::open(&path) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                other => other.at("opening", &path)?,
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(cause) => return Err(cause).at("locking", &path),
            }
            match fs::remove_file(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(cause).at("removing", &path);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Locks the index, which has one writer at a time across processes.
    fn lock(&self) -> Result<File> {
        let path = self.root.join(".index.lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).at("opening", &path)?;
        flock(&file, FlockOperation::LockExclusive).at("locking", &path)?;
        Ok(file)
    }

    fn index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        let mut bytes = Vec::new();
        let file = File::open(&path).at("opening", &path)?;
        file.take(MAX_INDEX + 1).read_to_end(&mut bytes).at("reading", &path)?;
        if bytes.len() as u64 > MAX_INDEX {
            return Err(Error::TooLarge { what: path.display().to_string(), limit: MAX_INDEX });
        }
        serde_json::from_slice(&bytes)
            .map_err(|cause| Error::refused(path.display().to_string(), cause.to_string()))
    }

    fn write_index(&self, index: &Index) -> Result<()> {
        let bytes =
            serde_json::to_vec(index).map_err(|cause| Error::refused("index.json", cause.to_string()))?;
        self.write_whole("index.json", &bytes)
    }

    fn write_whole(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let mut file = NamedTempFile::new_in(&self.root).at("making a file in", &self.root)?;
        file.write_all(bytes).at("writing", &path)?;
        file.as_file().sync_all().at("flushing", &path)?;
        file.persist(&path).map_err(|failed| failed.error).at("naming", &path)?;
        Ok(())
    }
}

/// Images are not secret; the state directory's own mode restricts access.
fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
