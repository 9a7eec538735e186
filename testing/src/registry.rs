//! Registries on a free loopback port, with their storage in a temporary folder: Debian's `docker-registry`, and others
//! that `scripts/clients` builds.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running registry; ended when dropped.
pub struct Registry {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Registry {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more lines of configuration.
    pub fn start_with(more: &str) -> Self {
        Self::distribution(Path::new("docker-registry"), more)
    }

    /// CNCF's distribution 3, a later version of the same program. None, recorded as a skip, where it was not built.
    #[track_caller]
    pub fn distribution_3() -> Option<Self> {
        crate::tool("registry", "3.1.2").map(|program| Self::distribution(&program, ""))
    }

    /// A registry that has the referrers API, which neither of the others has: that of go-containerregistry, in memory. None,
    /// recorded as a skip, where it was not built.
    #[track_caller]
    pub fn with_referrers() -> Option<Self> {
        let program = crate::built_tool("referrers-registry")?;
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let child = Command::new(program)
            .arg(format!("127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, port, folder };
        registry.wait();
        Some(registry)
    }

    fn distribution(program: &Path, more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let config = folder.path().join("config.yml");
        let storage = folder.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{more}",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["serve".as_ref(), config.as_os_str()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, port, folder };
        registry.wait();
        registry
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "the registry did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:port/path`.
    pub fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.host())
    }

    /// The files that it keeps and that hold `bytes`, also where they are compressed.
    pub fn holding(&self, bytes: &str) -> Vec<PathBuf> {
        crate::bench::holding(&self.folder.path().join("storage"), bytes)
    }

    /// The file in which the registry keeps a blob, so that a test can tamper with it behind everybody's back.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let storage = self.folder.path().join("storage/docker/registry/v2/blobs/sha256");
        storage.join(&hex[..2]).join(hex).join("data")
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Changes one byte in the middle of a file, in place.
pub fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::File::create(path).unwrap().write_all(&bytes).unwrap();
}
