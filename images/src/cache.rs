//! A cache of unpacked layers by diff ID: the lower directories of every overlay.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use attestations::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::descriptor::Descriptor;
use crate::error::{At, Error, Result};
use crate::image::Image;
use crate::layer::{LayerLimits, unpack};
use crate::store::Store;

/// Unpacked layers by diff ID. Safe for several processes at once; a layer appears only when it is complete.
#[derive(Debug, Clone)]
pub struct LayerCache {
    root: PathBuf,
    limits: LayerLimits,
}

impl LayerCache {
    /// Opens the cache at `root`, which must be on a file system that supports overlay lower directories.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).at("making", &root)?;
        Ok(Self { root, limits: LayerLimits::default() })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: LayerLimits) -> Self {
        Self { limits, ..self }
    }

    /// The directories of an image's layers, the topmost first, as overlayfs requires.
    ///
    /// # Errors
    /// When a layer is missing from the store, does not match its digests, or cannot be unpacked.
    pub fn lower_dirs(&self, store: &Store, image: &Image) -> Result<Vec<PathBuf>> {
        let layers = image.layers().iter().zip(image.diff_ids());
        let mut folders = layers
            .map(|(layer, diff_id)| self.unpacked(store, layer, diff_id))
            .collect::<Result<Vec<_>>>()?;
        folders.reverse();
        Ok(folders)
    }

    /// The directory of one layer, which is unpacked now if the cache does not have it.
    ///
    /// # Errors
    /// As [`LayerCache::lower_dirs`].
    pub fn unpacked(&self, store: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<PathBuf> {
        let place = self.root.join(diff_id.hex());
        if place.is_dir() {
            return Ok(place);
        }
        let _lock = self.lock(diff_id)?;
        if place.is_dir() {
            return Ok(place);
        }
        let making = self.root.join(format!(".{}", diff_id.hex()));
        clear(&making)?;
        fs::create_dir(&making).at("making", &making)?;
        set_mode(&making)?;
        let devices = match unpack(store, layer, diff_id, &making, self.limits) {
            Ok(devices) => devices,
            Err(error) => {
                clear(&making)?;
                return Err(error);
            }
        };
        if !devices.is_empty() {
            let list = self.list_of_devices(diff_id);
            fs::write(&list, devices.join("\n")).at("writing", &list)?;
        }
        // A layer with its final name must be complete even after a crash of the machine, so it is synced first.
        let folder = File::open(&making).at("opening", &making)?;
        rustix::fs::syncfs(&folder).at("flushing", &making)?;
        fs::rename(&making, &place).at("naming", &place)?;
        File::open(&self.root).and_then(|root| root.sync_all()).at("flushing", &self.root)?;
        Ok(place)
    }

    /// The device nodes of a layer that are left out of its directory, as text for people.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn devices_left_out(&self, diff_id: &Digest) -> Result<Vec<String>> {
        let list = self.list_of_devices(diff_id);
        match fs::read(&list) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(cause) => Err(cause).at("reading", &list),
        }
    }

    fn list_of_devices(&self, diff_id: &Digest) -> PathBuf {
        self.root.join(format!(".{}.devices", diff_id.hex()))
    }

    fn lock(&self, diff_id: &Digest) -> Result<File> {
        let path = self.root.join(format!(".{}.lock", diff_id.hex()));
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).at("opening", &path)?;
        flock(&file, FlockOperation::LockExclusive).at("locking", &path)?;
        Ok(file)
    }
}

fn clear(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { doing: "clearing", path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

/// Everybody may enter an image's root, whatever the umask.
fn set_mode(path: &Path) -> Result<()> {
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path, mode).at("setting the mode of", path)
}
