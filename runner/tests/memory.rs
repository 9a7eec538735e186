//! The node's memory as several programs find it: whoever comes first makes it, and everybody finds it whole.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;

use admission::Memory;

#[test]
fn all_who_open_a_fresh_memory_at_one_moment_find_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..40 {
        let path = folder.path().join(format!("{round}.sqlite"));
        let start = Barrier::new(12);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    start.wait();
                    let memory = Memory::open(&path).unwrap();
                    assert!(memory.list_newest().unwrap().is_empty());
                });
            }
        });
    }
}

/// What locks a file does not show among the threads of one process alone.
#[test]
fn processes_that_make_one_state_directory_at_once_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "version = 1\n").unwrap();
    let digest = "0".repeat(64);
    for round in 0..6 {
        let state = folder.path().join(format!("state-{round}"));
        let ask = |state: &Path| {
            Command::new(env!("CARGO_BIN_EXE_countersign-runner"))
                .arg("--policy")
                .arg(&policy)
                .arg("--state-dir")
                .arg(state)
                .args(["verify", &format!("registry.example/average@sha256:{digest}"), "--offline"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let asking: Vec<_> = (0..8).map(|_| ask(&state)).collect();
        for one in asking {
            let output = one.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(1), "denied, and nothing else: {output:?}");
        }
    }
}
