//! Tests that cannot run on this machine.
//!
//! The test harness drops what a passing test prints, and a test that returns early has passed. So a skip is also
//! written to a file outside the harness, `COUNTERSIGN_SKIPPED`, which `make test` prints at its end and CI judges
//! by `tests/allowed-skips.txt` (`scripts/skipped`).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::Location;

/// The file that every skip of a run is appended to: one line `suite::test<TAB>reason` each.
const RECORD: &str = "COUNTERSIGN_SKIPPED";

/// Records that the calling test, or a part of it, is not run here. The caller returns afterwards.
///
/// # Panics
/// When the record cannot be written: a skip that nobody can see must not pass.
#[track_caller]
pub fn skip(reason: &str) {
    let line = format!("{}\t{}\n", calling_test(Location::caller()), reason.replace(['\t', '\n'], " "));
    eprint!("SKIP {line}");
    if let Some(record) = std::env::var_os(RECORD) {
        let file = OpenOptions::new().create(true).append(true).open(&record);
        // One write: the suites of several processes append to the same file.
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("a skip cannot be recorded in {}: {error}", record.display()));
    }
}

/// Whether this machine has root's rights and the programs; records a skip when it has not.
#[track_caller]
pub fn can_run(programs: &[&str]) -> bool {
    let reason = cannot_run(programs);
    if let Some(reason) = &reason {
        skip(reason);
    }
    reason.is_none()
}

/// Whether this machine has the programs, root or not; records a skip when it has not.
#[track_caller]
pub fn has_programs(programs: &[&str]) -> bool {
    let reason = missing(programs);
    if let Some(reason) = &reason {
        skip(reason);
    }
    reason.is_none()
}

/// Whether the tests run as root; records a skip when they do not, with what root is needed for.
#[track_caller]
pub fn has_root(purpose: &str) -> bool {
    let has = is_root();
    if !has {
        skip(&format!("needs root ({purpose})"));
    }
    has
}

/// Why a test that needs root or a program of the machine cannot run here; `None` when it can.
///
/// Benchmarks, which are no tests, print it.
pub fn cannot_run(programs: &[&str]) -> Option<String> {
    if !is_root() {
        return Some("needs root (mounts, namespaces)".to_owned());
    }
    missing(programs)
}

fn missing(programs: &[&str]) -> Option<String> {
    let missing: Vec<_> = programs.iter().filter(|program| !on_path(program)).copied().collect();
    (!missing.is_empty()).then(|| format!("needs {}; `make test` installs it", missing.join(", ")))
}

/// Ends the calling test, recording a skip, when this machine lacks root's rights or one of the programs.
#[macro_export]
macro_rules! need {
    ($($program:literal),* $(,)?) => {
        if !$crate::can_run(&[$($program),*]) {
            return;
        }
    };
}

/// `suite::test`. The harness names the thread of a test after it, but runs it in the main thread when it may use
/// but one; the place in the source then has to do.
fn calling_test(place: &Location<'_>) -> String {
    let program = std::env::current_exe().ok();
    let stem = program.as_deref().and_then(|program| program.file_stem()).and_then(|stem| stem.to_str());
    // Cargo puts `-` and a hash behind the suite's name.
    let suite = stem.map_or("unknown", |stem| stem.rsplit_once('-').map_or(stem, |(suite, _)| suite));
    match std::thread::current().name() {
        Some(name) if name != "main" => format!("{suite}::{name}"),
        _ => format!("{suite}::{}:{}", place.file(), place.line()),
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([std::path::PathBuf::from("/usr/sbin")])
        .any(|folder| folder.join(program).exists())
}
