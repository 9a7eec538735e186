//! A root file system of busybox alone, and a host in a directory of its own.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::{Canceller, Exit, Host, Network, Overlay, Process, Profile, Stream};

pub struct Ground {
    pub host: Host,
    pub network: Network,
    pub base: PathBuf,
    pub directory: tempfile::TempDir,
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

pub const ALGORITHM: Profile = Profile::Algorithm { writable_root: false };

/// `None`, recorded as a skip, where sandboxes cannot be made.
#[track_caller]
pub fn ground() -> Option<Ground> {
    if !testing::can_run(&["runc", "busybox"]) {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    busybox_root(&base);
    let host = Host::open(&directory.path().join("state")).unwrap();
    let network = host.network().unwrap();
    Some(Ground { host, network, base, directory })
}

fn busybox_root(base: &Path) {
    for name in ["bin", "etc", "tmp", "root"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    fs::set_permissions(base.join("bin/busybox"), PermissionsExt::from_mode(0o755)).unwrap();
    for name in
        ["sh", "cat", "ls", "sleep", "true", "touch", "id", "head", "wget", "nc", "mount", "unshare", "dd"]
    {
        symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    fs::write(base.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n")
        .unwrap();
    fs::write(base.join("etc/group"), "root:x:0:\nann:x:1001:\nlab:x:2000:ann,bob\n").unwrap();
}

impl Ground {
    pub fn root(&self) -> Overlay {
        self.host.overlay(std::slice::from_ref(&self.base)).unwrap()
    }

    pub fn run_in(&self, root: &Overlay, process: &Process) -> Ran {
        self.run_until(root, process, &Canceller::new())
    }

    pub fn run_until(&self, root: &Overlay, process: &Process, canceller: &Canceller) -> Ran {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut take = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => out.extend_from_slice(bytes),
            Stream::Stderr => err.extend_from_slice(bytes),
        };
        let exit = self.host.run_until(process, root.merged(), &self.network, &mut take, canceller).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { exit, out: text(out), err: text(err) }
    }

    pub fn run(&self, process: &Process) -> Ran {
        self.run_in(&self.root(), process)
    }
}

pub fn process(profile: Profile, args: &[&str]) -> Process {
    let mut process = Process::new(profile, args.iter().copied());
    process.env = vec![("PATH".into(), "/bin".into())];
    process
}

pub fn shell(profile: Profile, script: &str) -> Process {
    process(profile, &["/bin/sh", "-c", script])
}

/// How many processes of this machine have a word among their arguments.
pub fn alive(argument: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()).then_some(())
    });
    processes.count()
}

/// Waits until a process has a word among its arguments.
pub fn wait_until_alive(argument: &str) {
    let limit = Instant::now() + Duration::from_secs(60);
    while alive(argument) == 0 {
        assert!(Instant::now() < limit, "no process has the argument {argument}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
