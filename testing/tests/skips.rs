//! That no skip is silent: the harness drops what a skipped test prints, so it is recorded elsewhere, listed at the end
//! of `make test`, and in CI refused unless it is allowed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use testing::Outcome;

/// A test that cannot run anywhere; the one below starts it.
#[test]
#[ignore = "started by the test below"]
fn left_out() {
    testing::skip("needs a moon\nbase");
}

/// `scripts/skipped` with an allowed list of this text.
fn skipped(record: &Path, allowed: &str, is_strict: bool) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("allowed.txt");
    std::fs::write(&list, allowed).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/skipped");
    let mut command = Command::new(script);
    command.arg(record).arg(list).env_remove("COUNTERSIGN_TEST");
    if is_strict {
        command.env("COUNTERSIGN_TEST", "strict");
    }
    command.output().unwrap().into()
}

#[test]
fn a_skip_is_recorded_outside_the_harness_listed_and_in_ci_refused() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("skipped");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "left_out", "--ignored", "--test-threads=2"])
        .env("COUNTERSIGN_SKIPPED", &record)
        .output()
        .unwrap();
    let child = Outcome::from(child).expect(0);
    assert!(child.stdout.contains("1 passed") && !child.text().contains("moon"), "{}", child.text());
    assert_eq!(std::fs::read_to_string(&record).unwrap(), "skips::left_out\tneeds a moon base\n");

    let line = "SKIPPED  skips::left_out: needs a moon base";
    let none = "# nothing is\n";
    assert!(skipped(&record, none, false).expect(0).stdout.contains(line));
    let refused = skipped(&record, none, true).expect(1);
    assert!(
        refused.stdout.contains(line) && refused.stderr.contains("1 skips are not allowed"),
        "{refused:?}"
    );
    for other in ["skips::other | * | why", "skips::left_out | needs a sun | why", "left_out | * | why"] {
        skipped(&record, other, true).expect(1);
    }
    let allowed = skipped(&record, "skips::left_* | needs a moon* | there is none\n", true).expect(0);
    assert!(allowed.stdout.contains("allowed  skips::left_out"), "{allowed:?}");
    std::fs::write(&record, "").unwrap();
    assert_eq!(skipped(&record, none, true).expect(0).stdout, "no test was skipped\n");
}

#[test]
fn every_allowed_skip_has_a_reason() {
    let list = include_str!("../../tests/allowed-skips.txt");
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        assert!(columns.len() == 3 && columns.iter().all(|column| !column.is_empty()), "{line}");
        assert!(!columns[0].starts_with('*'), "that allows whole suites to be skipped: {line}");
    }
}
