//! What a step costs that has little to do, and what many cost: beside a bare `runc run` and beside Docker, in one run.
//! Medians of pairs, never a verdict.
//!
//! `cargo bench -p tests --bench steps` as root, with the programs built in release mode.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use testing::timing::{Table, median, seconds};
use testing::{Engine, Outcome, Repository, base_image, cannot_run, program, run};

const ROUNDS: usize = 7;
/// Steps of one build.
const STEPS: usize = 50;
const FILES: usize = 100_000;

fn main() {
    if let Some(reason) = cannot_run(&["runc", "skopeo", "dockerd", "docker", "git"]) {
        println!("*** SKIP: {reason} ***");
        return;
    }
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let base = base_image(place.path());
    let ours = Ours { state: place.path().join("state"), base: base.clone() };
    let table = Table::milliseconds(ROUNDS);

    let empty = Tree::new(&(0..STEPS).map(|_| "RUN true\n".to_owned()).collect::<String>(), |_| {});
    let step = || median(ours.steps(&empty));
    let bundle = bundle(place.path(), &place.path().join("tree"));
    table.pairs("an empty RUN / a bare `runc run`", "≤ 1.5", step, || bare(&bundle));

    let writing =
        (0..STEPS).map(|number| format!("RUN echo {number} > /file-{number}\n")).collect::<String>();
    let writing = Tree::new(&writing, |_| {});
    let halves = |late: bool| {
        let steps = ours.steps(&writing);
        median(if late { &steps[STEPS - 10..] } else { &steps[..10] }.iter().copied())
    };
    table.pairs(
        "the last ten of 50 RUNs that write / the first ten",
        "≈ 1",
        || halves(true),
        || halves(false),
    );

    let engine = Engine::start();
    engine.load(&base, "base:1");
    let docker = |tree: &Tree| {
        seconds(|| {
            let folder = tree.source.path().display().to_string();
            engine.build(&["--network", "none", &folder]).expect(0)
        })
    };
    let table = Table::seconds(3);
    let build = |tree: &Tree| seconds(|| ours.build(tree));
    table.pairs(
        "50 RUNs that write / `docker build --no-cache`",
        "–",
        || build(&writing),
        || docker(&writing),
    );
    let many = Tree::new("COPY files /files\n", |folder| {
        for number in 0..FILES {
            let path = folder.join(format!("files/{}/{number}", number % 500));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, number.to_string().repeat(20)).unwrap();
        }
    });
    table.pairs(
        "COPY of 100,000 small files / `docker build --no-cache`",
        "≤ 0.5",
        || build(&many),
        || docker(&many),
    );
}

/// A repository with a Dockerfile on the base of busybox.
struct Tree {
    source: Repository,
    commit: String,
}

impl Tree {
    fn new(steps: &str, plant: impl FnOnce(&Path)) -> Self {
        let source = Repository::new();
        source.write("Dockerfile", &format!("FROM base:1\n{steps}"));
        plant(&source.path());
        let commit = source.commit("a tree");
        // Docker has no need to read the repository along with the tree.
        source.write(".dockerignore", ".git\n");
        Self { source, commit }
    }
}

struct Ours {
    state: PathBuf,
    base: PathBuf,
}

impl Ours {
    fn build(&self, tree: &Tree) -> Outcome {
        let (state, source) = (self.state.display().to_string(), tree.source.path().display().to_string());
        let base = format!("base:1={}", self.base.display());
        let words = ["--state-dir", &state, "--json", "build", "--repo", &source, "--commit", &tree.commit];
        run(program("countersign-builder"), words.iter().copied().chain(["--base", base.as_str()])).expect(0)
    }

    /// The seconds of each step.
    fn steps(&self, tree: &Tree) -> Vec<f64> {
        let built = self.build(tree);
        let events = built.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let done = events.filter(|event| event["event"] == "step-done");
        let seconds: Vec<f64> = done.map(|event| event["seconds"].as_f64().unwrap()).collect();
        assert_eq!(seconds.len(), STEPS);
        seconds
    }
}

/// A bundle that runs `true` in the base's tree, with the runtime's own default configuration.
fn bundle(place: &Path, root: &Path) -> PathBuf {
    let bundle = place.join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    run("runc", ["spec", "--bundle", bundle.to_str().unwrap()]).expect(0);
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = vec!["/bin/true"].into();
    config["root"]["path"] = root.to_str().unwrap().into();
    std::fs::write(file, config.to_string()).unwrap();
    bundle
}

fn bare(bundle: &Path) -> f64 {
    let once = || {
        let mut command = Command::new("runc");
        command.args(["run", "--bundle"]).arg(bundle).arg(format!("bare-{}", std::process::id()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        seconds(|| assert!(command.status().unwrap().success()))
    };
    median((0..STEPS).map(|_| once()))
}
