//! Who may import whom, and what may come from outside: read from `cargo metadata`, so that the map in
//! `docs/architecture.md` cannot drift from the code.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each room and the rooms it may import. A room that is missing here fails the test.
const ALLOWED: &[(&str, &[&str])] = &[
    ("errors", &[]),
    ("attestations", &[]),
    ("jks", &[]),
    ("images", &["errors", "attestations", "jks"]),
    ("sandbox", &[]),
    ("recorder", &["errors", "attestations", "images", "sandbox"]),
    ("signers", &["errors", "attestations"]),
    ("admission", &["attestations", "errors", "images"]),
    ("countersign-builder", &["errors", "attestations", "jks", "images", "sandbox", "recorder", "signers"]),
    ("tlog", &["errors", "attestations"]),
    ("countersign-runner", &["admission", "attestations", "errors", "images", "sandbox", "signers", "tlog"]),
    ("testing", &["attestations", "images", "sandbox"]),
    ("tests", &["attestations", "images", "sandbox", "testing", "countersign-builder", "countersign-runner"]),
];

/// A second cryptographic provider or TLS stack would be a second thing to trust.
const BANNED: &[&str] = &["ring", "openssl-sys", "native-tls", "async-std"];

/// Rooms that must stay pure: bytes in, values out.
const IMPURE: &[&str] = &["tokio", "reqwest", "hyper", "rusqlite", "git2", "nix", "rustix", "rand"];

const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "0BSD",
    "Unlicense",
    "BSL-1.0",
    "OpenSSL",
    "MPL-2.0",
    "bzip2-1.0.6",
    "Apache-2.0 WITH LLVM-exception",
];

fn metadata() -> Value {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--manifest-path", manifest])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn packages(metadata: &Value) -> &Vec<Value> {
    metadata["packages"].as_array().unwrap()
}

fn members(metadata: &Value) -> Vec<&Value> {
    packages(metadata).iter().filter(|package| package["source"].is_null()).collect()
}

fn normal_dependencies(package: &Value) -> BTreeSet<&str> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap())
        .collect()
}

#[test]
fn each_room_imports_only_what_the_map_allows() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let rooms: BTreeSet<_> = members(&metadata).iter().map(|room| room["name"].as_str().unwrap()).collect();
    assert_eq!(
        rooms,
        allowed.keys().copied().collect(),
        "the rooms of the workspace are not those of the map"
    );
    for room in members(&metadata) {
        let name = room["name"].as_str().unwrap();
        for dependency in normal_dependencies(room).intersection(&rooms) {
            assert!(
                allowed[name].contains(dependency),
                "{name} imports {dependency}, which docs/architecture.md does not allow"
            );
        }
    }
}

#[test]
fn attestations_stay_pure() {
    let metadata = metadata();
    let rooms = members(&metadata);
    let room = rooms.iter().find(|room| room["name"] == "attestations").unwrap();
    for dependency in normal_dependencies(room) {
        assert!(
            !IMPURE.contains(&dependency),
            "attestations imports {dependency}: it must not know files, sockets, clocks or async"
        );
    }
}

/// The names of what is really compiled: metadata also lists what no feature turns on.
fn compiled() -> BTreeSet<String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--prefix=none", "--format={p}", "--locked", "--offline"])
        .args(["--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn nothing_banned_is_linked_and_every_licence_is_permissive() {
    let (metadata, compiled) = (metadata(), compiled());
    assert!(compiled.contains("rustls") && compiled.len() > 200, "the tree was not read: {compiled:?}");
    for banned in BANNED {
        assert!(!compiled.contains(*banned), "{banned} is linked");
    }
    for package in packages(&metadata) {
        let name = package["name"].as_str().unwrap();
        if compiled.contains(name) {
            let licence = package["license"].as_str().unwrap_or("none given");
            assert!(permissive(licence), "{name} is under {licence}");
        }
    }
}

/// An SPDX expression is fine when one side of every `OR` is: every term of each `AND` has to be allowed.
fn permissive(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let groups = expression.split(" AND ");
    groups.into_iter().all(|group| {
        group
            .split(" OR ")
            .any(|term| LICENCES.contains(&term.trim_matches(|c| c == '(' || c == ')' || c == ' ')))
    })
}

#[test]
fn the_licence_check_can_fail() {
    assert!(permissive("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!permissive("GPL-3.0-only"));
    assert!(!permissive("MIT AND GPL-3.0-only"));
}

#[test]
fn unsafe_code_lives_in_the_sandbox_alone() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let metadata = metadata();
    for room in members(&metadata).into_iter().filter(|room| room["name"] != "sandbox") {
        let manifest = std::fs::read_to_string(room["manifest_path"].as_str().unwrap()).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} does not take the workspace's lints",
            room["name"]
        );
    }
    let workspace = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}
