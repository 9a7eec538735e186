//! Stages that do not need each other are built side by side; nobody can tell from the image.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Outcome, Repository, base_image, builder, need, program, run};

const DOCKERFILE: &str = "FROM base:1 AS one
RUN echo I am one && sleep 3 && echo 1 >/one
FROM base:1 AS two
COPY a.txt /a
RUN echo I am two && sleep 3 && cat /a >/two
FROM two AS three
RUN --mount=type=bind,from=one,target=/from cat /from/one >/three
FROM base:1
COPY --from=two /two /
COPY --from=three /three /
";

struct Place {
    folder: tempfile::TempDir,
    base: PathBuf,
    repository: Repository,
}

impl Place {
    fn new(dockerfile: &str) -> (Self, String) {
        let folder = tempfile::TempDir::new().unwrap();
        let base = base_image(folder.path());
        let repository = Repository::new();
        repository.write("Dockerfile", dockerfile);
        repository.write("a.txt", "2\n");
        let commit = repository.commit("one");
        (Self { folder, base, repository }, commit)
    }

    fn arguments(&self, state: &str, commit: &str, more: &[&str]) -> Vec<String> {
        let state = self.folder.path().join(state).display().to_string();
        let (repository, base) = (self.repository.path().display().to_string(), self.base.display());
        let base = format!("base:1={base}");
        let fixed =
            ["--state-dir", &state, "build", "--repo", &repository, "--commit", commit, "--base", &base];
        fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }
}

fn events(built: &Outcome) -> Vec<Value> {
    built.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn is_alone() -> bool {
    let alone = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2;
    if alone {
        eprintln!("\n*** SKIP: one processor builds one stage at a time ***\n");
    }
    alone
}

#[test]
fn independent_stages_go_on_side_by_side_and_the_image_is_the_same() {
    need!("runc", "skopeo", "git", "taskset");
    if is_alone() {
        return;
    }
    let (place, commit) = Place::new(DOCKERFILE);
    let built = builder(place.arguments("state", &commit, &["--json"])).expect(0);
    let events = events(&built);
    let place_of = |event: &str, line: u64| {
        let found = events.iter().position(|it| it["event"] == event && it["line"] == line);
        found.unwrap_or_else(|| panic!("no {event} of line {line} in {}", built.stderr))
    };
    let first_done = place_of("step-done", 2).min(place_of("step-done", 5));
    assert!(place_of("step", 2).max(place_of("step", 5)) < first_done, "{}", built.stderr);
    assert!(place_of("step", 7) > place_of("step-done", 2).max(place_of("step-done", 5)));
    // What the image does not stand on is known, but not kept.
    let made = events.iter().filter(|it| it["event"] == "step-done" && !it["diff_id"].is_null()).count();
    let kept: Vec<_> =
        events.iter().filter(|it| it["event"] == "layer").map(|it| it["label"].as_str().unwrap()).collect();
    assert_eq!((made, kept), (6, vec!["[5/6] stage 3", "[6/6] stage 3"]), "{}", built.stderr);
    for (words, label) in [("I am one", "[1/6] one"), ("I am two", "[3/6] two")] {
        let said = events.iter().find(|it| it["text"] == words).unwrap();
        assert_eq!((&said["event"], &said["label"]), (&"output".into(), &label.into()));
    }
    // One processor builds in the order of the file, in a state of its own.
    let mut alone =
        vec!["-c".to_owned(), "0".to_owned(), program("countersign-builder").display().to_string()];
    alone.extend(place.arguments("alone", &commit, &[]));
    let alone = run("taskset", alone).expect(0);
    assert_eq!(alone.stdout.lines().next().unwrap(), built.json()["digest"].as_str().unwrap());
    assert!(alone.stderr.contains("[3/6] two | I am two"), "{}", alone.stderr);
}

#[test]
fn a_stage_that_fails_ends_those_beside_it() {
    need!("runc", "skopeo", "git");
    if is_alone() {
        return;
    }
    let (place, commit) = Place::new(
        "FROM base:1 AS slow\nRUN sleep 98765\nFROM base:1 AS wrong\nRUN sleep 1; exit 7\nFROM base:1\nCOPY --from=slow / /\nCOPY --from=wrong / /\n",
    );
    let begun = Instant::now();
    let failed = builder(place.arguments("state", &commit, &[])).expect(5);
    assert!(begun.elapsed() < Duration::from_secs(120));
    assert!(failed.text().contains("line 4") && failed.text().contains("exit code 7"), "{}", failed.text());
    let left = run("pgrep", ["-f", "^sleep 98765"]);
    assert_eq!(left.stdout, "", "what ran beside it was ended");
    assert_eq!(std::fs::read_dir(place.folder.path().join("state/builds")).unwrap().count(), 0);
}
