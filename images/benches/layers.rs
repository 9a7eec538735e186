//! The speed and the memory of a layer, beside real peers in the same run: medians of pairs, never a verdict.
//!
//! `cargo bench --workspace --bench layers`. Memory is the peak of a process of its own (`VmHWM`) that does nothing
//! else. Peers that are not installed are named as missing.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use images::Store;
use images::layer::{Compression, Layer, LayerLimits, Normaliser, from_upper, unpack};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 5;
const MIB: u64 = 1 << 20;
/// The size of the tree that is not compressed.
const PLAIN: u64 = 1024 * MIB;
/// The most of this machine's own programs and libraries that are compressed.
const PROGRAMS: u64 = 256 * MIB;
/// What BuildKit compresses with: Go's own package, at its own level, on one thread.
const GO: &str = r#"package main

import (
	"compress/gzip"
	"io"
	"os"
)

func main() {
	out := gzip.NewWriter(io.Discard)
	if _, err := io.Copy(out, os.Stdin); err != nil {
		panic(err)
	}
	if err := out.Close(); err != nil {
		panic(err)
	}
}
"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, from, to] = &arguments[..] {
        return measured(mode, Path::new(from), Path::new(to));
    }
    println!("| what | ours | peer | ratio |\n|---|---|---|---|");
    let memory = Path::new("/dev/shm");
    let disk = Path::new("/var/tmp");
    for (at, what) in [(memory, "in memory"), (disk, "on the disk, flushed")] {
        uncompressed(at, what);
    }
    compressed(memory);
    large(disk);
    many(memory);
}

/// Ours: read, hashed, written and named. The peer: read and hashed.
fn uncompressed(at: &Path, what: &str) {
    let place = tempfile::tempdir_in(at).unwrap();
    let upper = place.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let names: Vec<PathBuf> = (0..4).map(|name| upper.join(name.to_string())).collect();
    names.iter().for_each(|name| fill(name, PLAIN / 4));
    let ours = || {
        let begun = Instant::now();
        layer(&upper, &place.path().join("store"), Compression::None);
        let seconds = begun.elapsed().as_secs_f64();
        fs::remove_dir_all(place.path().join("store")).unwrap();
        seconds
    };
    let peer = || {
        let begun = Instant::now();
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        for name in &names {
            let mut file = File::open(name).unwrap();
            while let count @ 1.. = file.read(&mut buffer).unwrap() {
                hash.update(&buffer[..count]);
            }
        }
        std::hint::black_box(hash.finalize());
        begun.elapsed().as_secs_f64()
    };
    pairs(&format!("a layer of 1 GiB, not compressed, {what} / SHA-256 alone"), PLAIN, ours, peer);
}

/// Ours: from a tree. The peers: from the archive of it, which they need not make.
fn compressed(at: &Path) {
    let place = tempfile::tempdir_in(at).unwrap();
    let upper = place.path().join("upper");
    fs::create_dir(&upper).unwrap();
    programs(&upper);
    let (store, plain) = layer(&upper, &place.path().join("plain"), Compression::None);
    let archive = store.path_of(&plain.descriptor.digest);
    let size = plain.descriptor.size;
    let ours = || {
        let begun = Instant::now();
        layer(&upper, &place.path().join("store"), Compression::Gzip);
        let seconds = begun.elapsed().as_secs_f64();
        fs::remove_dir_all(place.path().join("store")).unwrap();
        seconds
    };
    let mut peers: Vec<(&str, Vec<String>)> = vec![
        ("`gzip -6`", vec!["gzip".into(), "-6".into()]),
        ("`pigz -6` on all processors", vec!["pigz".into(), "-6".into()]),
    ];
    match go(place.path()) {
        Some(program) => peers.push(("Go's compress/gzip, which BuildKit uses", vec![program])),
        None => println!("| gzip / Go's compress/gzip, which BuildKit uses | – | `go` is missing | – |"),
    }
    for (name, command) in peers {
        if command[0] != "gzip"
            && Command::new(&command[0]).arg("--version").stdin(Stdio::null()).output().is_err()
        {
            println!("| gzip / {name} | – | `{}` is missing | – |", command[0]);
            continue;
        }
        let peer = || {
            let begun = Instant::now();
            let mut running = Command::new(&command[0]);
            running.args(&command[1..]).stdin(File::open(&archive).unwrap()).stdout(Stdio::null());
            assert!(running.status().unwrap().success());
            begun.elapsed().as_secs_f64()
        };
        pairs(&format!("gzip of {} MiB of programs, tree to blob / {name}", size / MIB), size, ours, peer);
    }
}

fn go(folder: &Path) -> Option<String> {
    fs::write(folder.join("peer.go"), GO).unwrap();
    let made = folder.join("peer");
    let outcome = Command::new("go")
        .args(["build", "-o"])
        .args([&made, &folder.join("peer.go")])
        .current_dir(folder)
        .env("GOFLAGS", "-mod=mod")
        .env("GOTOOLCHAIN", "local")
        .output();
    outcome.is_ok_and(|it| it.status.success()).then(|| made.display().to_string())
}

/// A file of 4 GiB: memory, and time for what it is worth on this disk.
fn large(at: &Path) {
    let place = tempfile::tempdir_in(at).unwrap();
    let upper = place.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fill(&upper.join("large"), 4096 * MIB);
    for mode in ["none", "gzip", "zstd"] {
        peak(&format!("a layer of 4 GiB, {mode}"), mode, &upper, place.path());
    }
}

/// A million entries: most in one directory with long names, some nested, a quarter of them hard links.
fn many(at: &Path) {
    let place = tempfile::tempdir_in(at).unwrap();
    let upper = place.path().join("upper");
    fs::create_dir_all(upper.join("flat")).unwrap();
    for index in 0_u64..500_000 {
        // Far from the order of the layer.
        let name = format!("{:016x}{}", index.wrapping_mul(0x9e37_79b9_7f4a_7c15), "n".repeat(100));
        fs::write(upper.join("flat").join(&name), b"x").unwrap();
        if index % 2 == 0 {
            fs::hard_link(upper.join("flat").join(&name), upper.join("flat").join(format!("{name}-link")))
                .unwrap();
        }
    }
    for index in 0..2490 {
        let folder = upper.join(format!("deep/{}/{}", index % 50, index));
        fs::create_dir_all(&folder).unwrap();
        (0..99).for_each(|name| fs::write(folder.join(name.to_string()), b"x").unwrap());
    }
    peak("a layer of 10⁶ entries, gzip", "gzip", &upper, place.path());
    peak("the same unpacked", "unpack", &place.path().join("gzip"), place.path());
}

fn peak(what: &str, mode: &str, from: &Path, folder: &Path) {
    let begun = Instant::now();
    let to = folder.join(mode);
    let outcome =
        Command::new(std::env::current_exe().unwrap()).arg(mode).args([from, &to]).output().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    let said = String::from_utf8(outcome.stdout).unwrap();
    println!("| {what}: peak memory | {} in {seconds:.0} s | – | – |", said.trim());
}

/// In a process of its own.
fn measured(mode: &str, from: &Path, to: &Path) {
    let entries = match mode {
        "unpack" => {
            let store = Store::open_existing(from).unwrap();
            let described = fs::read_to_string(from.join("layer")).unwrap();
            let (descriptor, diff_id, entries): (_, String, u64) = serde_json::from_str(&described).unwrap();
            fs::create_dir(to).unwrap();
            unpack(&store, &descriptor, &diff_id.parse().unwrap(), to, LayerLimits::default()).unwrap();
            entries
        }
        _ => {
            let form = match mode {
                "none" => Compression::None,
                "gzip" => Compression::Gzip,
                _ => Compression::Zstd,
            };
            let (_, layer) = layer(from, to, form);
            let described = (&layer.descriptor, layer.diff_id.to_string(), layer.entries);
            fs::write(to.join("layer"), serde_json::to_string(&described).unwrap()).unwrap();
            layer.entries
        }
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    println!("{:.1} MiB ({entries} entries)", kib as f64 / 1024.0);
}

fn layer(upper: &Path, store: &Path, compression: Compression) -> (Store, Layer) {
    let store = Store::open(store).unwrap();
    let made = from_upper(&store, upper, &[], 1_700_000_000, compression, Normaliser::Version1).unwrap();
    (store, made.layer.unwrap().layer().unwrap())
}

/// Bytes of which about half are news, as in a model's weights.
fn fill(path: &Path, size: u64) {
    let mut file = File::create(path).unwrap();
    let mut state = path.as_os_str().as_bytes().iter().fold(1_u64, |sum, byte| sum * 31 + u64::from(*byte));
    let mut block = vec![0_u8; MIB as usize];
    for _ in 0..size / MIB {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word[..4].copy_from_slice(&state.to_le_bytes()[4..]);
        }
        file.write_all(&block).unwrap();
    }
}

/// Copies of this machine's programs and libraries.
fn programs(upper: &Path) {
    let mut left = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib")];
    let (mut copied, mut count) = (0, 0);
    while let Some(folder) = left.pop() {
        let mut children: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|child| child.unwrap().path()).collect();
        children.sort();
        for path in children {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                left.push(path);
            } else if metadata.is_file() && metadata.len() < 16 * MIB && copied + metadata.len() <= PROGRAMS {
                fs::copy(&path, upper.join(count.to_string())).unwrap();
                copied += metadata.len();
                count += 1;
            }
        }
    }
}

/// Runs both in turn and prints the medians as throughput, and the median of the ratios of the pairs.
fn pairs(what: &str, size: u64, ours: impl Fn() -> f64, peer: impl Fn() -> f64) {
    ours();
    peer();
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (x, y) = (ours(), peer());
        a.push(x);
        b.push(y);
        ratios.push(y / x);
    }
    let speed = |times: &mut Vec<f64>| size as f64 / 1e6 / median(times);
    println!(
        "| {what} | {:.0} MB/s | {:.0} MB/s | {:.2} |",
        speed(&mut a),
        speed(&mut b),
        median(&mut ratios)
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
