//! What must hold of a stranger's layer, of a step's own changes, and of two processes at one store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use attestations::Digest;
use images::compare::{Comparison, compare};
use images::descriptor::{LAYER, LAYER_GZIP, LAYER_ZSTD};
use images::layer::{Compression, Entry, Kind, LayerLimits, LayerWriter, Normaliser, from_upper, unpack};
use images::{Config, Descriptor, Image, Store};

fn store() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path().join("store")).unwrap();
    (place, store)
}

fn entry(path: &[u8], kind: Kind) -> Entry {
    Entry { path: path.to_vec(), kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: Default::default() }
}

fn unpacked(
    store: &Store,
    layer: &Descriptor,
    diff_id: &Digest,
    limits: LayerLimits,
) -> Result<tempfile::TempDir, images::Error> {
    let into = tempfile::tempdir().unwrap();
    unpack(store, layer, diff_id, into.path(), limits).map(|_| into)
}

fn gzip(parts: impl FnOnce(&mut dyn Write)) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    parts(&mut out);
    out.finish().unwrap()
}

#[test]
fn attribute_with_a_newline_byte_comes_back() {
    let (_place, store) = store();
    let mut one = entry(b"tool", Kind::File { size: 0 });
    // cap_dac_override,cap_fowner+ep: the mask is 0x0a, a newline.
    let value = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    one.xattrs.insert(b"security.capability".to_vec(), value.to_vec());
    let mut writer = LayerWriter::new(&store, Compression::None).unwrap();
    writer.add(&one, &mut std::io::empty()).unwrap();
    let layer = writer.finish().unwrap();
    let into = unpacked(&store, &layer.descriptor, &layer.diff_id, LayerLimits::default()).unwrap();
    let mut found = [0; 64];
    let length =
        rustix::fs::lgetxattr(into.path().join("tool"), "security.capability", &mut found[..]).unwrap();
    assert_eq!(&found[..length], value);
}

#[test]
fn long_name_with_a_newline_comes_back() {
    let (_place, store) = store();
    let name = [vec![b'a'; 60], vec![b'\n'], vec![b'b'; 60]].concat();
    let mut writer = LayerWriter::new(&store, Compression::None).unwrap();
    writer.add(&entry(&name, Kind::File { size: 0 }), &mut std::io::empty()).unwrap();
    let layer = writer.finish().unwrap();
    let into = unpacked(&store, &layer.descriptor, &layer.diff_id, LayerLimits::default()).unwrap();
    let names: Vec<_> = std::fs::read_dir(into.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_encoded_bytes())
        .collect();
    assert_eq!(names, [name]);
}

#[test]
fn owner_beyond_octal_comes_back() {
    let (_place, store) = store();
    let mut one = entry(b"f", Kind::File { size: 0 });
    (one.uid, one.gid) = (3_000_000, 4_000_000_000);
    let mut writer = LayerWriter::new(&store, Compression::None).unwrap();
    writer.add(&one, &mut std::io::empty()).unwrap();
    let layer = writer.finish().unwrap();
    let into = unpacked(&store, &layer.descriptor, &layer.diff_id, LayerLimits::default()).unwrap();
    let found = std::fs::metadata(into.path().join("f")).unwrap();
    assert_eq!((found.uid(), found.gid()), (3_000_000, 4_000_000_000));
}

/// A sparse file promises 1 GiB of zeros with an archive of 2 KiB; the limit is 1 MiB.
#[test]
fn sparse_file_is_held_to_the_limit() {
    let (_place, store) = store();
    let real: u64 = 1 << 30;
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize.copy_from_slice(format!("{real:011o}\0").as_bytes());
    gnu.sparse[0].offset.copy_from_slice(format!("{real:011o}\0").as_bytes());
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
    header.set_cksum();
    let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
    let layer = store.put(LAYER, &bytes).unwrap();
    let limits = LayerLimits { bytes: 1 << 20, entries: 10 };
    let outcome = unpacked(&store, &layer, &Digest::of(&bytes), limits);
    let written =
        outcome.as_ref().ok().map(|into| std::fs::metadata(into.path().join("bomb")).unwrap().len());
    assert!(outcome.is_err(), "unpacked a file of {written:?} bytes under a limit of 1 MiB");
}

/// Half a GiB of one PAX header in a blob of half a MiB: names are metadata and have to be small.
#[test]
fn extension_header_is_not_read_into_memory_whole() {
    let (_place, store) = store();
    let size: u64 = 512 << 20;
    let mut header = tar::Header::new_ustar();
    header.set_path("x").unwrap();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let bytes = gzip(|out| {
        out.write_all(header.as_bytes()).unwrap();
        std::io::copy(&mut std::io::repeat(b'a').take(size), out).unwrap();
        out.write_all(&[0; 1024]).unwrap();
    });
    let layer = store.put(LAYER_GZIP, &bytes).unwrap();
    let before = peak();
    assert!(unpacked(&store, &layer, &Digest::of(b""), LayerLimits::default()).is_err());
    let grown = peak() - before;
    assert!(
        grown < 128 << 10,
        "peak memory grew by {} MiB for a blob of {} KiB",
        grown >> 10,
        bytes.len() >> 10
    );
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A step that makes a file with a whiteout's name must not delete `passwd` in the image.
#[test]
fn file_named_like_a_whiteout_is_refused() {
    let (_place, store) = store();
    let upper = tempfile::tempdir().unwrap();
    std::fs::write(upper.path().join(".wh.passwd"), b"x").unwrap();
    let made = from_upper(&store, upper.path(), &[], 0, Compression::None, Normaliser::default());
    assert!(made.is_err(), "{:?}", made.map(|made| made.layer.map(|layer| layer.entries)));
}

/// Content and place of such files are elsewhere: read as they lie there, the layer would say something else.
#[test]
fn overlay_redirect_is_refused() {
    let (_place, store) = store();
    let upper = tempfile::tempdir().unwrap();
    let moved = upper.path().join("moved");
    std::fs::create_dir(&moved).unwrap();
    rustix::fs::setxattr(&moved, "trusted.overlay.redirect", b"/old", rustix::fs::XattrFlags::empty())
        .unwrap();
    let made = from_upper(&store, upper.path(), &[], 0, Compression::None, Normaliser::default());
    assert!(made.is_err(), "{:?}", made.map(|made| made.layer.map(|layer| layer.entries)));
}

/// What the archive says of a directory's time and what the next step sees are one.
#[test]
fn directory_time_on_disk_is_the_layers() {
    let (_place, store) = store();
    let upper = tempfile::tempdir().unwrap();
    let folder = upper.path().join("d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("keep"), b"x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("s")).unwrap();
    let old = rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(rustix::fs::CWD, &folder, &times, rustix::fs::AtFlags::empty()).unwrap();
    let made = from_upper(&store, upper.path(), &[], 5000, Compression::None, Normaliser::default()).unwrap();
    let layer = made.layer.unwrap().layer().unwrap();
    let bytes = store.read(&layer.descriptor, 1 << 20).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let said = archive.entries().unwrap().next().unwrap().unwrap().header().mtime().unwrap();
    assert_eq!(said as i64, std::fs::metadata(&folder).unwrap().mtime());
}

#[test]
fn stale_temporary_files_go_at_the_next_start() {
    let (place, store) = store();
    let blobs = place.path().join("store/blobs/sha256");
    let mut living = store.writer().unwrap();
    living.write_all(b"half").unwrap();
    // As `kill -9` leaves it: the kernel has let go of the dead process's lock.
    std::fs::write(blobs.join(".blobDEAD00"), b"half").unwrap();
    Store::open(place.path().join("store")).unwrap();
    assert!(!blobs.join(".blobDEAD00").exists());
    // Another that is still writing keeps its file.
    let kept = living.commit("application/octet-stream").unwrap();
    assert!(store.contains(&kept.digest));
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 1);
}

#[test]
fn names_set_at_once_are_all_kept() {
    let (_place, store) = store();
    let one = store.put("application/octet-stream", b"x").unwrap();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (store, one) = (&store, &one);
            scope.spawn(move || (0..20).for_each(|i| store.set_ref(&format!("{worker}-{i}"), one).unwrap()));
        }
    });
    assert_eq!(store.manifests().unwrap().len(), 160);
}

/// The config's digest is what Docker calls the image: another is not "compressed differently".
#[test]
fn another_config_digest_is_not_the_same_content() {
    let (_place, store) = store();
    let config = Config {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: images::image::RootFs { kind: "layers".into(), diff_ids: vec![] },
        ..Config::default()
    };
    let a = Image::assemble(&store, &config, vec![]).unwrap();
    let bytes = String::from_utf8(config.to_bytes().unwrap()).unwrap();
    let other = bytes.replace("\"config\":{}", "\"config\":{\"Volumes\":null}");
    assert_ne!(bytes, other);
    let described = store.put(images::descriptor::CONFIG, other.as_bytes()).unwrap();
    let manifest = images::Manifest::image(described, vec![]).to_bytes().unwrap();
    let manifest = store.put(images::descriptor::MANIFEST, &manifest).unwrap();
    let b = Image::load(&store, &manifest.digest).unwrap();
    assert!(matches!(compare((&store, &a), (&store, &b)).unwrap(), Comparison::Differs { .. }));
}

#[test]
fn device_number_is_listed_as_a_difference() {
    let (_place, store) = store();
    let image = |minor| {
        let mut writer = LayerWriter::new(&store, Compression::None).unwrap();
        writer.add(&entry(b"null", Kind::CharDevice(1, minor)), &mut std::io::empty()).unwrap();
        let layer = writer.finish().unwrap();
        let config = Config {
            architecture: "amd64".into(),
            os: "linux".into(),
            rootfs: images::image::RootFs { kind: "layers".into(), diff_ids: vec![layer.diff_id] },
            ..Config::default()
        };
        Image::assemble(&store, &config, vec![layer.descriptor]).unwrap()
    };
    let found = compare((&store, &image(3)), (&store, &image(5))).unwrap();
    let images::compare::Comparison::Differs { layers, .. } = found else { panic!("{found:?}") };
    assert!(!layers[0].entries.is_empty(), "reported as a difference of the archive's form alone");
}

/// A whiteout hides what is below; a directory of the same name in the same layer starts empty (image-spec, layer.md).
#[test]
fn directory_after_its_own_whiteout_is_opaque() {
    let (_place, store) = store();
    let mut writer = LayerWriter::new(&store, Compression::None).unwrap();
    writer.add(&entry(b".wh.d", Kind::File { size: 0 }), &mut std::io::empty()).unwrap();
    writer.add(&entry(b"d", Kind::Directory), &mut std::io::empty()).unwrap();
    let layer = writer.finish().unwrap();
    let into = unpacked(&store, &layer.descriptor, &layer.diff_id, LayerLimits::default()).unwrap();
    let mut value = [0; 8];
    assert!(rustix::fs::lgetxattr(into.path().join("d"), "trusted.overlay.opaque", &mut value[..]).is_ok());
}

fn hostile(make: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> (String, bool) {
    let (place, store) = store();
    let mut builder = tar::Builder::new(Vec::new());
    make(&mut builder);
    let bytes = builder.into_inner().unwrap();
    let layer = store.put(LAYER, &bytes).unwrap();
    let into = place.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let outcome = unpack(&store, &layer, &Digest::of(&bytes), &into, LayerLimits::default());
    let outside = place.path().join("evil").exists() || Path::new("/tmp/images-evil").exists();
    (outcome.map_or_else(|error| error.to_string(), |_| "unpacked".into()), outside)
}

fn add(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &[u8], link: &[u8]) {
    let mut header = tar::Header::new_ustar();
    let raw = header.as_ustar_mut().unwrap();
    raw.name[..name.len()].copy_from_slice(name);
    raw.linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
}

#[test]
fn entries_that_lead_out_are_refused_or_stay_inside() {
    use tar::EntryType as T;
    type Planted = (T, &'static [u8], &'static [u8]);
    let cases: &[(&str, &[Planted], &str)] = &[
        ("dots", &[(T::Regular, b"../evil", b"")], "`..`"),
        ("absolute", &[(T::Regular, b"/tmp/images-evil", b"")], "absolute"),
        ("hard link out", &[(T::Link, b"a", b"../../etc/passwd")], "hard link"),
        ("hard link absolute", &[(T::Link, b"a", b"/etc/passwd")], "hard link"),
        ("hard link through link", &[(T::Symlink, b"s", b"/etc"), (T::Link, b"a", b"s/passwd")], "hard link"),
        ("swap", &[(T::Symlink, b"d", b"/tmp"), (T::Regular, b"d/images-evil", b"")], ""),
        ("relative swap", &[(T::Symlink, b"d", b".."), (T::Regular, b"d/evil", b"")], ""),
        ("whiteout dots", &[(T::Regular, b".wh...", b"")], "whiteout"),
    ];
    for (name, entries, reason) in cases {
        let (outcome, outside) =
            hostile(|builder| entries.iter().for_each(|(kind, path, link)| add(builder, *kind, path, link)));
        assert!(!outside, "{name}: written outside");
        assert!(outcome.contains(reason), "{name}: {outcome}");
        assert!(reason.is_empty() || outcome != "unpacked", "{name}");
    }
}

/// What is below a device node does not show instead of it, and a link to one is one.
#[test]
fn device_nodes_are_left_out_and_hide_what_is_below() {
    use tar::EntryType as T;
    let (place, store) = store();
    let unpacked = |name: &str, entries: &[(T, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        entries.iter().for_each(|(kind, path)| add(&mut builder, *kind, path, b"dev/sda"));
        let bytes = builder.into_inner().unwrap();
        let layer = store.put(LAYER, &bytes).unwrap();
        let into = place.path().join(name);
        std::fs::create_dir(&into).unwrap();
        (unpack(&store, &layer, &Digest::of(&bytes), &into, LayerLimits::default()), into)
    };
    let (devices, into) = unpacked(
        "into",
        &[(T::Directory, b"dev"), (T::Block, b"dev/sda"), (T::Char, b"dev/null"), (T::Regular, b"file")],
    );
    assert_eq!(devices.unwrap(), ["dev/sda", "dev/null"]);
    assert!(into.join("file").is_file());
    for name in ["dev/sda", "dev/null"] {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let whiteout = std::fs::symlink_metadata(into.join(name)).unwrap();
        assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0, "{name}");
    }
    let (linked, into) =
        unpacked("linked", &[(T::Directory, b"dev"), (T::Block, b"dev/sda"), (T::Link, b"a")]);
    assert_eq!(linked.unwrap(), ["dev/sda"]);
    let link = std::fs::symlink_metadata(into.join("a")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::rdev(&link) == 0 && !link.is_file(), "a link to one is one");
}

#[test]
fn wrong_digests_and_bombs_are_refused() {
    let (_place, store) = store();
    let bytes = gzip(|out| {
        std::io::copy(&mut std::io::repeat(0).take(64 << 20), out).unwrap();
    });
    let layer = store.put(LAYER_GZIP, &bytes).unwrap();
    let small = LayerLimits { bytes: 1 << 20, entries: 10 };
    let bomb = unpacked(&store, &layer, &Digest::of(b""), small).unwrap_err().to_string();
    assert!(bomb.contains("more than 1048576"), "{bomb}");
    let bytes = zstd::encode_all(std::io::repeat(0).take(64 << 20), 1).unwrap();
    let zstd = store.put(LAYER_ZSTD, &bytes).unwrap();
    let bomb = unpacked(&store, &zstd, &Digest::of(b""), small).unwrap_err().to_string();
    assert!(bomb.contains("more than 1048576"), "{bomb}");
    // A frame that asks for a window of gigabytes, before a single byte of content.
    let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    let wide = store.put(LAYER_ZSTD, &wide).unwrap();
    let before = peak();
    assert!(unpacked(&store, &wide, &Digest::of(b""), LayerLimits::default()).is_err());
    assert!(peak() - before < 256 << 10, "{before} {} KiB", peak());
    let diff = unpacked(&store, &layer, &Digest::of(b"other"), LayerLimits::default()).unwrap_err();
    assert!(matches!(diff, images::Error::Digest { .. }), "{diff}");
    std::fs::OpenOptions::new()
        .append(true)
        .open(store.path_of(&layer.digest))
        .unwrap()
        .write_all(b"!")
        .unwrap();
    assert!(store.read(&layer, 1 << 30).is_err());
}

/// "No rule touches anything that is executed": a folder that is cleaned up is no place where a program vanishes.
#[test]
fn a_program_stays_where_data_would_be_cleaned_up() {
    use std::os::unix::fs::PermissionsExt;
    let (_place, store) = store();
    let upper = tempfile::tempdir().unwrap();
    for path in ["var/log/apt/term.log", "var/cache/fontconfig/list", "root/.npm/_cacache/entry"] {
        let place = upper.path().join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        for (place, mode) in [(place.clone(), 0o644), (place.with_extension("tool"), 0o755)] {
            std::fs::write(&place, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    let made = from_upper(&store, upper.path(), &[], 0, Compression::None, Normaliser::Version1).unwrap();
    let mut applied: Vec<&str> = made.applied.iter().map(|it| it.path.as_str()).collect();
    applied.sort_unstable();
    assert_eq!(applied, ["root/.npm/_cacache/entry", "var/cache/fontconfig/list", "var/log/apt/term.log"]);
    let bytes = store.read(&made.layer.unwrap().layer().unwrap().descriptor, 1 << 20).unwrap();
    let mut found = tar::Archive::new(&bytes[..]);
    let files =
        found.entries().unwrap().map(|entry| entry.unwrap()).filter(|it| it.header().entry_type().is_file());
    let sizes: Vec<(String, u64)> =
        files.map(|it| (it.path().unwrap().display().to_string(), it.header().size().unwrap())).collect();
    let tool = |path: &str| (path.to_owned(), 10);
    assert_eq!(
        sizes,
        [
            tool("root/.npm/_cacache/entry.tool"),
            tool("var/cache/fontconfig/list.tool"),
            ("var/log/apt/term.log".to_owned(), 0),
            tool("var/log/apt/term.tool"),
        ]
    );
}
