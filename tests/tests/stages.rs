//! Stages that do not need each other are built side by side; nobody can tell from the image.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use testing::{Events, Outcome, Repository, base_image, builder, has_one_processor, need, program, run};

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

    /// On one processor, which builds in the order of the file, in a state of its own.
    fn build_alone(&self, commit: &str, more: &[&str]) -> Outcome {
        let builder = program("countersign-builder").display().to_string();
        let mut words = vec!["-c".to_owned(), "0".to_owned(), builder];
        words.extend(self.arguments("alone", commit, more));
        run("taskset", words).expect(0)
    }
}

#[test]
fn independent_stages_go_on_side_by_side_and_the_image_is_the_same() {
    need!("runc", "skopeo", "git", "taskset");
    if has_one_processor() {
        return;
    }
    let (place, commit) = Place::new(DOCKERFILE);
    let built = builder(place.arguments("state", &commit, &["--json"])).expect(0);
    let events = Events::of(&built);
    let first_done = events.before("step-done", 2).min(events.before("step-done", 5));
    assert!(events.before("step", 2).max(events.before("step", 5)) < first_done, "{}", built.stderr);
    assert!(events.before("step", 7) > events.before("step-done", 2).max(events.before("step-done", 5)));
    let events = events.0;
    // What the image does not stand on is known, but not kept.
    let made = events.iter().filter(|it| it["event"] == "step-done" && !it["diff_id"].is_null()).count();
    let kept: Vec<_> =
        events.iter().filter(|it| it["event"] == "layer").map(|it| it["label"].as_str().unwrap()).collect();
    assert_eq!((made, kept), (6, vec!["[5/6] stage 3", "[6/6] stage 3"]), "{}", built.stderr);
    for (words, label) in [("I am one", "[1/6] one"), ("I am two", "[3/6] two")] {
        let said = events.iter().find(|it| it["text"] == words).unwrap();
        assert_eq!((&said["event"], &said["label"]), (&"output".into(), &label.into()));
    }
    let alone = place.build_alone(&commit, &[]);
    assert_eq!(alone.stdout.lines().next().unwrap(), built.json()["digest"].as_str().unwrap());
    assert!(alone.stderr.contains("[3/6] two | I am two"), "{}", alone.stderr);
}

#[test]
fn a_stage_waits_for_another_at_the_step_that_needs_it() {
    need!("runc", "skopeo", "git", "taskset");
    if has_one_processor() {
        return;
    }
    let (place, commit) = Place::new(
        "FROM base:1 AS one\nRUN sleep 3 && echo 1 >/one\nFROM base:1\nRUN echo early >/early\nCOPY --from=one /one /\nRUN cat /early /one >/both\n",
    );
    let built = builder(place.arguments("state", &commit, &["--json"])).expect(0);
    let events = Events::of(&built);
    let (early, one) = (events.before("step-done", 4), events.before("step-done", 2));
    assert!(early < one && one < events.before("step", 5), "{}", built.stderr);
    // What is told at the end stands in the order of the file.
    let steps = &events.0.iter().find(|it| it["event"] == "summary").unwrap()["steps"];
    let labels = steps.as_array().unwrap().iter().map(|step| step["label"].as_str().unwrap());
    assert_eq!(labels.collect::<Vec<_>>(), ["[1/4] one", "[2/4] stage 1", "[3/4] stage 1", "[4/4] stage 1"]);
    let alone = place.build_alone(&commit, &["--json"]);
    assert_eq!(alone.json()["digest"], built.json()["digest"]);
    let lines: Vec<_> = Events::of(&alone).0.iter().filter_map(|it| it["line"].as_u64()).collect();
    assert!(lines.is_sorted(), "one processor goes by the file: {lines:?}");
}

#[test]
fn an_image_says_what_is_done_in_those_built_on_it() {
    need!("runc", "skopeo", "git");
    let (place, commit) = Place::new(concat!(
        "FROM base:1\nONBUILD ARG WHO\nONBUILD COPY --from=tool /tool /tool\n",
        "ONBUILD RUN --mount=from=other:1,target=/other cat /tool /other/other >/both && echo $WHO >>/both\n",
        "ONBUILD COPY <<E /here\nof $WHO\nE\n",
    ));
    let folder = |name: &str| place.folder.path().join(name).display().to_string();
    builder(place.arguments("state", &commit, &["--oci", &folder("parent")])).expect(0);
    place.repository.write("Dockerfile", "FROM base:1\nRUN echo other >/other\n");
    let commit = place.repository.commit("two");
    builder(place.arguments("state", &commit, &["--oci", &folder("other")])).expect(0);
    place.repository.write("Dockerfile", "FROM base:1 AS tool\nRUN echo tool >/tool\nFROM parent:1\n");
    let commit = place.repository.commit("three");
    let bases = [format!("parent:1={}", folder("parent")), format!("other:1={}", folder("other"))];
    let more = ["--base", &bases[0], "--base", &bases[1]];
    let unknown =
        builder(place.arguments("state", &commit, &[&more[..], &["--build-arg", "WHOM=x"]].concat()));
    assert!(unknown.expect(3).stderr.contains("no ARG declares the build argument WHOM"));
    let target = format!("type=local,dest={}", folder("target"));
    let asked = [&more[..], &["--json", "--build-arg", "WHO=carol", "--output", &target]].concat();
    let built = builder(place.arguments("state", &commit, &asked)).expect(0);
    let read = |name: &str| std::fs::read_to_string(place.folder.path().join("target").join(name)).unwrap();
    assert_eq!((read("both").as_str(), read("here").as_str()), ("tool\nother\ncarol\n", "of carol\n"));
    let fetched = Events::of(&built).0;
    let fetched =
        fetched.iter().filter(|it| it["event"] == "base-fetched").map(|it| it["name"].as_str().unwrap());
    assert_eq!(fetched.collect::<Vec<_>>(), ["parent:1", "other:1", "base:1"]);
}

#[test]
fn a_stage_that_fails_ends_those_beside_it() {
    need!("runc", "skopeo", "git");
    if has_one_processor() {
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
