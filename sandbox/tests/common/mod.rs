//! A root file system of busybox alone, and a host in a directory of its own.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sandbox::{Exit, Host, Network, Overlay, Process, Profile, Stream};

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

/// `None`, loudly, where sandboxes cannot be made.
pub fn ground() -> Option<Ground> {
    let root = rustix::process::geteuid().is_root();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
    let Some(busybox) = busybox.filter(|_| root) else {
        eprintln!(
            "\n==== SKIP: this test needs root, runc and a static busybox, and HAS TESTED NOTHING ====\n"
        );
        return None;
    };
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    busybox_root(&base, busybox);
    let host = Host::open(&directory.path().join("state")).unwrap();
    let network = host.network().unwrap();
    Some(Ground { host, network, base, directory })
}

fn busybox_root(base: &Path, busybox: &Path) {
    for name in ["bin", "etc", "tmp", "root"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    fs::copy(busybox, base.join("bin/busybox")).unwrap();
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
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut take = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => out.extend_from_slice(bytes),
            Stream::Stderr => err.extend_from_slice(bytes),
        };
        let exit = self.host.run(process, root.merged(), &self.network, &mut take).unwrap();
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
