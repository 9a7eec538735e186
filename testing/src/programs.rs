//! Running the programs as people do: as processes, in an environment of their own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// What a program answered.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Fails the test, with everything the program said, unless it ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", self.stdout))
    }

    /// Everything it said.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The path of one of our programs, built beside the tests (`make test` builds them first).
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap().parent().unwrap();
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

/// A program of others, of this version, that `scripts/clients` builds below `target/tools`. None, recorded as a skip, where
/// it was not built.
#[track_caller]
pub fn tool(name: &str, version: &str) -> Option<PathBuf> {
    find_tool(&format!("{name}-{version}/bin/{name}"), &format!("{name} {version}"))
}

/// The same for a program that is written for the tests.
#[track_caller]
pub fn built_tool(name: &str) -> Option<PathBuf> {
    find_tool(&format!("{name}/bin/{name}"), name)
}

#[track_caller]
fn find_tool(path: &str, name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools").join(path);
    let found = program.exists().then_some(program);
    if found.is_none() {
        crate::skip(&format!("needs {name}; `make test` builds it where Go is"));
    }
    found
}

/// Runs a program to its end, with neither proxy variables nor a colour terminal.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("COUNTERSIGN_KEY_PASSWORD")
        .env_remove("COUNTERSIGN_PROGRESS")
        // Where tests run, the package registries may be mirrors with private addresses.
        .env("COUNTERSIGN_ALLOW_PRIVATE", "*");
    let _state = own_state(&mut command);
    command.stdin(std::process::Stdio::null()).output().unwrap().into()
}

/// Gives a program a fresh state directory, unless its arguments name one: no test sees what another one kept, or what this
/// machine keeps. It is there as long as what this returns.
#[must_use = "the directory is gone with it"]
pub fn own_state(command: &mut Command) -> Option<tempfile::TempDir> {
    command.env_remove("COUNTERSIGN_STATE");
    let names_one = |word: &OsStr| ["--state-dir", "--config"].iter().any(|name| word == *name);
    if command.get_args().any(names_one) {
        return None;
    }
    let state = tempfile::tempdir().unwrap();
    command.env("COUNTERSIGN_STATE", state.path());
    Some(state)
}

/// `countersign-builder` with `arguments`.
pub fn builder<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    run(program("countersign-builder"), arguments)
}

/// `countersign-runner` with `arguments`.
pub fn runner<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    run(program("countersign-runner"), arguments)
}

/// Ends a daemon: asked first, so that it unmounts what it mounted, and killed when it does not.
pub(crate) fn end(daemon: &mut Child) {
    let _ = Command::new("kill").arg(daemon.id().to_string()).status();
    let limit = Instant::now() + Duration::from_secs(20);
    while daemon.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = daemon.kill();
    let _ = daemon.wait();
}
