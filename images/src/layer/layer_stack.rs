//! A layer stack: the layers below a step, each an overlayfs directory or virtual. Paths are looked up with
//! overlayfs's rules, without a mount.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::node::{Node, NodeKind, Seen};
use super::virtual_layer::VirtualLayer;
use super::xattrs::Attributes;
use crate::error::{At, Result};

/// One layer of a stack.
#[derive(Debug, Clone)]
pub enum StackedLayer {
    /// A directory in overlayfs's own form.
    Folder(PathBuf),
    /// A layer that is not unpacked in a directory.
    Virtual(Arc<VirtualLayer>),
}

/// A stack of layers, the topmost first. Paths are bytes without a leading slash, and no symbolic link in them is
/// followed.
#[derive(Debug, Clone, Default)]
pub struct LayerStack(Vec<StackedLayer>);

/// An entry found in a layer.
#[derive(Debug)]
pub struct FoundNode {
    /// Its kind and attributes.
    pub node: Node,
    place: ContentPlace,
}

#[derive(Debug)]
enum ContentPlace {
    Root,
    Disk(PathBuf),
    Virtual(Arc<VirtualLayer>, usize),
}

impl LayerStack {
    /// A stack of these layers, the topmost first.
    pub fn new(layers: Vec<StackedLayer>) -> Self {
        Self(layers)
    }

    pub(super) fn layers(&self) -> &[StackedLayer] {
        &self.0
    }

    /// The entry that a step on this stack would see at `path`.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn find(&self, path: &[u8]) -> Result<Option<FoundNode>> {
        if path.is_empty() {
            let node = Node { kind: NodeKind::Directory, mode: 0o755, owner: (0, 0), mtime: 0, shared: None };
            return Ok(Some(FoundNode { node, place: ContentPlace::Root }));
        }
        for layer in &self.0 {
            let seen = match layer {
                StackedLayer::Folder(folder) => match look(folder, path)? {
                    Seen::This((place, metadata)) => {
                        Seen::This(FoundNode { node: Node::of(&metadata), place: ContentPlace::Disk(place) })
                    }
                    Seen::Nothing => Seen::Nothing,
                    Seen::Through => Seen::Through,
                },
                StackedLayer::Virtual(virtual_layer) => match virtual_layer.look(path) {
                    Seen::This(at) => Seen::This(FoundNode {
                        node: virtual_layer.node(at),
                        place: ContentPlace::Virtual(virtual_layer.clone(), at),
                    }),
                    Seen::Nothing => Seen::Nothing,
                    Seen::Through => Seen::Through,
                },
            };
            match seen {
                Seen::Through => {}
                Seen::Nothing => return Ok(None),
                Seen::This(found) => return Ok(Some(found)),
            }
        }
        Ok(None)
    }
}

impl FoundNode {
    /// A symbolic link's target; empty for other entries.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn target(&self) -> Result<Vec<u8>> {
        match &self.place {
            ContentPlace::Disk(place) => {
                Ok(fs::read_link(place).at("reading the link", place)?.into_os_string().into_vec())
            }
            ContentPlace::Virtual(virtual_layer, at) => Ok(virtual_layer.target(*at).to_vec()),
            ContentPlace::Root => Ok(Vec::new()),
        }
    }

    /// Its extended attributes, without overlayfs's own.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn xattrs(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        match &self.place {
            ContentPlace::Disk(place) => Ok(Attributes::of(place)?.own),
            ContentPlace::Virtual(virtual_layer, at) => Ok(virtual_layer.xattrs(*at).clone()),
            ContentPlace::Root => Ok(BTreeMap::new()),
        }
    }

    /// Its path on disk; none in a virtual layer.
    pub fn on_disk(&self) -> Option<&Path> {
        match &self.place {
            ContentPlace::Disk(place) => Some(place),
            ContentPlace::Virtual(..) | ContentPlace::Root => None,
        }
    }
}

/// The entry at `path` in a stack of directories, the topmost first, as the step saw it when it began.
pub(super) fn on_disk(folders: &[PathBuf], path: &[u8]) -> Result<Option<(PathBuf, Metadata)>> {
    for folder in folders {
        match look(folder, path)? {
            Seen::Through => {}
            Seen::Nothing => return Ok(None),
            Seen::This(found) => return Ok(Some(found)),
        }
    }
    Ok(None)
}

fn look(folder: &Path, path: &[u8]) -> Result<Seen<(PathBuf, Metadata)>> {
    let mut place = folder.to_owned();
    let mut found = None;
    let mut is_opaque = false;
    for name in path.split(|byte| *byte == b'/') {
        if let Some(above) = &found
            && !Metadata::is_dir(above)
        {
            return Ok(Seen::Nothing);
        }
        place.push(OsStr::from_bytes(name));
        match fs::symlink_metadata(&place) {
            Ok(metadata) => {
                let is_whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
                if is_whiteout {
                    return Ok(Seen::Nothing);
                }
                is_opaque |= metadata.is_dir() && Attributes::of(&place)?.opaque();
                found = Some(metadata);
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Ok(if is_opaque { Seen::Nothing } else { Seen::Through });
            }
            Err(cause) => return Err(cause).at("reading", &place),
        }
    }
    Ok(found.map_or(Seen::Through, |metadata| Seen::This((place, metadata))))
}
