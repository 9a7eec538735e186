//! A Docker engine of the tests' own: its data in a temporary folder, no bridge, no firewall rules.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::programs::{Outcome, run};

/// A running engine; ended when dropped.
pub struct Engine {
    child: Child,
    folder: TempDir,
}

impl Engine {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(at("log")).unwrap();
        let child = Command::new("dockerd")
            .arg("--host")
            .arg(format!("unix://{}", at("socket").display()))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let engine = Self { child, folder };
        let end = Instant::now() + Duration::from_secs(60);
        while engine.docker(["version"]).code != 0 {
            let log = std::fs::read_to_string(engine.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "the engine did not start:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        engine
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Runs Docker's own client against it.
    pub fn docker<const N: usize>(&self, arguments: [&str; N]) -> Outcome {
        let host = format!("unix://{}", self.socket().display());
        let arguments: Vec<&str> = ["--host", &host].into_iter().chain(arguments).collect();
        run("docker", arguments)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SIGTERM lets it unmount what it mounted.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let end = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
