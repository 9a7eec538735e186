//! A comparator that is quiet about a difference hides an attack. A builder who slips something into an image, and signs that it
//! came out so, is found out by whoever repeats the build: each change is told, whatever its name and however well it hides.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use attestations::{Bundle, Digest, Predicate, PublicKey, SignError, Signer, Subject, sign};
use images::layer::{Compression, Entry, Kind, LayerLimits, LayerWriter, open_archive};
use images::{Image, Store};
use serde_json::Value;
use testing::{Repository, need, program, python_base, run};

/// A wheel with a compiled module; pip compiles its Python.
const DOCKERFILE: &str = "FROM python\nRUN pip install markupsafe\n";
const PACKAGE: &str = "usr/local/lib/python3.11/dist-packages/markupsafe";

/// Entries by the components of their paths, which is the order of a layer.
type Entries = BTreeMap<Vec<Vec<u8>>, (Entry, Vec<u8>)>;

#[test]
fn what_was_slipped_into_an_image_is_told_by_its_name() {
    need!("runc", "mmdebstrap", "python3");
    let (source, folder) = (Repository::new(), tempfile::tempdir().unwrap());
    source.write("Dockerfile", DOCKERFILE);
    let commit = source.commit("an algorithm");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (state, repository) = (path("state"), source.path().display().to_string());
    let base = format!("python={}", python_base().display());
    let builder = |arguments: &[&str]| {
        let common = ["--state-dir", &state, "--json"];
        run(program("countersign-builder"), [&common[..], arguments].concat())
    };
    let (key, bundle, honest) = (path("key"), path("bundle.json"), path("honest"));
    builder(&["keygen", "--no-password", "--out", &key]).expect(0);
    let inputs = ["--repo", &repository, "--base", &base];
    let signing =
        ["--key", &key, "--builder-id", "https://ci.example/", "--bundle-out", &bundle, "--oci", &honest];
    let built = builder(&[&["build", "--commit", &commit][..], &inputs, &signing].concat()).expect(0).json();
    let rebuild = |provenance: &str, against: &str| {
        let own = ["rebuild", "--provenance", provenance, "--trust-unverified", "--against", against];
        builder(&[&own[..], &inputs].concat())
    };
    let digest: Digest = built["digest"].as_str().unwrap().parse().unwrap();

    // What only looks anew at the layer changes nothing: the differences below are the attacks and no more.
    let same = slip(Path::new(&honest), Path::new(&path("same")), &digest, |_| {});
    assert_eq!(same.digest(), digest);
    assert_eq!(rebuild(&bundle, &path("same")).expect(0).json()["identical"], true);

    let wanted = attacks(folder.path());
    let evil = slip(Path::new(&honest), Path::new(&path("evil")), &digest, |entries| {
        wanted.iter().for_each(|(path, attack)| attack(path, entries));
    });
    let forged = path("forged.json");
    forge(Path::new(&bundle), &evil, Path::new(&format!("{key}.pub")), Path::new(&forged));
    let denied = rebuild(&forged, &path("evil")).expect(1).json();
    assert_eq!(denied["identical"], false);
    let mut told = told(&denied["comparison"]);
    assert_eq!(told.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{denied}");
    let differs = builder(&["diff", &path("evil"), &honest]).expect(1).json();
    assert_eq!(self::told(&differs["comparison"]), told);

    // Each is told for what it is.
    let mut kind = |path: &str| told.remove(path).unwrap();
    let compiled = kind(&format!("{PACKAGE}/__pycache__/_native.cpython-311.pyc"));
    assert!(compiled[0]["offset"].as_u64().unwrap() >= 16, "the header is the honest one: {compiled:?}");
    assert_eq!(kind(&format!("{PACKAGE}/__init__.py"))[0]["kind"], "content");
    assert_eq!(kind(&format!("{PACKAGE}/py.typed"))[0]["field"], "mode");
    for program in ["var/log/apt/payload", "var/cache/fontconfig/payload", "etc/machine-id"] {
        assert_eq!(kind(program)[0]["kind"], "onlyInA", "{program}");
    }
}

type Attack = Box<dyn Fn(&str, &mut Entries)>;

/// The attacks, by the paths at which they are to be told.
fn attacks(folder: &Path) -> BTreeMap<String, Attack> {
    let mut all: BTreeMap<String, Attack> = BTreeMap::new();
    let mut add = |path: &str, attack: Attack| assert!(all.insert(path.to_owned(), attack).is_none());
    let speedups = format!("{PACKAGE}/_speedups.cpython-311-{}-linux-gnu.so", std::env::consts::ARCH);
    add(
        &speedups,
        Box::new(|path, all| {
            let bytes = &mut find(all, path).1;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
    );
    let poison = poison(folder);
    let compiled = format!("{PACKAGE}/__pycache__/_native.cpython-311.pyc");
    add(
        &compiled,
        Box::new(move |path, all| {
            let honest = find(all, path).1[..16].to_vec();
            write(all, path, 0o644, [&honest, &poison[16..]].concat());
        }),
    );
    // A file of the wheel.
    let swapped = b"print('slipped in')\n";
    add(&format!("{PACKAGE}/__init__.py"), Box::new(|path, all| write(all, path, 0o644, swapped.to_vec())));
    add(&format!("{PACKAGE}/py.typed"), Box::new(|path, all| find(all, path).0.mode = 0o4755));
    // Where a normaliser cleans up after package managers, and comparing has to look all the same.
    for path in ["var/log/apt/payload", "var/cache/fontconfig/payload"] {
        add(path, Box::new(|path, all| write(all, path, 0o755, b"#!/bin/sh\nexec evil\n".to_vec())));
    }
    add("etc/machine-id", Box::new(|path, all| write(all, path, 0o444, b"0123456789abcdef\n".to_vec())));
    all
}

/// Python's compiled form of another source.
fn poison(folder: &Path) -> Vec<u8> {
    let (source, compiled) = (folder.join("evil.py"), folder.join("evil.pyc"));
    std::fs::write(&source, "import os\nos.system('evil')\n").unwrap();
    let script = "import py_compile, sys; py_compile.compile(sys.argv[1], cfile=sys.argv[2])";
    run("python3", ["-c", script, source.to_str().unwrap(), compiled.to_str().unwrap()]).expect(0);
    std::fs::read(compiled).unwrap()
}

fn key(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
}

fn find<'a>(entries: &'a mut Entries, path: &str) -> &'a mut (Entry, Vec<u8>) {
    entries.get_mut(&key(path.as_bytes())).unwrap_or_else(|| panic!("the layer has no {path}"))
}

/// A file, new or in the place of another, whose time tells nothing.
fn write(entries: &mut Entries, path: &str, mode: u32, bytes: Vec<u8>) {
    let size = bytes.len() as u64;
    let mtime = entries.get(&key(path.as_bytes())).map_or(0, |(entry, _)| entry.mtime);
    let (path, kind) = (path.as_bytes().to_vec(), Kind::File { size });
    let entry = Entry { path: path.clone(), kind, mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() };
    entries.insert(key(&path), (entry, bytes));
}

/// The image of one layout with a changed top layer, as the one image of another.
fn slip(from: &Path, to: &Path, digest: &Digest, change: impl FnOnce(&mut Entries)) -> Image {
    let (honest, store) = (Store::open_existing(from).unwrap(), Store::open(to).unwrap());
    let image = Image::load(&honest, digest).unwrap();
    let (top, below) = image.layers().split_last().unwrap();
    for layer in below {
        std::fs::copy(honest.path_of(&layer.digest), store.path_of(&layer.digest)).unwrap();
    }
    let archive = open_archive(&honest, top, image.diff_ids().last(), LayerLimits::default()).unwrap();
    let mut entries = read(archive.reader());
    change(&mut entries);
    let mut writer = LayerWriter::new(&store, Compression::Gzip).unwrap();
    for (entry, bytes) in entries.values() {
        writer.add(entry, &mut &bytes[..]).unwrap();
    }
    let layer = writer.finish().unwrap();
    let mut config = image.config().clone();
    *config.rootfs.diff_ids.last_mut().unwrap() = layer.diff_id;
    let layers = below.iter().cloned().chain([layer.descriptor]).collect();
    let made = Image::assemble(&store, &config, layers).unwrap();
    store.set_ref("slipped", made.manifest()).unwrap();
    made
}

fn read(archive: impl Read) -> Entries {
    let mut entries = Entries::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let path = path.trim_end_matches('/').as_bytes().to_vec();
        let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Regular => Kind::File { size: bytes.len() as u64 },
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Symlink => Kind::Symlink(link),
            tar::EntryType::Link => Kind::HardLink(link),
            other => panic!("an entry of type {other:?}"),
        };
        let (uid, gid) = (header.uid().unwrap() as u32, header.gid().unwrap() as u32);
        let (mode, mtime) = (header.mode().unwrap(), header.mtime().unwrap());
        let made = Entry { path: path.clone(), kind, mode, uid, gid, mtime, xattrs: BTreeMap::new() };
        entries.insert(key(&path), (made, bytes));
    }
    entries
}

/// Signs nothing: whoever repeats a build on trust asks for no signature.
struct Nobody(PublicKey);

impl Signer for Nobody {
    fn public_key(&self) -> &PublicKey {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(vec![0; 64])
    }
}

/// The honest provenance, as a builder would word it who sends out another image.
fn forge(bundle: &Path, evil: &Image, public: &Path, to: &Path) {
    let bundle = Bundle::parse(&std::fs::read(bundle).unwrap()).unwrap();
    let mut statement = bundle.statement_unverified().unwrap().into_value();
    statement.subject = vec![Subject::image("average", &evil.digest())];
    let Predicate::Provenance(provenance) = &mut statement.predicate else { panic!("{statement:?}") };
    let internal = &mut provenance.build_definition.internal_parameters;
    internal.config_digest = evil.config_descriptor().digest;
    let (layer, top) = (internal.layers.last_mut().unwrap(), evil.layers().last().unwrap());
    (layer.diff_id, layer.digest, layer.size) = (*evil.diff_ids().last().unwrap(), top.digest, top.size);
    let nobody = Nobody(PublicKey::parse(&std::fs::read_to_string(public).unwrap()).unwrap());
    std::fs::write(to, sign(&statement, &nobody).unwrap().to_bytes()).unwrap();
}

/// What a comparison tells, by path.
fn told(comparison: &Value) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for layer in comparison["layers"].as_array().unwrap_or_else(|| panic!("{comparison}")) {
        assert_eq!(layer["unlisted"], 0);
        for entry in layer["entries"].as_array().unwrap() {
            all.entry(entry["path"].as_str().unwrap().to_owned()).or_default().push(entry["what"].clone());
        }
    }
    all
}
