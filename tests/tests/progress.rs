//! What a person sees of a build, on a real terminal, and a machine.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use serde_json::Value;
use testing::{Outcome, Registry, Repository, Shown, base_image, builder, need, on_terminal, program, run};

const DOCKERFILE: &str = "FROM base:1 AS one
RUN for i in 1 2 3 4 5 6; do echo one says $i; done; printf '\\033]0;title\\007\\033[31mred\\033[2J\\n'; sleep 2; echo 1 >/one
FROM base:1 AS two
ENV A=b
RUN echo two speaks; sleep 2; echo 2 >/two
FROM base:1
COPY --from=one /one /
COPY --from=two /two /
";

struct Place {
    folder: tempfile::TempDir,
    registry: Registry,
    repository: Repository,
    commit: String,
}

impl Place {
    fn new(dockerfile: &str) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let registry = Registry::start();
        let base: PathBuf = base_image(folder.path());
        let to = format!("docker://{}", registry.name("base:1"));
        run("skopeo", ["copy", "--dest-tls-verify=false", &format!("oci:{}", base.display()), &to]).expect(0);
        let repository = Repository::new();
        repository.write("Dockerfile", dockerfile);
        let commit = repository.commit("one");
        Self { folder, registry, repository, commit }
    }

    fn arguments(&self, state: &str, more: &[&str]) -> Vec<String> {
        let state = self.folder.path().join(state).display().to_string();
        let repository = self.repository.path().display().to_string();
        let base = format!("base:1={}", self.registry.name("base:1"));
        let fixed = [
            "--state-dir",
            &state,
            "build",
            "--repo",
            &repository,
            "--commit",
            &self.commit,
            "--base",
            &base,
        ];
        fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    fn shown(&self, state: &str, environment: &[(&str, &str)], typed: (&str, &str), more: &[&str]) -> Shown {
        let program = program("countersign-builder").display().to_string();
        on_terminal(&program, &self.arguments(state, more), environment, typed)
    }
}

/// Whether lines follow each other somewhere, each beginning and ending so.
fn stands(frame: &str, wanted: &[(&str, &str)]) -> bool {
    let lines: Vec<&str> = frame.lines().collect();
    let fits = |(line, (begin, end)): (&&str, &(&str, &str))| {
        line.trim_start_matches(|letter: char| !letter.is_ascii_graphic()).starts_with(begin)
            && line.ends_with(end)
    };
    lines.windows(wanted.len()).any(|some| some.iter().zip(wanted).all(fits))
}

#[test]
fn a_terminal_shows_what_goes_on_and_keeps_a_line_of_what_is_done() {
    need!("runc", "git", "skopeo", "docker-registry", "script");
    let place = Place::new(DOCKERFILE);
    let tag = place.registry.name("out:1");
    let shown = place.shown("state", &[], ("", ""), &["--tag", &tag, "--push"]);
    let last = shown.last();
    assert_eq!(shown.code, 0, "{last}");
    // While it went on: the time so far behind the step, the last lines that it printed below it, and both stages at once.
    let tail = [
        ("[1/5] one  RUN for i", "s"),
        ("one says 4", ""),
        ("one says 5", ""),
        ("one says 6", ""),
        ("red", "red"),
    ];
    let both = |frame: &&String| {
        stands(frame, &tail) && stands(frame, &[("[3/5] two  RUN echo two speaks", "s"), ("two speaks", "")])
    };
    let alone = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2;
    assert!(shown.frames.iter().any(|frame| stands(frame, &tail)), "{}", shown.frames.join("\n--------\n"));
    assert!(alone || shown.frames.iter().any(|frame| both(&frame)), "{}", shown.frames.join("\n--------\n"));
    // What is left: a line for each thing that was done, and nothing of what was going on.
    let fetched =
        last.lines().find(|line| line.starts_with("✔ base base:1 ")).unwrap_or_else(|| panic!("{last}"));
    assert!(fetched.contains("fetched in"), "{last}");
    for (begin, end) in [
        ("✔ [1/5] one  RUN for i", "s"),
        ("✔ [2/5] two  ENV A=b", "b"),
        ("✔ [3/5] two  RUN echo two speaks", "s"),
        ("✔ [4/5] stage 2  COPY --from=one /one /", "s"),
        ("✔ [5/5] stage 2  COPY --from=two /two /", "s"),
        (&format!("✔ push {tag}  "), ""),
        (&format!("pushed {tag}"), ""),
    ] {
        assert!(last.lines().any(|line| line.starts_with(begin) && line.ends_with(end)), "{begin}: {last}");
    }
    assert!(last.contains(": 5 steps in "), "{last}");
    assert!(!last.contains("one says 6") && !last.contains("    two speaks"), "{last}");
    // Colours are its own: a step's never come through, nor its window's title.
    let text = String::from_utf8_lossy(&shown.bytes);
    assert!(
        text.contains("\u{1b}[32m") && !text.contains("\u{1b}[31m") && !text.contains("\u{1b}]"),
        "{last}"
    );
}

#[test]
fn a_failing_step_is_marked_and_its_last_output_stands_below() {
    need!("runc", "git", "skopeo", "docker-registry", "script");
    let place = Place::new("FROM base:1\nRUN for i in 1 2 3 4 5 6 7 8; do echo line $i; done; exit 3\n");
    let shown = place.shown("state", &[("NO_COLOR", "1")], ("", ""), &[]);
    let last = shown.last();
    assert_eq!(shown.code, 5, "{last}");
    assert!(last.lines().any(|line| line.starts_with("✘ [1/1] stage 0  RUN for i")), "{last}");
    let error = last.split("error: ").nth(1).unwrap_or_else(|| panic!("{last}"));
    for number in 1..=8 {
        assert!(error.lines().any(|line| line == format!("  | line {number}")), "{last}");
    }
    assert!(!String::from_utf8_lossy(&shown.bytes).contains("\u{1b}[32m"), "NO_COLOR");
}

#[test]
fn an_interrupt_takes_away_what_was_shown_and_cleans_up() {
    need!("runc", "git", "skopeo", "docker-registry", "script");
    let place = Place::new("FROM base:1\nRUN echo begun; exec busybox sleep 65454\n");
    let shown = place.shown("state", &[], ("    begun", "\u{3}"), &[]);
    let last = shown.last();
    assert_eq!(shown.code, 5, "{last}");
    assert!(last.contains("error: the build was interrupted"), "{last}");
    assert!(last.lines().any(|line| line.starts_with("✘ [1/1]")) && !last.contains("    begun"), "{last}");
    // Nothing that went on is left, not even a line that the echo of Ctrl-C pushed down; and the cursor was never hidden, since the terminal
    // of the test refuses that.
    assert_eq!(last.matches("[1/1]").count(), 1, "{last}");
    assert_eq!(std::fs::read_dir(place.folder.path().join("state/builds")).unwrap().count(), 0);
    assert_eq!(run("pgrep", ["-f", "^busybox sleep 65454"]).stdout, "");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(place.folder.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn without_a_terminal_that_can_move_its_cursor_there_are_lines() {
    need!("runc", "git", "skopeo", "docker-registry", "script");
    let place = Place::new("FROM base:1\nRUN printf 'a\\033[31mb\\r\\n'\n");
    let dumb = place.shown("state", &[("TERM", "dumb")], ("", ""), &[]);
    let piped = builder(place.arguments("state", &["--progress=rich"])).expect(0);
    for text in [dumb.last(), &piped.stderr] {
        assert!(text.contains("[1/1] stage 0: RUN printf") && text.contains("\n    ab\n"), "{text}");
        assert!(text.contains("[1/1] stage 0: done in ") && !text.contains('\u{1b}'), "{text}");
    }
    let quiet = builder(place.arguments("state", &["--progress=quiet"])).expect(0);
    assert_eq!(quiet.stderr, "");
    let events = |outcome: &Outcome| {
        let events: Vec<Value> =
            outcome.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let wanted = ["platform", "base", "base-fetched", "step", "output", "step-done", "summary"];
    let json = builder(place.arguments("state", &["--progress=json"])).expect(0);
    assert_eq!(events(&json), wanted);
    assert!(json.stdout.starts_with("sha256:"), "{}", json.stdout);
    assert_eq!(events(&builder(place.arguments("state", &["--json", "--progress=plain"])).expect(0)), wanted);
    assert_eq!(builder(place.arguments("state", &["--json", "--quiet"])).expect(0).stderr, "");
}

#[test]
fn a_layer_is_compressed_while_the_next_step_goes_on() {
    need!("runc", "git", "skopeo", "docker-registry");
    let place = Place::new(
        "FROM base:1\nRUN head -c 150000000 /dev/urandom >/large\nRUN echo 2 >/small\nCOPY Dockerfile /\nENV A=b\n",
    );
    let built = builder(place.arguments("state", &["--progress=json"])).expect(0);
    let events: Vec<Value> = built.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    let (done, layers) = (of("step-done"), of("layer"));
    // Each is told once, in the order of the steps, as what its step said it would be.
    let made: Vec<&Value> = done.iter().filter(|event| !event["diff_id"].is_null()).copied().collect();
    assert_eq!((done.len(), made.len(), layers.len()), (4, 3, 3), "{}", built.stderr);
    for (made, layer) in made.iter().zip(&layers) {
        assert_eq!((&made["label"], &made["diff_id"]), (&layer["label"], &layer["diff_id"]));
    }
    let summary = of("summary");
    let steps = summary[0]["steps"].as_array().unwrap().iter().filter(|step| !step["layer"].is_null());
    let told: Vec<_> = steps.map(|step| (&step["label"], &step["layer"], &step["size"])).collect();
    let wanted: Vec<_> =
        layers.iter().map(|layer| (&layer["label"], &layer["digest"], &layer["size"])).collect();
    assert_eq!(told, wanted);
    // The large one, which becomes no smaller, was not waited for.
    let place_of = |name: &str, label: &str| {
        let is_it =
            |event: &Value| event["event"] == name && event["label"].as_str().unwrap().starts_with(label);
        events.iter().position(is_it).unwrap()
    };
    assert!(layers[0]["size"].as_u64().unwrap() >= 150_000_000, "{}", built.stderr);
    assert!(place_of("layer", "[1/4]") > place_of("step", "[2/4]"), "{}", built.stderr);
}

#[test]
fn what_a_dockerfile_says_cannot_steer_a_terminal_either() {
    need!("runc", "git", "skopeo", "docker-registry");
    let place = Place::new("FROM base:1\nENV A=\"\u{1b}[2J\u{9b}2J\"\nRUN false \u{1b}]0;title\u{7}\n");
    for more in [&[][..], &["--json"]] {
        let failed = builder(place.arguments("state", more)).expect(5).text();
        assert!(!failed.chars().any(|letter| letter.is_control() && letter != '\n'), "{failed:?}");
        assert!(failed.contains("RUN false"), "{failed}");
    }
}
