//! The same tree is the same layer: made in any order, on a disk, in memory, or through an overlay.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use images::Store;
use images::layer::{
    Compression, Layer, LayerStack, Limits, NewNode, NodeAttributes, NodeKind, Normaliser, StackedLayer,
    VirtualLayer, VirtualLayerBuilder, from_upper, unpack,
};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags};

const EPOCH: i64 = 1_700_000_000;
/// Names that other tools stumble over: each side of a whiteout's place, bytes that are no text, the longest there are.
const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b".a",
    b".wg",
    b".wi",
    b"a b\n",
    b"\xff\xfe",
    "\u{fc}".as_bytes(),
    b"-",
    b"a.b",
    &[b'x'; 255],
    &[0xe4; 120],
];

type Name = Vec<u8>;

#[derive(Debug, Clone)]
enum Item {
    /// A file by these names, with content at an offset: what is before is a hole.
    File {
        others: BTreeSet<usize>,
        hole: u64,
        content: Vec<u8>,
    },
    Symlink(Name),
    Fifo,
    /// Something of a lower layer was deleted.
    Whiteout,
    /// A directory; opaque if one of a lower layer was deleted and made anew.
    Directory {
        opaque: bool,
    },
}

#[derive(Debug, Clone)]
struct Planned {
    item: Item,
    mode: u32,
    owner: (u32, u32),
    time: i64,
    attribute: Option<Vec<u8>>,
}

/// What lies where; all that is above is a directory.
type Tree = BTreeMap<Vec<usize>, Planned>;

fn tree() -> impl Strategy<Value = Tree> {
    let path = prop::collection::vec(0..NAMES.len(), 1..4);
    let content = prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..1500),
        1 => Just(vec![7; 300_000]),
    ];
    let item = prop_oneof![
        5 => (prop::collection::btree_set(0..NAMES.len(), 0..3), prop_oneof![4 => Just(0), 1 => 0_u64..200_000], content)
            .prop_map(|(others, hole, content)| Item::File { others, hole, content }),
        2 => prop::collection::vec(1_u8.., 1..150).prop_map(Item::Symlink),
        1 => Just(Item::Fifo),
        2 => Just(Item::Whiteout),
        3 => any::<bool>().prop_map(|opaque| Item::Directory { opaque }),
    ];
    let owner = prop_oneof![Just((0, 0)), Just((1000, 5)), Just((3_000_000, 3_000_001))];
    let planned = (
        item,
        0_u32..0o10000,
        owner,
        -5_i64..2 * EPOCH,
        prop::option::of(prop::collection::vec(any::<u8>(), 1..40)),
    );
    let planned = planned.prop_map(|(item, mode, owner, time, attribute)| Planned {
        item,
        mode,
        owner,
        time,
        attribute,
    });
    prop::collection::vec((path, planned), 1..25).prop_map(|items| {
        let mut tree = Tree::new();
        for (path, planned) in items {
            let above = (1..path.len()).any(|end| {
                tree.get(&path[..end]).is_some_and(|it| !matches!(it.item, Item::Directory { .. }))
            });
            let below = !matches!(planned.item, Item::Directory { .. })
                && tree.keys().any(|it| it.starts_with(&path));
            if !above && !below {
                tree.entry(path).or_insert(planned);
            }
        }
        // In a directory that hides all that is below, nothing of it can be deleted.
        let hiding: Vec<_> =
            tree.iter().filter(|(_, it)| matches!(it.item, Item::Directory { opaque: true })).collect();
        let hiding: Vec<Vec<usize>> = hiding.into_iter().map(|(path, _)| path.clone()).collect();
        tree.retain(|path, it| {
            !matches!(it.item, Item::Whiteout) || !hiding.iter().any(|above| path.starts_with(above))
        });
        // Every directory on the way is planned too, so that its mode and time are known.
        for path in tree.keys().cloned().collect::<Vec<_>>() {
            for end in 1..path.len() {
                let plain = Planned {
                    item: Item::Directory { opaque: false },
                    mode: 0o755,
                    owner: (0, 0),
                    time: 1000,
                    attribute: None,
                };
                tree.entry(path[..end].to_vec()).or_insert(plain);
            }
        }
        tree
    })
}

fn place(root: &Path, path: &[usize]) -> PathBuf {
    path.iter().fold(root.to_owned(), |place, name| place.join(OsStr::from_bytes(NAMES[*name])))
}

/// The names of a file beside its first, which are not taken by others.
fn others(tree: &Tree, path: &[usize], others: &BTreeSet<usize>) -> Vec<Vec<usize>> {
    let sibling = |name: &usize| [&path[..path.len() - 1], &[*name]].concat();
    // Two files may want one name: the first in order has it.
    let free = |it: &Vec<usize>| {
        !tree.contains_key(it)
            && !tree.iter().take_while(|(path_, _)| path_.as_slice() < path).any(|(path_, planned)| {
                matches!(&planned.item, Item::File { others, .. }
                    if path_[..path_.len() - 1] == path[..path.len() - 1] && others.contains(&it[it.len() - 1]))
            })
    };
    others.iter().map(sibling).filter(free).collect()
}

/// What a lower layer must have so that a step can delete it.
fn plant_lower(tree: &Tree, lower: &Path) {
    for (path, planned) in tree {
        match planned.item {
            Item::Whiteout => {
                fs::create_dir_all(place(lower, path).parent().unwrap()).unwrap();
                fs::write(place(lower, path), "old").unwrap();
            }
            Item::Directory { opaque: true } => {
                fs::create_dir_all(place(lower, path).join("old")).unwrap();
            }
            _ => {}
        }
    }
}

/// Makes the tree, its parts in the order that `order` shuffles them into. In an overlay what is to be deleted is
/// there.
fn plant(tree: &Tree, root: &Path, order: &[u32], overlay: bool) {
    if overlay {
        for (path, planned) in tree {
            if matches!(planned.item, Item::Directory { opaque: true }) && place(root, path).exists() {
                fs::remove_dir_all(place(root, path)).unwrap();
            }
        }
    }
    let mut parts: Vec<(Vec<usize>, &Vec<usize>, &Planned)> = Vec::new();
    for (path, planned) in tree {
        parts.push((path.clone(), path, planned));
        if let Item::File { others: names, .. } = &planned.item {
            parts.extend(others(tree, path, names).into_iter().map(|other| (other, path, planned)));
        }
    }
    let mut keyed: Vec<_> =
        parts.iter().enumerate().map(|(at, part)| (order[at % order.len()], at, part)).collect();
    keyed.sort_by_key(|(key, at, _)| (*key, *at));
    let mut made: BTreeMap<&Vec<usize>, PathBuf> = BTreeMap::new();
    for (_, _, (name, path, planned)) in &keyed {
        let here = place(root, name);
        fs::create_dir_all(here.parent().unwrap()).unwrap();
        match &planned.item {
            Item::Directory { .. } => fs::create_dir_all(&here).unwrap(),
            Item::Symlink(target) => symlink(OsStr::from_bytes(target), &here).unwrap(),
            Item::Fifo => rustix::fs::mknodat(CWD, &here, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            Item::Whiteout if overlay && here.exists() => fs::remove_file(&here).unwrap(),
            Item::Whiteout if overlay => {}
            Item::Whiteout => {
                rustix::fs::mknodat(CWD, &here, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
            }
            Item::File { hole, content, .. } => match made.get(path) {
                Some(first) => fs::hard_link(first, &here).unwrap(),
                None => {
                    let file = File::create_new(&here).unwrap();
                    file.write_all_at(content, *hole).unwrap();
                    made.insert(path, here);
                }
            },
        }
    }
    // Attributes, and times at last: from the leaves to the root.
    let mut settled: Vec<_> = keyed.iter().filter(|(_, _, (name, path, _))| name == *path).collect();
    settled.sort_by_key(|(_, _, (name, _, _))| std::cmp::Reverse(name.len()));
    for (_, _, (_, path, planned)) in settled {
        attributes(&place(root, path), planned, overlay);
    }
}

fn attributes(here: &Path, planned: &Planned, overlay: bool) {
    if matches!(planned.item, Item::Whiteout) {
        return;
    }
    lchown(here, Some(planned.owner.0), Some(planned.owner.1)).unwrap();
    let link = matches!(planned.item, Item::Symlink(_));
    if !link {
        fs::set_permissions(here, fs::Permissions::from_mode(planned.mode)).unwrap();
    }
    if let Some(value) = &planned.attribute {
        rustix::fs::lsetxattr(here, "trusted.test", value, XattrFlags::empty()).unwrap();
    }
    if matches!(planned.item, Item::File { .. }) && planned.mode & 1 == 1 {
        rustix::fs::lsetxattr(here, "security.capability", &capability(), XattrFlags::empty()).unwrap();
    }
    if matches!(planned.item, Item::Directory { opaque: true }) && !overlay {
        rustix::fs::lsetxattr(here, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    }
    let time = Timespec { tv_sec: planned.time, tv_nsec: 123 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, here, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// cap_net_raw=ep, as `setcap` writes it.
fn capability() -> Vec<u8> {
    [&[1, 0, 0, 2, 0, 0x20, 0, 0][..], &[0; 12]].concat()
}

/// Draws the tree over what lies below.
fn draw<'a>(tree: &Tree, below: &'a LayerStack) -> VirtualLayerBuilder<'a, Vec<u8>> {
    let mut builder = VirtualLayerBuilder::over(below, EPOCH);
    for (path, planned) in tree {
        let name = drawn_name(path);
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
                builder.link(&drawn_name(&other), &name, |_| panic!("its layer is virtual")).unwrap();
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
        builder.dress(&drawn_name(path), NodeAttributes { mode, owner, mtime, xattrs }).unwrap();
    }
    builder
}

fn drawn_name(path: &[usize]) -> Name {
    path.iter().map(|name| NAMES[*name]).collect::<Vec<_>>().join(&b'/')
}

/// The layer of a builder. What it is unpacked lies in `unpacked` then.
fn drawn_layer(
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
        unpack(&store, &layer.descriptor, &layer.diff_id, unpacked, Limits::default()).unwrap();
        (layer, bytes)
    });
    (layer, virtual_layer)
}

/// What is found at each of these paths.
fn found(below: &LayerStack, paths: &BTreeSet<Name>) -> Vec<String> {
    let told = |path: &Name| {
        let Some(found) = below.find(path).unwrap() else {
            return format!("{}: nothing", path.escape_ascii());
        };
        let node = &found.node;
        // What a directory that is only passed through has for a time is not told by the layer.
        let time = (node.kind != NodeKind::Directory).then_some(node.mtime);
        let target = (node.kind == NodeKind::Link).then(|| found.target().unwrap());
        let (kind, mode, owner) = (node.kind, node.mode, node.owner);
        format!(
            "{}: {kind:?} {mode:o} {owner:?} {time:?} {target:?} {:?}",
            path.escape_ascii(),
            found.xattrs()
        )
    };
    paths.iter().map(told).collect()
}

/// An overlay, taken down when it is dropped.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(folder: &Path) -> rustix::io::Result<Self> {
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
fn layer(upper: &Path, lowers: &[PathBuf]) -> Option<(Layer, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let made = from_upper(&store, upper, lowers, EPOCH, Compression::None, Normaliser::Version1).unwrap();
    let unpacked = upper.with_extension("unpacked");
    fs::create_dir(&unpacked).unwrap();
    made.layer.map(|packing| {
        let layer = packing.layer().unwrap();
        let bytes = store.read(&layer.descriptor, 1 << 30).unwrap();
        unpack(&store, &layer.descriptor, &layer.diff_id, &unpacked, Limits::default()).unwrap();
        (layer, bytes)
    })
}

/// What the next step sees with `top` above `lower`: all that can be told of each path.
fn seen_on(top: &str, folder: &Path) -> BTreeMap<PathBuf, String> {
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
            seen.insert(path, told(&place, &metadata));
        }
    }
    seen
}

fn told(place: &Path, metadata: &fs::Metadata) -> String {
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
            drop(overlay);
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
    fn a_tree_that_is_drawn_is_the_layer_of_one_that_was_made(
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
        let (virtual_layer, names_of_it) = drawn_layer(draw(&tree, &below), &unpacked);
        let overlay = Overlay::mount(folder.path()).unwrap();
        plant(&tree, &overlay.0, &order, true);
        drop(overlay);
        let made = layer(&folder.path().join("upper"), std::slice::from_ref(&lower));
        prop_assert_eq!(names(&virtual_layer), names(&made));
        prop_assert!(virtual_layer == made, "the entries are the same, their headers or contents are not");

        // Who looks at it sees the same before it lies anywhere.
        let on_disk = LayerStack::new(vec![StackedLayer::Folder(unpacked), StackedLayer::Folder(lower.clone())]);
        let in_mind = LayerStack::new(vec![StackedLayer::Virtual(Arc::new(names_of_it)), StackedLayer::Folder(lower)]);
        let mut paths: BTreeSet<Name> = tree.keys().chain(second.keys()).map(|path| drawn_name(path)).collect();
        paths.extend(paths.clone().into_iter().map(|path| [&path[..], b"/old"].concat()));
        prop_assert_eq!(found(&on_disk, &paths), found(&in_mind, &paths));
    }
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
