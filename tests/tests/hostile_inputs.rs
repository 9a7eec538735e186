//! Bases, contexts and Dockerfiles that mean harm, with the real program: each is refused by name, or built as it is.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use attestations::Digest;
use images::descriptor::{CONFIG, INDEX, LAYER, LAYER_GZIP, LAYER_ZSTD, MANIFEST};
use images::image::{Config, RootFs};
use images::layer::{LayerLimits, open_archive};
use images::{Descriptor, Image, Platform, Store};
use serde_json::json;
use testing::files::Root;
use testing::{Hostile, Outcome, need};

const DOCKERFILE: &str = "FROM base:1\nRUN echo 1 >/one\n";

/// A base with one layer, whose descriptor and diff ID the caller may lie about.
fn base(place: &Hostile, layer: impl FnOnce(&Store) -> (Descriptor, Digest)) -> PathBuf {
    let folder = place.path("hostile");
    let _ = std::fs::remove_dir_all(&folder);
    let store = Store::open(&folder).unwrap();
    let (layer, diff_id) = layer(&store);
    let config = config(diff_id);
    let config = store.put(CONFIG, &config.to_bytes().unwrap()).unwrap();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    list(&store, MANIFEST, manifest.to_string().as_bytes());
    folder
}

fn config(diff_id: Digest) -> Config {
    Config {
        architecture: Platform::here().architecture,
        os: "linux".to_owned(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
        ..Config::default()
    }
}

/// Puts bytes into a layout as the one thing that it lists.
fn list(store: &Store, kind: &str, bytes: &[u8]) {
    let manifest = store.put(kind, bytes).unwrap();
    store.set_ref("hostile", &manifest).unwrap();
}

/// An archive of headers alone: kind, name, link, and the size that each claims.
fn archive(entries: &[(tar::EntryType, &str, &str, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, link, size) in entries {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(*size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
    }
    bytes
}

/// Compresses with a program what is so long a row of zeros behind a head.
fn zeros_behind(head: &[u8], mebibytes: u64, compressor: &[&str]) -> Vec<u8> {
    let mut child = Command::new(compressor[0])
        .args(&compressor[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, head) = (child.stdin.take().unwrap(), head.to_vec());
    let writing = std::thread::spawn(move || {
        input.write_all(&head).unwrap();
        std::io::copy(&mut std::io::repeat(0).take(mebibytes << 20), &mut input).unwrap();
    });
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output.stdout
}

#[track_caller]
fn said(outcome: Outcome, code: i32, words: &[&str]) {
    let outcome = outcome.expect(code);
    for word in words {
        assert!(outcome.stdout.contains(word), "{word:?} in {}", outcome.stdout);
    }
}

#[test]
fn layers_that_lead_out_are_refused_by_the_entry_that_does() {
    need!("runc", "git", "skopeo");
    use tar::EntryType as T;
    let place = Hostile::new();
    let outside = place.path("outside/file").display().to_string();
    type Planted<'a> = (T, &'a str, &'a str, u64);
    let table: [(&[Planted], &str); 7] = [
        (&[(T::Regular, "../evil", "", 0)], "entry `../evil`: its path leads out of the layer with `..`"),
        (&[(T::Regular, &outside, "", 0)], "its path is absolute"),
        (&[(T::Link, "a", "../../../etc/passwd", 0)], "a hard link that leads out of the layer"),
        (&[(T::Link, "a", &outside, 0)], "a hard link that leads out of the layer"),
        (&[(T::GNUSparse, "hole", "", 0)], "a sparse file, which no image may bring"),
        // A bomb says how large it is, and nothing of it is written.
        (&[(T::Regular, "bomb", "", 70 << 30)], "has more than 68719476736 bytes, the most that are read"),
        (&[(T::Regular, "half", "", 4096)], "it ends in the middle of an entry"),
    ];
    for (entries, words) in table {
        let bytes = archive(entries);
        let folder = base(&place, |store| (store.put(LAYER, &bytes).unwrap(), Digest::of(&bytes)));
        said(place.build_on(&folder, DOCKERFILE, &[]), 3, &[words]);
    }
    // A device node is left out, as runtimes do that may make none.
    let mut bytes = archive(&[(T::Block, "sda", "", 0), (T::Char, "null", "", 0)]);
    bytes.extend([0; 1024]);
    let folder = base(&place, |store| (store.put(LAYER, &bytes).unwrap(), Digest::of(&bytes)));
    let words = "base base:1: its device nodes are not there for steps: /sda and 1 more";
    let built = place.build_on(&folder, "FROM base:1\nCOPY Dockerfile /\n", &[]).expect(0);
    assert!(built.stderr.contains(words), "{}", built.stderr);
    // A link of its own leads into it, or nowhere.
    let target = place.path("outside").display().to_string();
    let mut bytes = archive(&[(T::Symlink, "d", &target, 0), (T::Regular, "d/file", "", 0)]);
    bytes.extend([0; 1024]);
    let folder = base(&place, |store| (store.put(LAYER, &bytes).unwrap(), Digest::of(&bytes)));
    let words = "it has entries below `d`, which is no folder, or a link that leads to none";
    said(place.build_on(&folder, "FROM base:1\nCOPY Dockerfile /\n", &[]), 3, &["the base base:1", words]);
    place.expect_unharmed();
}

#[test]
fn bombs_are_refused_and_leave_room() {
    need!("runc", "git", "skopeo", "gzip", "zstd");
    let place = Hostile::small(48, 4000);
    let whole = archive(&[(tar::EntryType::Regular, "zeros", "", 400 << 20)]);
    let claims = archive(&[(tar::EntryType::Regular, "zeros", "", 70 << 30)]);
    for (kind, compressor) in [(LAYER_GZIP, &["gzip", "-1"][..]), (LAYER_ZSTD, &["zstd", "-1", "-q"])] {
        // It fits the limits, and not the disk.
        let bomb = zeros_behind(&whole, 400, compressor);
        assert!(bomb.len() < 4 << 20, "{}", bomb.len());
        let folder = base(&place, |store| (store.put(kind, &bomb).unwrap(), Digest::of(b"")));
        said(place.build_on(&folder, DOCKERFILE, &[]), 8, &["No space left on device", "the disk is full"]);
        let bomb = zeros_behind(&claims, 1, compressor);
        let folder = base(&place, |store| (store.put(kind, &bomb).unwrap(), Digest::of(b"")));
        said(place.build_on(&folder, DOCKERFILE, &[]), 3, &["more than 68719476736 bytes"]);
    }
    place.expect_unharmed();
}

#[test]
fn a_base_that_lies_about_itself_is_refused() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let bytes = [archive(&[(tar::EntryType::Regular, "a", "", 0)]), vec![0; 1024]].concat();
    let digest = Digest::of(&bytes);
    let put = |store: &Store| store.put(LAYER, &bytes).unwrap();
    let lie = base(&place, |store| (put(store), Digest::of(b"another")));
    said(
        place.build_on(&lie, DOCKERFILE, &[]),
        3,
        &["the base base:1: layer ", "unpacked should have the digest", &digest.to_string()],
    );
    for size in [0, 1, bytes.len() as u64 - 512, bytes.len() as u64 + 1, u64::MAX] {
        let lie = base(&place, |store| (Descriptor { size, ..put(store) }, digest));
        said(place.build_on(&lie, DOCKERFILE, &[]), 3, &["should have", "bytes, but has"]);
    }
    // Blobs that the state has from before would be taken from there, as they should be.
    let fresh = |name: &str| [archive(&[(tar::EntryType::Regular, name, "", 0)]), vec![0; 1024]].concat();
    let (one, two) = (fresh("one"), fresh("two"));
    let changed = base(&place, |store| {
        let layer = store.put(LAYER, &one).unwrap();
        std::fs::write(store.path_of(&layer.digest), vec![7; one.len()]).unwrap();
        (layer, Digest::of(&one))
    });
    let wanted = Digest::of(&one).to_string();
    said(
        place.build_on(&changed, DOCKERFILE, &[]),
        3,
        &["the base base:1: blob ", "should have the digest", &wanted],
    );
    let missing = base(&place, |store| {
        let layer = store.put(LAYER, &two).unwrap();
        std::fs::remove_file(store.path_of(&layer.digest)).unwrap();
        (layer, Digest::of(&two))
    });
    said(place.build_on(&missing, DOCKERFILE, &[]), 4, &[&Digest::of(&two).to_string(), "is not there"]);
    let damaged = base(&place, |store| (store.put(LAYER_GZIP, b"\x1f\x8b no gzip").unwrap(), digest));
    said(place.build_on(&damaged, DOCKERFILE, &[]), 3, &["its compressed form is damaged"]);
    place.expect_unharmed();
}

#[test]
fn manifests_that_are_none_are_refused_by_name() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let bytes = [archive(&[(tar::EntryType::Regular, "a", "", 0)]), vec![0; 1024]].concat();
    let foreign = base(&place, |store| {
        let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned();
        (Descriptor { media_type: kind, ..store.put(LAYER, &bytes).unwrap() }, Digest::of(&bytes))
    });
    said(
        place.build_on(&foreign, DOCKERFILE, &[]),
        3,
        &["rootfs.foreign.diff.tar.gzip` is not in the registry"],
    );
    let schema_1 =
        json!({ "schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [{ "blobSum": Digest::of(b"") }] });
    let (many, deep) = (vec![0; 5 << 20], "[".repeat(100_000));
    let platform = json!({ "architecture": "mips", "os": "plan9" });
    let of_another = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": MANIFEST, "digest": Digest::of(b""), "size": 0, "platform": platform }],
    });
    let both =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "manifests": [], "layers": [], "config": {} });
    let text = |value: &serde_json::Value| value.to_string().into_bytes();
    let table: [(&str, Vec<u8>, i32, &str); 6] = [
        (MANIFEST, text(&schema_1), 3, "schema 1 of Docker's manifests"),
        (INDEX, text(&of_another), 4, "an image for linux/"),
        (MANIFEST, text(&both), 3, "this is an index of several images"),
        (MANIFEST, b"{".to_vec(), 3, "manifest: "),
        (MANIFEST, deep.into_bytes(), 3, "recursion limit"),
        (MANIFEST, many, 3, "has more than"),
    ];
    for (kind, bytes, code, words) in table {
        let folder = place.path("hostile");
        let _ = std::fs::remove_dir_all(&folder);
        list(&Store::open(&folder).unwrap(), kind, &bytes);
        said(place.build_on(&folder, DOCKERFILE, &[]), code, &[words]);
    }
    place.expect_unharmed();
}

#[test]
fn odd_names_of_a_context_come_out_as_they_are() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let root = place.repository().path();
    let long = "n".repeat(255);
    let names: [&[u8]; 6] = [
        long.as_bytes(),
        b"\xff\xfe\x80",
        b"new\nline",
        b"esc\x1b[2J",
        "zw\u{200b}\u{202e}j".as_bytes(),
        b"-rf * $(x) \\",
    ];
    for name in names {
        std::fs::create_dir_all(root.join("odd")).unwrap();
        std::fs::write(root.join("odd").join(OsStr::from_bytes(name)), name).unwrap();
    }
    for (link, target) in
        [("self", "self"), ("one", "two"), ("two", "one"), ("up", "../../../../../../.."), ("dot", ".")]
    {
        std::os::unix::fs::symlink(target, root.join("odd").join(link)).unwrap();
    }
    let layout = place.path("layout").display().to_string();
    let dockerfile =
        "FROM base:1\nCOPY odd /odd/\nRUN ls /odd | busybox wc -c && cat /odd/-rf* /odd/esc* >/said\n";
    let built = place.build(dockerfile, &["--oci", &layout]).expect(0);
    let store = Store::open_existing(&layout).unwrap();
    let image = Image::load(&store, &built.json()["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    let mut files = Root::default();
    for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()) {
        files.apply(open_archive(&store, layer, Some(diff_id), LayerLimits::default()).unwrap().reader());
    }
    let files = files.finish();
    for name in names {
        let shown = match std::str::from_utf8(name) {
            Ok(text) => format!("odd/{text}"),
            Err(_) => format!("odd/{}", name.escape_ascii()),
        };
        let found = files.get(&shown).unwrap_or_else(|| panic!("{shown} in {:?}", files.keys()));
        assert_eq!(found.content, format!("{} bytes, {}", name.len(), Digest::of(name)), "{shown}");
    }
    assert_eq!(files["odd/self"].content, "self");
    for (source, words) in [
        ("odd/self", "goes through too many links"),
        ("odd/one/x", "goes through too many links"),
        ("odd/up/etc/passwd", "is not in the context"),
    ] {
        said(
            place.build(&format!("FROM base:1\nCOPY {source} /x/y/\n"), &[]),
            3,
            &["line 2: COPY odd/", words],
        );
    }
    place.expect_unharmed();
}

#[test]
fn a_dockerfile_that_is_none_is_refused_at_once() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let long = format!("FROM base:1\nENV A={}\n", "a".repeat(10_000_000));
    let table = [
        ("FROM base:1\nRUN a\0b\n".to_owned(), "line 2"),
        (long, "has 10000019 bytes, more than the 1048576 allowed"),
        ("FROM base:1 AS a\nCOPY --from=b / /\nFROM base:1 AS b\nCOPY --from=a / /\n".to_owned(), "line 2"),
        (String::new(), "there is no FROM"),
        (format!("FROM base:1\nRUN {}\n", "\\\n".repeat(1000)), "line 2: RUN needs a command"),
        (format!("FROM base:1\nENV A={}\n", "${A:-".repeat(20_000)), "nested more than 32 deep"),
    ];
    for (text, words) in table {
        let begun = std::time::Instant::now();
        said(place.build(&text, &[]), 3, &[words]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{words}");
    }
    let marked = "\u{feff}FROM base:1\r\nRUN echo a \\\r\n  b >/ab\r\n";
    place.build(marked, &[]).expect(0);
    place.expect_unharmed();
}
