//! A Docker engine of the tests' own: its data in a temporary folder, no bridge, no firewall rules.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::programs::{Outcome, end, run};

/// A running engine; ended when dropped.
pub struct Engine {
    child: Child,
    folder: TempDir,
}

impl Engine {
    /// One where there is `dockerd`; `None`, recorded as a skip, elsewhere.
    #[track_caller]
    pub fn here() -> Option<Self> {
        crate::can_run(&["dockerd", "docker"]).then(Self::start)
    }

    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        // The path of a socket has at most 107 bytes, and `TMPDIR` may be long.
        let folder = tempfile::Builder::new().prefix("dockerd-").tempdir_in("/tmp").unwrap();
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
            .args(["--ip-forward=false", "--ip-masq=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut engine = Self { child, folder };
        let end = Instant::now() + Duration::from_secs(60);
        while engine.docker(["version"]).code != 0 {
            let log = || std::fs::read_to_string(engine.folder.path().join("log")).unwrap_or_default();
            assert!(engine.child.try_wait().unwrap().is_none(), "the engine ended:\n{}", log());
            assert!(Instant::now() < end, "the engine did not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        engine
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Gives it the one image of an OCI layout, under a name.
    pub fn load(&self, layout: &Path, name: &str) {
        let place = TempDir::new().unwrap();
        let archive = place.path().join("image.tar").display().to_string();
        let (from, to) = (format!("oci:{}", layout.display()), format!("docker-archive:{archive}:{name}"));
        run("skopeo", ["copy", "--quiet", &from, &to]).expect(0);
        self.docker(["load", "--quiet", "--input", &archive]).expect(0);
    }

    /// Runs Docker's own client against it.
    pub fn docker<const N: usize>(&self, arguments: [&str; N]) -> Outcome {
        let host = format!("unix://{}", self.socket().display());
        let arguments: Vec<&str> = ["--host", &host].into_iter().chain(arguments).collect();
        run("docker", arguments)
    }

    /// The same, of what must succeed: what the client printed, without the newline at its end.
    #[track_caller]
    pub fn says<const N: usize>(&self, arguments: [&str; N]) -> String {
        self.docker(arguments).expect(0).stdout.trim().to_owned()
    }

    /// Builds with the engine's own BuildKit, by a client that can ask for it by itself: Debian's. Newer ones want a plugin.
    pub fn build<S: AsRef<str>>(&self, arguments: &[S]) -> Outcome {
        let client = ["/usr/bin/docker", "docker"].into_iter().find(|it| Path::new(it).exists());
        let host = format!("unix://{}", self.socket().display());
        let head = ["DOCKER_BUILDKIT=1", client.unwrap_or("docker"), "--host", &host, "build", "--no-cache"];
        run("env", head.into_iter().chain(arguments.iter().map(AsRef::as_ref)))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
