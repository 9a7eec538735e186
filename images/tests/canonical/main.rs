//! The same tree is the same layer: made in any order, on a disk, in memory, or through an overlay.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod made;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use images::Store;
use images::layer::{
    Compression, Layer, LayerLimits, LayerStack, NewNode, NodeAttributes, NodeKind, Normaliser, StackedLayer,
    TreeFile, VirtualLayer, VirtualLayerBuilder, unpack,
};
use made::{Overlay, layer, seen_on};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};
use trees::{EPOCH, Item, NAMES, Name, Tree, capability, others, plant, plant_lower, tree};

/// Draws the tree over what lies below.
fn virtual_tree<'a>(tree: &Tree, below: &'a LayerStack) -> VirtualLayerBuilder<'a, Vec<u8>> {
    let mut builder = VirtualLayerBuilder::over(below, EPOCH);
    for (path, planned) in tree {
        let name = path_bytes(path);
        let new = match &planned.item {
            Item::Directory { opaque: false } if builder.node(&name).unwrap().is_some() => continue,
            Item::Directory { .. } => NewNode::Directory,
            Item::Symlink(target) => NewNode::Link(target.clone()),
            Item::Fifo => NewNode::Fifo,
            Item::File { hole, content, .. } => {
                let hole = usize::try_from(*hole).unwrap();
                let hole = if content.is_empty() { 0 } else { hole };
                NewNode::File([vec![0; hole], content.clone()].concat())
            }
            Item::Whiteout => panic!("a builder deletes nothing"),
        };
        builder.put(&name, new, NodeAttributes::default()).unwrap();
        if let Item::File { others: names, .. } = &planned.item {
            for other in others(tree, path, names) {
                builder.link(&path_bytes(&other), &name, |_| panic!("its layer is virtual")).unwrap();
            }
        }
    }
    for (path, planned) in tree {
        let mut xattrs = BTreeMap::new();
        if let Some(value) = &planned.attribute {
            xattrs.insert(b"trusted.test".to_vec(), value.clone());
        }
        if matches!(planned.item, Item::File { .. }) && planned.mode & 1 == 1 {
            xattrs.insert(b"security.capability".to_vec(), capability());
        }
        let (mode, owner, mtime) = (Some(planned.mode), Some(planned.owner), Some(planned.time));
        builder.dress(&path_bytes(path), NodeAttributes { mode, owner, mtime, xattrs }).unwrap();
    }
    builder
}

fn path_bytes(path: &[usize]) -> Name {
    path.iter().map(|name| NAMES[*name]).collect::<Vec<_>>().join(&b'/')
}

/// The layer of a builder. What it is unpacked lies in `unpacked` then.
fn virtual_layer_of(
    builder: VirtualLayerBuilder<'_, Vec<u8>>,
    unpacked: &Path,
) -> (Option<(Layer, Vec<u8>)>, VirtualLayer) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut open = |content: Vec<u8>| -> Result<(u64, Box<dyn Read>), images::Error> {
        Ok((content.len() as u64, Box::new(Cursor::new(content))))
    };
    let (written, virtual_layer) =
        builder.write(&store, Compression::None, Normaliser::Version1, &mut open).unwrap();
    fs::create_dir(unpacked).unwrap();
    let layer = written.layer.map(|packing| {
        let layer = packing.layer().unwrap();
        let bytes = store.read(&layer.descriptor, 1 << 30).unwrap();
        unpack(&store, &layer.descriptor, &layer.diff_id, unpacked, LayerLimits::default()).unwrap();
        (layer, bytes)
    });
    (layer, virtual_layer)
}

/// What is found at each of these paths.
fn found(below: &LayerStack, paths: &BTreeSet<Name>) -> Vec<String> {
    let described = |path: &Name| {
        let Some(found) = below.find(path).unwrap() else {
            return format!("{}: nothing", path.escape_ascii());
        };
        let node = &found.node;
        // What a directory that is only passed through has for a time is not described by the layer.
        let time = (node.kind != NodeKind::Directory).then_some(node.mtime);
        let target = (node.kind == NodeKind::Link).then(|| found.target().unwrap());
        let (kind, mode, owner) = (node.kind, node.mode, node.owner);
        format!(
            "{}: {kind:?} {mode:o} {owner:?} {time:?} {target:?} {:?}",
            path.escape_ascii(),
            found.xattrs()
        )
    };
    paths.iter().map(described).collect()
}

/// Whether the machine cannot make such trees, recorded as a skip.
#[track_caller]
fn skip() -> bool {
    !testing::has_root("owners, mounts")
}

/// A disk and a memory file system, if the machine has both.
fn places() -> Vec<&'static Path> {
    let memory = rustix::fs::statfs("/dev/shm").is_ok_and(|it| it.f_type == 0x0102_1994);
    if !memory {
        testing::skip("canonical layers on tmpfs: /dev/shm is none");
    }
    [Some(Path::new("/var/tmp")), memory.then_some(Path::new("/dev/shm"))].into_iter().flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_one_layer_wherever_and_in_whatever_order_it_was_made(
        tree in tree(),
        orders in prop::collection::vec(prop::collection::vec(any::<u32>(), 40), 3),
    ) {
        if skip() {
            return Ok(());
        }
        let mut layers = Vec::new();
        for at in places() {
            for order in &orders[..2] {
                let folder = tempfile::tempdir_in(at).unwrap();
                let (upper, lower) = (folder.path().join("upper"), folder.path().join("lower"));
                [&upper, &lower].iter().for_each(|it| fs::create_dir(it).unwrap());
                plant_lower(&tree, &lower);
                plant(&tree, &upper, order, false);
                layers.push(layer(&upper, &[lower]));
            }
        }
        for at in places() {
            let folder = tempfile::tempdir_in(at).unwrap();
            let lower = folder.path().join("lower");
            fs::create_dir(&lower).unwrap();
            plant_lower(&tree, &lower);
            let overlay = Overlay::mount(folder.path()).unwrap();
            plant(&tree, &overlay.0, &orders[2], true);
            let mounted = files(&LayerStack::new(vec![StackedLayer::Folder(overlay.0.clone())]));
            drop(overlay);
            let parts = [folder.path().join("upper"), lower.clone()].map(StackedLayer::Folder);
            prop_assert_eq!(files(&LayerStack::new(parts.to_vec())), mounted);
            layers.push(layer(&folder.path().join("upper"), &[lower]));
            prop_assert_eq!(seen_on("upper", folder.path()), seen_on("upper.unpacked", folder.path()));
        }
        for (at, other) in layers.iter().enumerate().skip(1) {
            prop_assert_eq!(names(&layers[0]), names(other), "{}", at);
            prop_assert!(&layers[0] == other, "{}: the entries are the same, their headers or contents are not", at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_virtual_layer_is_the_layer_of_the_same_tree_on_disk(
        mut tree in tree(),
        second in tree(),
        order in prop::collection::vec(any::<u32>(), 40),
    ) {
        if skip() {
            return Ok(());
        }
        tree.retain(|_, planned| !matches!(planned.item, Item::Whiteout));
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let lower = folder.path().join("lower");
        fs::create_dir(&lower).unwrap();
        plant_lower(&tree, &lower);
        let below = LayerStack::new(vec![StackedLayer::Folder(lower.clone())]);
        let unpacked = folder.path().join("virtual_layer");
        let (virtual_layer, names_of_it) = virtual_layer_of(virtual_tree(&tree, &below), &unpacked);
        let overlay = Overlay::mount(folder.path()).unwrap();
        plant(&tree, &overlay.0, &order, true);
        drop(overlay);
        let made = layer(&folder.path().join("upper"), std::slice::from_ref(&lower));
        prop_assert_eq!(names(&virtual_layer), names(&made));
        prop_assert!(virtual_layer == made, "the entries are the same, their headers or contents are not");

        // Who looks at it sees the same before it lies anywhere.
        let on_disk = LayerStack::new(vec![StackedLayer::Folder(unpacked), StackedLayer::Folder(lower.clone())]);
        let unwritten = LayerStack::new(vec![StackedLayer::Virtual(Arc::new(names_of_it)), StackedLayer::Folder(lower)]);
        let mut paths: BTreeSet<Name> = tree.keys().chain(second.keys()).map(|path| path_bytes(path)).collect();
        paths.extend(paths.clone().into_iter().map(|path| [&path[..], b"/old"].concat()));
        prop_assert_eq!(found(&on_disk, &paths), found(&unwritten, &paths));
        prop_assert_eq!(files(&on_disk), files(&unwritten));
    }
}

/// Every file of a tree, with size and mode.
fn files(layer_stack: &LayerStack) -> BTreeSet<(Name, u64, u32)> {
    let mut files = BTreeSet::new();
    let mut add = |file: &TreeFile<'_>| {
        assert!(files.insert((file.path.to_vec(), file.size, file.mode)), "each file is visited once");
        Ok::<_, images::Error>(())
    };
    layer_stack.each_file(&mut add).unwrap();
    files
}

fn names(layer: &Option<(Layer, Vec<u8>)>) -> Vec<String> {
    let Some((_, bytes)) = layer else { return Vec::new() };
    let mut archive = tar::Archive::new(&bytes[..]);
    let shown = |entry: tar::Entry<'_, &[u8]>| {
        let header = entry.header();
        let link = entry.link_name_bytes().map(|it| it.into_owned()).unwrap_or_default();
        format!(
            "{} {:?} {:o} {}:{} {} {} -> {}",
            entry.path_bytes().escape_ascii(),
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            entry.size(),
            link.escape_ascii()
        )
    };
    archive.entries().unwrap().map(|entry| shown(entry.unwrap())).collect()
}

/// What a step deleted and made anew is in the layer, also where it looks like what lay there before.
#[test]
fn directory_made_anew_is_not_taken_for_the_one_below() {
    if skip() {
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let lower = folder.path().join("lower");
    fs::create_dir_all(lower.join("a/b/c")).unwrap();
    let overlay = Overlay::mount(folder.path()).unwrap();
    fs::remove_dir_all(overlay.0.join("a")).unwrap();
    fs::create_dir_all(overlay.0.join("a/b")).unwrap();
    fs::create_dir_all(overlay.0.join("new/one")).unwrap();
    drop(overlay);
    let made = layer(&folder.path().join("upper"), std::slice::from_ref(&lower));
    let found: Vec<_> = names(&made).iter().map(|it| it.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(found, ["a/", "a/.wh..wh..opq", "a/b/", "new/", "new/one/"]);

    // The same in two steps: the whiteout lies in a layer between.
    let between = folder.path().join("between");
    fs::create_dir_all(&between).unwrap();
    rustix::fs::mknodat(CWD, between.join("a"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let upper = folder.path().join("second");
    fs::create_dir_all(upper.join("a/b")).unwrap();
    let made = layer(&upper, &[between, lower]);
    let found: Vec<_> = names(&made).iter().map(|it| it.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(found, ["a/", "a/b/"]);
}
