//! Walks the tree that a stack of layers shows, without a mount: each file that a container would see, once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::layer_stack::{LayerStack, StackedLayer};
use super::virtual_layer::{Origin, ROOT, VirtualLayer, What};
use super::xattrs::Attributes;
use crate::error::{At, Error, Result};

/// A regular file of the tree.
#[derive(Debug, Clone, Copy)]
pub struct TreeFile<'a> {
    /// Its path, as bytes without a leading slash.
    pub path: &'a [u8],
    /// Its size in bytes.
    pub size: u64,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// The layer that it is from, counted from the top.
    pub layer: usize,
    /// Where its content is.
    pub place: FilePlace<'a>,
}

/// Where the content of a file is.
#[derive(Debug, Clone, Copy)]
pub enum FilePlace<'a> {
    /// In a folder.
    Disk(&'a Path),
    /// In a layer that is not unpacked: only its first bytes are at hand, zeros where it has fewer.
    Virtual([u8; 4]),
}

/// A directory of one layer.
#[derive(Clone)]
enum Part<'s> {
    Disk(PathBuf),
    Virtual(&'s VirtualLayer, usize),
}

/// A directory of the tree, with the layers that show something in it, the topmost first.
struct Merged<'s> {
    path: Vec<u8>,
    parts: Vec<(usize, Part<'s>)>,
}

/// What a name stands for, by the layers looked at so far.
enum Named<'s> {
    /// A whiteout, or anything that is neither a file nor a directory.
    Nothing,
    File {
        size: u64,
        mode: u32,
        layer: usize,
        place: Held,
    },
    Directory {
        parts: Vec<(usize, Part<'s>)>,
        hides: bool,
    },
}

enum Held {
    Disk(PathBuf),
    Virtual([u8; 4]),
}

impl LayerStack {
    /// Calls `visit` with every regular file of the tree. Symbolic links are not followed. Memory grows with the names
    /// in one directory, and with the directories that are still to be looked into.
    ///
    /// # Errors
    /// When a directory cannot be read; those of `visit`.
    pub fn each_file<E: From<Error>>(
        &self,
        visit: &mut dyn FnMut(&TreeFile<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let parts = self.layers().iter().map(|layer| match layer {
            StackedLayer::Folder(folder) => Part::Disk(folder.clone()),
            StackedLayer::Virtual(layer) => Part::Virtual(layer, ROOT),
        });
        let parts = parts.enumerate().collect();
        let mut left = vec![Merged { path: Vec::new(), parts }];
        while let Some(directory) = left.pop() {
            for (name, named) in directory.names()? {
                let path = match directory.path.is_empty() {
                    true => name,
                    false => [&directory.path[..], b"/", &name].concat(),
                };
                match named {
                    Named::Nothing => {}
                    Named::Directory { parts, .. } => left.push(Merged { path, parts }),
                    Named::File { size, mode, layer, place } => {
                        let place = match &place {
                            Held::Disk(place) => FilePlace::Disk(place),
                            Held::Virtual(start) => FilePlace::Virtual(*start),
                        };
                        visit(&TreeFile { path: &path, size, mode, layer, place })?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'s> Merged<'s> {
    /// Its names, each with what the topmost layer that has it says, and of directories also what lies below.
    fn names(&self) -> Result<BTreeMap<Vec<u8>, Named<'s>>> {
        let mut names: BTreeMap<Vec<u8>, Named<'s>> = BTreeMap::new();
        for (layer, part) in &self.parts {
            for (name, found) in part.names(*layer)? {
                match names.get_mut(&name) {
                    None => drop(names.insert(name, found)),
                    Some(Named::Directory { parts, hides }) if !*hides => match found {
                        Named::Directory { parts: below, hides: also } => {
                            parts.extend(below);
                            *hides = also;
                        }
                        Named::Nothing | Named::File { .. } => *hides = true,
                    },
                    Some(_) => {}
                }
            }
        }
        Ok(names)
    }
}

impl<'s> Part<'s> {
    fn names(&self, layer: usize) -> Result<Vec<(Vec<u8>, Named<'s>)>> {
        match self {
            Part::Disk(folder) => on_disk(folder, layer),
            Part::Virtual(virtual_layer, at) => Ok(virtual_names(virtual_layer, *at, layer)),
        }
    }
}

fn on_disk<'s>(folder: &Path, layer: usize) -> Result<Vec<(Vec<u8>, Named<'s>)>> {
    let mut names = Vec::new();
    for child in fs::read_dir(folder).at("reading", folder)? {
        let child = child.at("reading", folder)?;
        let place = folder.join(child.file_name());
        let kind = child.file_type().at("reading", &place)?;
        let named = if kind.is_dir() {
            let hides = Attributes::of(&place)?.opaque();
            Named::Directory { parts: vec![(layer, Part::Disk(place))], hides }
        } else if kind.is_file() {
            let metadata = child.metadata().at("reading", &place)?;
            let (size, mode) = (metadata.len(), metadata.mode() & 0o7777);
            Named::File { size, mode, layer, place: Held::Disk(place) }
        } else {
            Named::Nothing
        };
        names.push((child.file_name().into_vec(), named));
    }
    Ok(names)
}

fn virtual_names<'s>(layer: &'s VirtualLayer, at: usize, number: usize) -> Vec<(Vec<u8>, Named<'s>)> {
    let What::Directory { children, .. } = &layer.inodes[at].what else { return Vec::new() };
    let named = |child: usize| {
        let inode = &layer.inodes[child];
        match &inode.what {
            What::Directory { origin, .. } => Named::Directory {
                parts: vec![(number, Part::Virtual(layer, child))],
                hides: !matches!(origin, Origin::Over { .. }),
            },
            What::File(content) => {
                let place = Held::Virtual(content.start);
                Named::File { size: content.size, mode: inode.mode, layer: number, place }
            }
            What::Link(_) | What::Fifo => Named::Nothing,
        }
    };
    children.iter().map(|(name, child)| (name.clone(), named(*child))).collect()
}
