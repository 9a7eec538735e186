//! `serve` as a process of its own: a real node behind it, real signals, a real kill.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_countersign-runner"))
}

struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts the process and waits until it says, as to systemd, that it is ready.
    fn start(folder: &Path) -> Server {
        let told = folder.join("notify");
        drop(std::fs::remove_file(&told));
        let notify = UnixDatagram::bind(&told).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let process = program()
            .arg("--policy")
            .arg(folder.join("policy.toml"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            // As often as a test kills it, and once more.
            .args(["serve", "--offline", "--max-attempts", "9", "--socket"])
            .arg(folder.join("runner.sock"))
            .env("NOTIFY_SOCKET", &told)
            .stderr(std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Server { process, folder: folder.to_owned() };
        let mut bytes = [0; 64];
        let read = notify.recv(&mut bytes);
        let length = read.unwrap_or_else(|error| panic!("{error}: {:?}", server.process.try_wait()));
        assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap().trim(), "READY=1");
        server
    }

    fn signal(mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
        self.process.wait().unwrap()
    }

    fn task(&self, words: &[&str]) -> Result<String, String> {
        let socket = self.folder.join("runner.sock");
        let output = program().args(["task", "--socket"]).arg(socket).args(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn over(&self, id: &str) -> Value {
        let begun = Instant::now();
        loop {
            let task: Value = serde_json::from_str(&self.task(&["show", id]).unwrap()).unwrap();
            if !["queued", "verifying", "running"].contains(&task["state"].as_str().unwrap()) {
                return task;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{task}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.toml"), attestations::Policy::EXAMPLE).unwrap();
    std::fs::write(folder.path().join("input.json"), json!({ "method": "average" }).to_string()).unwrap();
    folder
}

fn image() -> String {
    format!("registry.example/unknown@sha256:{}", "0".repeat(64))
}

#[test]
fn a_real_node_denies_what_its_policy_does_not_know_and_says_why() {
    let folder = folder();
    let server = Server::start(folder.path());
    let input = folder.path().join("input.json");
    let image = image();
    let submit = ["submit", &image, "--input", input.to_str().unwrap()];
    assert_eq!(server.task(&submit).unwrap(), "1\n");
    let task = server.over("1");
    assert_eq!(task["state"], "denied", "{task}");
    assert!(!task["denial"]["unmet"].as_array().unwrap().is_empty(), "{task}");
    std::fs::write(folder.path().join("policy.toml"), "").unwrap();
    assert_eq!(server.task(&submit).unwrap(), "2\n");
    let task = server.over("2");
    assert_eq!(task["state"], "failed", "an empty policy is no policy: {task}");
    assert!(task["reason"].as_str().unwrap().contains("nothing is admitted"), "{task}");
    assert!(server.signal(Signal::SIGTERM).success());
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    for id in [1, 2] {
        assert!(log.lines().any(|line| line.ends_with(&format!("task={id}"))), "each task has lines: {log}");
    }
    assert!(!folder.path().join("runner.sock").exists());
}

#[test]
fn a_killed_server_comes_back_with_every_task() {
    let folder = folder();
    let input = folder.path().join("input.json");
    let image = image();
    let mut submitted = 0;
    for _ in 0..4 {
        let server = Server::start(folder.path());
        for _ in 0..5 {
            submitted += 1;
            let printed = server.task(&["submit", &image, "--input", input.to_str().unwrap()]).unwrap();
            assert_eq!(printed, format!("{submitted}\n"), "numbers go on after a kill");
        }
        assert!(!server.signal(Signal::SIGKILL).success());
    }
    let server = Server::start(folder.path());
    for id in 1..=submitted {
        let task = server.over(&id.to_string());
        assert_eq!(task["state"], "denied", "{task}");
    }
    assert!(server.signal(Signal::SIGINT).success());
}
