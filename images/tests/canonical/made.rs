//! Layers of what was made, and what a folder looks like.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use images::Store;
use images::layer::{Compression, Layer, LayerLimits, Normaliser, from_upper, unpack};
use rustix::mount::{MountFlags, UnmountFlags};

use super::trees::EPOCH;

/// An overlay, taken down when it is dropped.
pub(crate) struct Overlay(pub(crate) PathBuf);

impl Overlay {
    pub(crate) fn mount(folder: &Path) -> rustix::io::Result<Self> {
        let names = ["lower", "upper", "work", "merged"].map(|name| folder.join(name));
        names.iter().for_each(|name| fs::create_dir_all(name).unwrap());
        let [lower, upper, work, merged] = names;
        let data = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=off",
            lower.display(),
            upper.display(),
            work.display()
        );
        rustix::mount::mount(
            "overlay",
            &merged,
            "overlay",
            MountFlags::empty(),
            &*std::ffi::CString::new(data).unwrap(),
        )?;
        Ok(Self(merged))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// The layer of an upper directory. What it is unpacked lies beside it then, as `….unpacked`.
pub(crate) fn layer(upper: &Path, lowers: &[PathBuf]) -> Option<(Layer, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let made = from_upper(&store, upper, lowers, EPOCH, Compression::None, Normaliser::Version1).unwrap();
    let unpacked = upper.with_extension("unpacked");
    fs::create_dir(&unpacked).unwrap();
    made.layer.map(|packing| {
        let layer = packing.layer().unwrap();
        let bytes = store.read(&layer.descriptor, 1 << 30).unwrap();
        unpack(&store, &layer.descriptor, &layer.diff_id, &unpacked, LayerLimits::default()).unwrap();
        (layer, bytes)
    })
}

/// What the next step sees with `top` above `lower`: all that can be described of each path.
pub(crate) fn seen_on(top: &str, folder: &Path) -> BTreeMap<PathBuf, String> {
    let merged = folder.join(format!("seen-{top}"));
    fs::create_dir(&merged).unwrap();
    let data = format!(
        "lowerdir={}:{},index=off,metacopy=off,redirect_dir=off",
        folder.join(top).display(),
        folder.join("lower").display()
    );
    let data = std::ffi::CString::new(data).unwrap();
    rustix::mount::mount("overlay", &merged, "overlay", MountFlags::RDONLY, &*data).unwrap();
    let overlay = Overlay(merged);
    let mut seen = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let place = overlay.0.join(&path);
        let metadata = fs::symlink_metadata(&place).unwrap();
        if metadata.is_dir() {
            left.extend(fs::read_dir(&place).unwrap().map(|it| path.join(it.unwrap().file_name())));
        }
        if !path.as_os_str().is_empty() {
            seen.insert(path, described(&place, &metadata));
        }
    }
    seen
}

pub(crate) fn described(place: &Path, metadata: &fs::Metadata) -> String {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(place, &mut names[..]).unwrap();
    let mut attributes: Vec<_> =
        names[..length].split(|byte| *byte == 0).filter(|it| !it.is_empty()).collect();
    attributes.sort();
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let name = std::ffi::CString::new(name).unwrap();
        let length = rustix::fs::lgetxattr(place, &name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    let values: Vec<_> =
        attributes.iter().map(|name| (name.escape_ascii().to_string(), value(name))).collect();
    let content = metadata.is_file().then(|| attestations::Digest::of(&fs::read(place).unwrap()));
    let link = metadata.is_symlink().then(|| fs::read_link(place).unwrap());
    let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
    let size = if metadata.is_dir() { 0 } else { metadata.len() };
    format!(
        "{:o} {}:{} {}.{} {size} {links} {content:?} {link:?} {values:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec()
    )
}
