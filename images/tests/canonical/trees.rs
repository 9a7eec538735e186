//! Trees of every kind of entry, and how they are made in a folder or through an overlay.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

pub(crate) const EPOCH: i64 = 1_700_000_000;
/// Names that other tools stumble over: each side of a whiteout's place, bytes that are no text, the longest there are.
pub(crate) const NAMES: [&[u8]; 12] = [
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

pub(crate) type Name = Vec<u8>;

#[derive(Debug, Clone)]
pub(crate) enum Item {
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
pub(crate) struct Planned {
    pub(crate) item: Item,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) time: i64,
    pub(crate) attribute: Option<Vec<u8>>,
}

/// What lies where; all that is above is a directory.
pub(crate) type Tree = BTreeMap<Vec<usize>, Planned>;

pub(crate) fn tree() -> impl Strategy<Value = Tree> {
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

pub(crate) fn place(root: &Path, path: &[usize]) -> PathBuf {
    path.iter().fold(root.to_owned(), |place, name| place.join(OsStr::from_bytes(NAMES[*name])))
}

/// The names of a file beside its first, which are not taken by others.
pub(crate) fn others(tree: &Tree, path: &[usize], others: &BTreeSet<usize>) -> Vec<Vec<usize>> {
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
pub(crate) fn plant_lower(tree: &Tree, lower: &Path) {
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
pub(crate) fn plant(tree: &Tree, root: &Path, order: &[u32], overlay: bool) {
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
pub(crate) fn capability() -> Vec<u8> {
    [&[1, 0, 0, 2, 0, 0x20, 0, 0][..], &[0; 12]].concat()
}
