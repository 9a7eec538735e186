//! Other people's programs read our layers: every odd entry comes out of `tar`, `umoci`, `skopeo` and `podman` as it
//! went in.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

use images::image::RootFs;
use images::layer::{Compression, Normaliser, from_upper};
use images::{Config, Image, Store};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

const EPOCH: i64 = 1_700_000_000;
/// `cap_net_raw=ep`, as `setcap` writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// More than one member of gzip, and no multiple of a block.
const LARGE: usize = 3_000_001;

/// Two layers: the second deletes a file and a directory of the first, and makes another anew.
fn plant_below(root: &Path) {
    fs::create_dir_all(root.join("gone/deep")).unwrap();
    fs::create_dir_all(root.join("anew")).unwrap();
    for name in ["gone/deep/file", "anew/old", "deleted", "kept"] {
        fs::write(root.join(name), "below").unwrap();
    }
}

fn plant(root: &Path) {
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/file"), "text\n").unwrap();
    lchown(root.join("etc/file"), Some(1000), Some(3_000_000)).unwrap();
    fs::set_permissions(root.join("etc/file"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::hard_link(root.join("etc/file"), root.join("another name")).unwrap();
    symlink("../../somewhere/\u{fc}/".repeat(12), root.join("etc/long-link")).unwrap();
    fs::write(root.join("x".repeat(255)), "long").unwrap();
    fs::create_dir_all(root.join("d".repeat(90)).join("e".repeat(90))).unwrap();
    fs::write(root.join("d".repeat(90)).join("e".repeat(90)).join("deep"), "deep").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"no \xff\xfe text")), "bytes").unwrap();
    fs::write(root.join("\u{fc}ml\u{e4}ut"), "utf-8").unwrap();
    let large: Vec<u8> = (0..LARGE as u32).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(root.join("large"), large).unwrap();
    File::create(root.join("sparse")).unwrap().write_all_at(b"end", 2_000_000).unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    fs::write(root.join("ping"), "program").unwrap();
    rustix::fs::setxattr(root.join("ping"), "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("etc"), "user.note", b"line\nline=\0", XattrFlags::empty()).unwrap();
    for name in ["deleted", "gone"] {
        rustix::fs::mknodat(CWD, root.join(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }
    fs::create_dir(root.join("anew")).unwrap();
    fs::write(root.join("anew/new"), "new").unwrap();
    rustix::fs::setxattr(root.join("anew"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    let time = Timespec { tv_sec: 1_234_567_890, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, root.join("etc/file"), &times, AtFlags::empty()).unwrap();
}

/// An image of both layers in a layout, by the name `odd`; and what its tree has to be.
fn image(folder: &Path, compression: Compression) -> (Store, BTreeMap<Vec<u8>, String>) {
    let (below, upper) = (folder.join("below"), folder.join("upper"));
    [&below, &upper].iter().for_each(|it| fs::create_dir(it).unwrap());
    plant_below(&below);
    plant(&upper);
    let store = Store::open(folder.join("layout")).unwrap();
    let layers = [(&below, vec![]), (&upper, vec![below.clone()])].map(|(it, lowers)| {
        let made = from_upper(&store, it, &lowers, EPOCH, compression, Normaliser::Version1).unwrap();
        made.layer.unwrap().layer().unwrap()
    });
    let config = Config {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: RootFs { kind: "layers".into(), diff_ids: layers.iter().map(|it| it.diff_id).collect() },
        ..Config::default()
    };
    let descriptors = layers.iter().map(|it| it.descriptor.clone()).collect();
    let image = Image::assemble(&store, &config, descriptors).unwrap();
    let manifest = store.describe(images::descriptor::MANIFEST, &image.digest()).unwrap();
    store.set_ref("odd", &manifest).unwrap();
    let mut wanted = tree(&upper);
    wanted.retain(|path, _| path != b"deleted" && path != b"gone");
    wanted.insert(b"kept".to_vec(), tree(&below)[&b"kept"[..]].clone());
    (store, wanted)
}

/// What a reader may get wrong of each path: all but the times of directories, which each tool keeps as it likes.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        for child in fs::read_dir(&folder).unwrap() {
            let path = child.unwrap().path();
            let said = describe(root, &path);
            found.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), said);
            if path.is_dir() && !path.is_symlink() {
                left.push(path);
            }
        }
    }
    found
}

fn describe(root: &Path, path: &Path) -> String {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let content = match () {
        () if kind.is_file() => attestations::Digest::of(&fs::read(path).unwrap()).to_string(),
        () if kind.is_symlink() => format!("-> {}", fs::read_link(path).unwrap().display()),
        () if kind.is_fifo() => "pipe".into(),
        () => "other".into(),
    };
    let time = if kind.is_dir() { 0 } else { metadata.mtime() };
    let links = if kind.is_dir() { 0 } else { metadata.nlink() };
    let same = metadata.ino() == fs::metadata(root.join("etc/file")).map_or(0, |it| it.ino());
    let mut value = [0; 64];
    let attributes = ["security.capability", "user.note"].map(|name| {
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
        value[..length].escape_ascii().to_string()
    });
    format!(
        "{content} {:o} {}:{} {time} {links} {same} {attributes:?}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid()
    )
}

fn same(who: &str, wanted: &BTreeMap<Vec<u8>, String>, found: &BTreeMap<Vec<u8>, String>) {
    let shown = |tree: &BTreeMap<Vec<u8>, String>| -> Vec<String> {
        tree.iter().map(|(path, said)| format!("{} {said}", path.escape_ascii())).collect()
    };
    let (wanted, found) = (shown(wanted), shown(found));
    let missing: Vec<_> = wanted.iter().filter(|it| !found.contains(it)).collect();
    let added: Vec<_> = found.iter().filter(|it| !wanted.contains(it)).collect();
    assert!(missing.is_empty() && added.is_empty(), "{who}:\nmissing {missing:#?}\nfound instead {added:#?}");
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    run_in(Path::new("/"), program, arguments)
}

fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let outcome = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{program} {arguments:?}: {said}");
    outcome.stdout
}

const FORMS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

#[test]
fn tar_reads_it() {
    if !testing::can_run(&["tar"]) {
        return;
    }
    for compression in FORMS {
        if compression == Compression::Zstd && !testing::can_run(&["zstd"]) {
            continue;
        }
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let (store, mut wanted) = image(place.path(), compression);
        let listed = store.manifests().unwrap();
        let odd = listed.iter().find(|entry| Store::name_of(entry) == Some("odd")).unwrap();
        let image = Image::load(&store, &odd.digest).unwrap();
        let blob = store.path_of(&image.layers()[1].digest);
        let into = place.path().join("into");
        fs::create_dir(&into).unwrap();
        let how = ["", "--gzip", "--zstd"][FORMS.iter().position(|it| *it == compression).unwrap()];
        let (blob, into_) = (blob.to_str().unwrap(), into.to_str().unwrap());
        let all = [
            "--extract",
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "--same-permissions",
            "--file",
            blob,
        ];
        let arguments: Vec<&str> =
            all.into_iter().chain(["--directory", into_]).chain((!how.is_empty()).then_some(how)).collect();
        run("tar", &arguments);
        // To tar, a whiteout is an empty file like any other.
        wanted.remove(&b"kept"[..]);
        let mut found = tree(&into);
        for marker in [&b".wh.deleted"[..], b".wh.gone", b"anew/.wh..wh..opq"] {
            assert!(found.remove(marker).is_some(), "no {}", marker.escape_ascii());
        }
        same(&format!("tar, {compression:?}"), &wanted, &found);
    }
}

#[test]
fn umoci_unpacks_it() {
    if !testing::can_run(&["umoci"]) {
        return;
    }
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let (store, wanted) = image(place.path(), Compression::Gzip);
    let source = format!("{}:odd", store.root().display());
    let into = place.path().join("into");
    run("umoci", &["raw", "unpack", "--image", &source, into.to_str().unwrap()]);
    same("umoci", &wanted, &tree(&into));
}

/// It decompresses and hashes each layer, and so holds it to its diff ID.
#[test]
fn skopeo_copies_it() {
    if !testing::can_run(&["skopeo"]) {
        return;
    }
    for compression in FORMS {
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let (store, _) = image(place.path(), compression);
        let source = format!("oci:{}:odd", store.root().display());
        let archive = place.path().join("copy");
        // Docker's own form of an image knows no zstd.
        let (target, folder) = match compression {
            Compression::Zstd => (format!("dir:{}", archive.display()), true),
            _ => (format!("docker-archive:{}:odd:1", archive.display()), false),
        };
        run("skopeo", &["copy", "--quiet", "--dest-decompress", &source, &target]);
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        let largest = match folder {
            true => fs::read_dir(&archive).unwrap().map(|it| size(&it.unwrap().path())).max().unwrap(),
            false => size(&archive),
        };
        assert!(largest > LARGE as u64, "{compression:?}: {largest} bytes are not the decompressed layer");
    }
}

#[test]
fn podman_mounts_it() {
    if !testing::can_run(&["podman"]) {
        return;
    }
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let (store, wanted) = image(place.path(), Compression::Gzip);
    drop(store);
    let podman = |arguments: &[&str]| {
        let own = ["--root", "podman", "--runroot", "state", "--storage-driver", "vfs"].map(|it| match it {
            "podman" | "state" => place.path().join(it).display().to_string(),
            other => other.to_owned(),
        });
        let all: Vec<&str> = own.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        // From beside the layout: podman makes a name of its path, and takes no capital letters.
        String::from_utf8(run_in(place.path(), "podman", &all)).unwrap().trim().to_owned()
    };
    let id = podman(&["pull", "--quiet", "oci:layout:odd"]);
    let mounted = podman(&["image", "mount", &id]);
    let found = tree(Path::new(&mounted));
    podman(&["image", "unmount", &id]);
    same("podman", &wanted, &found);
}
