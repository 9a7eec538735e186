//! A place to build in: a git repository, a base of static busybox, and the program as a process.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use images::image::{Config, Execution, RootFs};
use images::layer::{Compression, Entry, Kind, LayerWriter, open_archive};
use images::{Image, Store};
use serde_json::Value;
use tempfile::TempDir;

/// Files by path: mode, user, group, time and text.
pub type Contents = BTreeMap<String, (u32, u32, u32, u64, String)>;

pub struct Bench {
    pub folder: TempDir,
}

impl Bench {
    /// `None`, recorded as a skip, when this machine or user cannot run it.
    #[track_caller]
    pub fn new() -> Option<Self> {
        if !testing::can_run(&["runc", "busybox", "git"]) {
            return None;
        }
        let bench = Self { folder: TempDir::new().unwrap() };
        bench.make_base();
        bench.git(&["init", "-q", "-b", "main"]);
        Some(bench)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn make_base(&self) {
        let store = Store::open(self.path("base")).unwrap();
        let mut writer = LayerWriter::new(&store, Compression::Gzip).unwrap();
        let mut add = |path: &str, kind: Kind, mode: u32, bytes: &[u8]| {
            let entry = Entry {
                path: path.into(),
                kind,
                mode,
                uid: 0,
                gid: 0,
                mtime: 1_600_000_000,
                xattrs: BTreeMap::new(),
            };
            writer.add(&entry, &mut &bytes[..]).unwrap();
        };
        let busybox = std::fs::read("/bin/busybox").unwrap();
        add("bin", Kind::Directory, 0o755, b"");
        add("bin/busybox", Kind::File { size: busybox.len() as u64 }, 0o755, &busybox);
        for applet in ["cat", "chmod", "chown", "echo", "env", "id", "ln", "mkdir", "rm", "sh"] {
            add(&format!("bin/{applet}"), Kind::Symlink(b"busybox".to_vec()), 0o777, b"");
        }
        let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n";
        add("etc", Kind::Directory, 0o755, b"");
        add("etc/group", Kind::File { size: 10 }, 0o644, b"root:x:0:\n");
        add("etc/passwd", Kind::File { size: passwd.len() as u64 }, 0o644, passwd);
        add("etc/ssl", Kind::Directory, 0o755, b"");
        add("etc/ssl/cert.pem", Kind::File { size: 5 }, 0o644, b"list\n");
        add("root", Kind::Directory, 0o700, b"");
        add("tmp", Kind::Directory, 0o1777, b"");
        let layer = writer.finish().unwrap();
        let config = Config {
            architecture: images::Platform::here().architecture,
            os: "linux".to_owned(),
            config: Execution { env: vec!["PATH=/bin".to_owned()], ..Execution::default() },
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id] },
            ..Config::default()
        };
        let image = Image::assemble(&store, &config, vec![layer.descriptor]).unwrap();
        store.set_ref("base", image.manifest()).unwrap();
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let folder = self.path("repository");
        std::fs::create_dir_all(&folder).unwrap();
        let output = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(["-c", "user.name=Carol", "-c", "user.email=carol@example.org"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z")
            .env("GIT_COMMITTER_DATE", "2026-01-02T03:04:06Z")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.path("repository").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn run(&self, state: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_countersign-builder"))
            .args(arguments)
            .arg("--state-dir")
            .arg(self.path(state))
            .env("NO_COLOR", "1")
            .env_remove("COUNTERSIGN_BUILDER_ID")
            .output()
            .unwrap()
    }

    pub fn build(&self, state: &str, commit: &str, more: &[&str]) -> Output {
        let base = format!("busybox:test={}", self.path("base").display());
        let repository = self.path("repository").display().to_string();
        let arguments = ["build", "--json", "--repo", &repository, "--commit", commit, "--base", &base];
        self.run(state, &[&arguments, more].concat())
    }
}

#[track_caller]
pub fn answer(output: &Output, code: i32) -> Value {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "\n--- stdout\n{out}\n--- stderr\n{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"))
}

/// What the layers made by the build hold, by path, the later layer winning: mode, owner, time and text.
pub fn contents(store: &Store, image: &Image) -> Contents {
    let mut found = BTreeMap::new();
    for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()).skip(1) {
        let archive =
            open_archive(store, layer, Some(diff_id), images::layer::LayerLimits::default()).unwrap();
        let mut tar = tar::Archive::new(archive.reader());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned();
            let header = entry.header();
            let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
            let mtime = header.mtime().unwrap();
            let mut text =
                entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            if text.is_empty() {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
            found.insert(path, (mode, uid as u32, gid as u32, mtime, text));
        }
    }
    found
}
