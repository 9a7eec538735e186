//! A log in files: what is changed, cut, reordered or forked is found, and a killed program loses nothing it has confirmed.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use attestations::{Algorithm, Signer};
use signers::Protection;
use tlog::{Checkpoint, Error, Hash, Log, Reader, SignedCheckpoint, VerifierKey};

const ORIGIN: &str = "node.example/log";

struct Site {
    folder: tempfile::TempDir,
    signer: Arc<dyn Signer>,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        signers::generate(&path, Algorithm::Ed25519, &Protection::Unprotected).unwrap();
        Self { signer: signer(&path), folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn open(&self) -> Result<Log, Error> {
        Log::open(&self.path(), ORIGIN, Arc::clone(&self.signer))
    }

    fn with(entries: u64) -> Self {
        let site = Self::new();
        let mut log = site.open().unwrap();
        for index in 0..entries {
            assert_eq!(log.append(&entry(index)).unwrap().index, index);
        }
        site
    }

    fn key(&self) -> VerifierKey {
        self.open().unwrap().key().clone()
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path(), &self.key()).unwrap()
    }
}

fn signer(path: &Path) -> Arc<dyn Signer> {
    Arc::from(signers::load(path, &mut || panic!("no password")).unwrap())
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index} {}", "x".repeat(usize::try_from(index % 50).unwrap())).into_bytes()
}

fn check(reader: &Reader, earlier: &[Checkpoint]) -> Result<(), Error> {
    let checked = reader.check::<Error>(earlier, |index, bytes| {
        assert_eq!(bytes, entry(index));
        Ok(())
    });
    checked.map(|_| ())
}

fn is_unproven(result: Result<impl Sized, Error>) -> bool {
    matches!(result, Err(Error::Unproven(_)))
}

#[test]
fn what_is_appended_is_there_proven_and_goes_on_after_reopening() {
    let site = Site::with(300);
    let mut log = site.open().unwrap();
    let before = log.reader().unwrap().checkpoint().clone();
    for index in 300..520 {
        log.append(&entry(index)).unwrap();
    }
    let reader = log.reader().unwrap();
    check(&reader, std::slice::from_ref(&before)).unwrap();
    for index in [0, 255, 256, 299, 300, 511, 512, 519] {
        assert_eq!(reader.entry(index).unwrap(), entry(index));
        let proof = tlog::Proof::parse(reader.prove(index).unwrap().to_string().as_bytes()).unwrap();
        assert_eq!(proof.verify(&entry(index), log.key()).unwrap().size, 520);
        assert!(is_unproven(proof.verify(&entry(index + 1), log.key())));
    }
    let consistency = reader.prove_since(before.size).unwrap();
    let Checkpoint { size, root, .. } = *reader.checkpoint();
    tlog::merkle::verify_consistency(&consistency, size, root, before.size, before.root).unwrap();
    assert!(matches!(reader.entry(520), Err(Error::NoEntry { .. })));
    assert!(matches!(log.append(&vec![0; 65_536]), Err(Error::TooLarge { .. })));
    log.append(&entry(520)).unwrap();
    check(&log.reader().unwrap(), &[before]).unwrap();
}

#[test]
fn two_programs_append_to_one_log() {
    let site = Site::new();
    let (mut one, mut other) = (site.open().unwrap(), site.open().unwrap());
    for index in (0..20).step_by(2) {
        assert_eq!(one.append(&entry(index)).unwrap().index, index);
        assert_eq!(other.append(&entry(index + 1)).unwrap().index, index + 1);
    }
    check(&site.reader(), &[]).unwrap();
}

#[test]
fn another_key_or_name_does_not_continue_a_log() {
    let (site, other) = (Site::with(3), Site::new());
    assert!(matches!(
        Log::open(&site.path(), "another.example", Arc::clone(&site.signer)),
        Err(Error::OtherLog { .. })
    ));
    assert!(matches!(Log::open(&site.path(), ORIGIN, other.signer), Err(Error::Unsigned(_))));
}

#[test]
fn an_exported_log_has_the_files_of_the_specification_and_verifies() {
    let site = Site::with(600);
    let to = site.folder.path().join("export");
    site.reader().export(&to).unwrap();
    let mut found: Vec<String> = files(&to).into_iter().map(|(name, _)| name).collect();
    found.sort();
    let wanted = [
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ];
    assert_eq!(found, wanted);
    let exported = Reader::open(&to, &site.key()).unwrap();
    check(&exported, &[]).unwrap();
    exported.prove(599).unwrap();
    assert!(matches!(site.reader().export(&to), Err(Error::File { .. })), "nothing is overwritten");
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let site = Site::with(300);
    let key = site.key();
    for (name, bytes) in files(&site.path()) {
        if name == "lock" {
            continue;
        }
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(site.path().join(&name), &changed).unwrap();
            let checked = Reader::open(&site.path(), &key)
                .and_then(|reader| reader.check(&[], |_, _| Ok::<_, Error>(())));
            assert!(checked.is_err(), "{name} at {at}");
        }
        fs::write(site.path().join(&name), &bytes).unwrap();
    }
    check(&site.reader(), &[]).unwrap();
}

#[test]
fn a_file_that_is_cut_or_gone_is_found() {
    let site = Site::with(300);
    let key = site.key();
    for (name, bytes) in files(&site.path()) {
        if name == "lock" {
            continue;
        }
        let path = site.path().join(&name);
        let wrong = |what: &str| {
            let checked = Reader::open(&site.path(), &key)
                .and_then(|reader| reader.check(&[], |_, _| Ok::<_, Error>(())));
            assert!(checked.is_err(), "{name} {what}");
        };
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        wrong("cut");
        fs::remove_file(&path).unwrap();
        wrong("gone");
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn reordered_entries_are_found() {
    let site = Site::with(10);
    let path = site.path().join("tile/entries/000");
    let bundle = fs::read(&path).unwrap();
    let mut entries: Vec<Vec<u8>> = tlog::layout::entries(&bundle).map(<[u8]>::to_vec).collect();
    entries.swap(3, 4);
    let bundle: Vec<u8> = entries.iter().flat_map(|entry| tlog::layout::framed(entry).unwrap()).collect();
    fs::write(&path, bundle).unwrap();
    assert!(is_unproven(site.reader().check(&[], |_, _| Ok::<_, Error>(()))));
    // With the hashes of the leaves reordered as well, only the signature is left to say so.
    let path = site.path().join("tile/0/000");
    let mut tile = fs::read(&path).unwrap();
    let (left, right) = tile[3 * 32..5 * 32].split_at_mut(32);
    left.swap_with_slice(right);
    fs::write(&path, tile).unwrap();
    let reader = Reader::open(&site.path(), &key_of(&site)).unwrap();
    assert!(is_unproven(reader.check(&[], |_, _| Ok::<_, Error>(()))));
    assert!(is_unproven(site.open().map(|_| ())), "nothing is appended to it");
}

fn key_of(site: &Site) -> VerifierKey {
    VerifierKey::new(ORIGIN, tlog::Purpose::Log, site.signer.public_key()).unwrap()
}

#[test]
fn a_log_that_was_put_back_is_found_by_whoever_kept_a_checkpoint() {
    let site = Site::with(5);
    let old = site.folder.path().join("old");
    copy(&site.path(), &old);
    let mut log = site.open().unwrap();
    for index in 5..9 {
        log.append(&entry(index)).unwrap();
    }
    let kept = log.reader().unwrap().checkpoint().clone();
    let reader = Reader::open(&old, log.key()).unwrap();
    check(&reader, &[]).unwrap();
    assert!(is_unproven(check(&reader, std::slice::from_ref(&kept))), "it was cut");
    // It goes on from there with other entries: a fork, as long as the first.
    let mut fork = Log::open(&old, ORIGIN, Arc::clone(&site.signer)).unwrap();
    for index in 5..12 {
        fork.append(&entry(index + 100)).unwrap();
    }
    let forked = fork.reader().unwrap().check(&[kept], |_, _| Ok::<_, Error>(()));
    assert!(is_unproven(forked), "it was forked");
}

#[test]
fn a_checkpoint_alone_that_was_put_back_cuts_nothing_off() {
    let site = Site::with(5);
    let path = site.path().join("checkpoint");
    let old = fs::read(&path).unwrap();
    let mut log = site.open().unwrap();
    for index in 5..9 {
        log.append(&entry(index)).unwrap();
    }
    let before = files(&site.path());
    fs::write(&path, old).unwrap();
    assert!(matches!(log.append(b"more"), Err(Error::Behind { size: 5, .. })));
    assert!(matches!(site.open(), Err(Error::Behind { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(site.open(), Err(Error::NoCheckpoint(_))));
    for (name, bytes) in before.iter().filter(|(name, _)| name.starts_with("tile/")) {
        assert_eq!(fs::read(site.path().join(name)).unwrap(), *bytes, "{name}");
    }
}

#[test]
fn what_an_append_left_half_written_is_cut_off() {
    for size in [0, 1, 255, 256, 300] {
        let site = Site::with(size);
        let checkpoint = fs::read(site.path().join("checkpoint")).unwrap();
        let before = files(&site.path());
        site.open().unwrap().append(&entry(size)).unwrap();
        let after = files(&site.path());
        // Each file as it is after any part of the append: none of it, half of it, all of it.
        for part in 0..3 {
            let fresh = site.folder.path().join(format!("part{part}"));
            for (name, bytes) in &after {
                let old = before.iter().find(|(other, _)| other == name).map_or(0, |(_, old)| old.len());
                let length = old + (bytes.len() - old) * part / 2;
                let path = fresh.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &bytes[..length.min(bytes.len())]).unwrap();
            }
            fs::write(fresh.join("checkpoint"), &checkpoint).unwrap();
            let mut log = Log::open(&fresh, ORIGIN, Arc::clone(&site.signer)).unwrap();
            check(&log.reader().unwrap(), &[]).unwrap();
            assert_eq!(log.append(&entry(size)).unwrap().index, size);
            check(&log.reader().unwrap(), &[]).unwrap();
        }
    }
}

/// The child of the test below: appends until it is killed, and says of each entry when it is there.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(folder) = std::env::var_os("TLOG_CHILD").map(PathBuf::from) else { return };
    let mut log = Log::open(&folder.join("log"), ORIGIN, signer(&folder.join("key.pem"))).unwrap();
    let mut out = std::io::stdout();
    loop {
        let next = log.reader().unwrap().checkpoint().size;
        let appended = log.append(&entry(next)).unwrap();
        assert_eq!(appended.index, next);
        out.write_all(format!("\nappended {next}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn kill_9_at_100_moments_loses_nothing_that_was_confirmed() {
    let site = Site::new();
    let mut earlier: Vec<Checkpoint> = Vec::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..100 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends_until_it_is_killed", "--nocapture"])
            .env("TLOG_CHILD", site.folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // It works from the first line on; the moment is anywhere in the appends after that.
        let first = lines.find_map(|line| confirmed(&line));
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(seed >> 50));
        child.kill().unwrap();
        let last = lines.filter_map(|line| confirmed(&line)).last().or(first).unwrap();
        child.wait().unwrap();
        let log = site.open().unwrap();
        let reader = log.reader().unwrap();
        assert!(reader.checkpoint().size > last, "entry {last} was confirmed");
        check(&reader, &earlier).unwrap();
        earlier.push(reader.checkpoint().clone());
    }
    let mut sizes: Vec<u64> = earlier.iter().map(|checkpoint| checkpoint.size).collect();
    sizes.dedup();
    assert!(sizes.len() > 90, "the children appended: {sizes:?}");
}

fn confirmed(line: &str) -> Option<u64> {
    line.strip_prefix("appended ")?.parse().ok()
}

#[test]
fn a_cosigned_checkpoint_keeps_its_cosignature_until_the_next_entry() {
    let (site, witness) = (Site::with(2), Site::new());
    let mut log = site.open().unwrap();
    let signed = log.reader().unwrap().signed().clone();
    let key =
        VerifierKey::new("witness.example", tlog::Purpose::Witness, witness.signer.public_key()).unwrap();
    let cosignature = tlog::cosignature::sign(&signed, &key, &*witness.signer, 1_700_000_000).unwrap();
    log.cosign(2, vec![cosignature.clone()]).unwrap();
    let read = SignedCheckpoint::parse(&fs::read(site.path().join("checkpoint")).unwrap()).unwrap();
    assert_eq!(tlog::cosignature::verify(&read, &key).unwrap(), 1_700_000_000);
    read.verify(log.key()).unwrap();
    log.append(&entry(2)).unwrap();
    log.cosign(2, vec![cosignature]).unwrap();
    let read = log.reader().unwrap().signed().clone();
    assert!(matches!(tlog::cosignature::verify(&read, &key), Err(Error::Unsigned(_))));
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for item in fs::read_dir(next).unwrap() {
            let path = item.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    found.push((name, fs::read(path).unwrap()));
                }
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn an_empty_log_is_one() {
    let site = Site::new();
    let log = site.open().unwrap();
    let reader = log.reader().unwrap();
    assert_eq!(
        (reader.checkpoint().size, reader.checkpoint().root),
        (0, Hash(*attestations::Digest::of(b"").as_bytes()))
    );
    check(&reader, &[]).unwrap();
    let to = site.folder.path().join("export");
    reader.export(&to).unwrap();
    check(&Reader::open(&to, log.key()).unwrap(), &[]).unwrap();
}
