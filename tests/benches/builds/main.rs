//! Whole builds of real algorithms beside Docker and BuildKit: the same tree, the same base, the same registries, in one
//! run. Medians of pairs, never a verdict.
//!
//! `cargo bench -p tests --bench builds` as root, with the programs built in release mode. `ROUNDS` says how many pairs
//! (default 3), `ONLY` which rows. BuildKit is measured where `buildkitd` and `buildctl` are on the PATH.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod peers;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use peers::Docker;
use serde_json::Value;
use testing::timing::{Table, seconds};
use testing::{Registry, Repository, cannot_run, program, python_base, run};

/// What the Dockerfiles call their base.
pub(crate) const BASE: &str = "debian-python:bookworm";

fn main() {
    if let Some(reason) = cannot_run(&["runc", "skopeo", "dockerd", "docker", "mmdebstrap", "git"]) {
        println!("*** SKIP: {reason} ***");
        return;
    }
    let rounds = std::env::var("ROUNDS").map_or(3, |text| text.parse().unwrap());
    let only = std::env::var("ONLY").unwrap_or_default();
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let docker = Docker::start(place.path());
    let buildkit = peers::buildkit(place.path(), &docker);
    if buildkit.is_none() {
        println!("BuildKit is not measured: `buildkitd` and `buildctl` are not on the PATH");
    }
    let (registry, pushed) = (Registry::start(), Cell::new(0));
    docker.push_base(&registry.name("base:1"));
    let table = Table::seconds(rounds);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = [
        ("demo", here.join("../demo/algorithm")),
        ("wheels", here.join("benches/algorithms/wheels")),
        ("stages", here.join("benches/algorithms/stages")),
    ];
    for (name, tree) in cases {
        let ours = Ours::new(place.path(), &tree);
        let row = |what: &str, aim: &str, ours: &dyn Fn() -> f64, peer: &dyn Fn() -> f64| {
            let what = format!("{name}: {what}");
            if what.contains(&only) {
                table.pairs(&what, aim, ours, peer);
            }
        };
        row("build / `docker build --no-cache`", "≤ 0.8", &|| ours.build(), &|| docker.build(&tree));
        if let Some(buildkit) = &buildkit {
            let peer = || peers::reproducible(buildkit, &tree, &place.path().join("buildkit.tar"));
            row("build / BuildKit, reproducible export", "≤ 0.65", &|| ours.build(), &peer);
        }
        let name_of = |whose: &str| registry.name(&format!("{whose}-{}:1", pushed.replace(pushed.get() + 1)));
        let publish = || ours.publish(&name_of("ours"));
        let peer = || docker.publish(&tree, &name_of("peer"));
        row("build and push / `docker build --no-cache` and `docker push`", "–", &publish, &peer);
        let like = "build like the one of the commit before / `docker build --no-cache`";
        row(like, "–", &|| ours.like(), &|| docker.build(&tree));
        let aim = if name == "demo" { "≤ 0.65" } else { "–" };
        row("offline rebuild / `docker build --no-cache`", aim, &|| ours.replay(), &|| docker.build(&tree));
    }
}

/// The builder with a state of its own, in which the base is unpacked, as it is in the peers.
struct Ours {
    state: PathBuf,
    source: Repository,
    commit: String,
    later: String,
}

impl Ours {
    fn new(place: &Path, tree: &Path) -> Self {
        let source = Repository::of(tree);
        let commit = source.commit("an algorithm");
        let later = source.commit_later("the same again");
        let state = place.join("state");
        Self { state, source, commit, later }
    }

    fn build(&self) -> f64 {
        seconds(|| self.call(&self.commit, &[]))
    }

    /// Builds a commit and pushes the image, to where nothing was before.
    fn publish(&self, name: &str) -> f64 {
        seconds(|| self.call(&self.commit, &["--push", name]))
    }

    /// Builds a commit, and then times the next one, which has another time.
    fn like(&self) -> f64 {
        let built = self.call(&self.commit, &[]);
        seconds(|| self.call(&self.later, &["--like", built["digest"].as_str().unwrap()]))
    }

    fn replay(&self) -> f64 {
        let built = self.call(&self.commit, &[]);
        let digest = built["digest"].as_str().unwrap();
        let mut again = Value::Null;
        let taken = seconds(|| again = self.call(&self.commit, &["--replay", digest]));
        assert_eq!(again["digest"], built["digest"]);
        taken
    }

    fn call(&self, commit: &str, more: &[&str]) -> Value {
        let (state, source) = (self.state.display().to_string(), self.source.path().display().to_string());
        let base = format!("{BASE}={}", python_base().display());
        let words = [
            "--state-dir",
            &state,
            "--json",
            "build",
            "--repo",
            &source,
            "--commit",
            commit,
            "--base",
            &base,
        ];
        run(program("countersign-builder"), [&words, more].concat()).expect(0).json()
    }
}
