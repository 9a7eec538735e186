//! A place for builds that mean harm: what is around it is watched, and it has to serve honest builds afterwards.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, Repository, base_image, builder};

/// What is in a folder, by path: mode, owner, group, links, time and content.
pub type Listing = BTreeMap<PathBuf, (u32, u32, u32, u64, i64, Vec<u8>)>;

/// A state directory, a base, a repository, and a folder that nobody may touch.
pub struct Hostile {
    folder: tempfile::TempDir,
    base: PathBuf,
    repository: Repository,
    /// What lies outside, and what it was.
    outside: Listing,
    is_small: bool,
}

const GOOD: &str = "FROM base:1\nRUN cat /etc/passwd >/good && echo good >>/good\n";

impl Hostile {
    /// A place on the disk.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// One whose state directory is a file system of so many mebibytes and files.
    pub fn small(mebibytes: u32, files: u32) -> Self {
        Self::with(Some(format!("size={mebibytes}m,nr_inodes={files},mode=700")))
    }

    fn with(size: Option<String>) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let base = base_image(folder.path());
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        for (name, text) in [
            ("passwd", "evil:x:0:0::/:/bin/sh\n"),
            ("list", "-----BEGIN CERTIFICATE-----\n"),
            ("file", "untouched"),
        ] {
            std::fs::write(outside.join(name), text).unwrap();
        }
        std::fs::create_dir(folder.path().join("state")).unwrap();
        if let Some(size) = &size {
            let state = folder.path().join("state");
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(state).status();
            assert!(mounted.unwrap().success());
        }
        let repository = Repository::new();
        let outside = listing(&outside);
        Self { folder, base, repository, outside, is_small: size.is_some() }
    }

    /// A path in the place's folder. `outside` is the folder that nobody may touch.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The repository that is built from.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Builds a Dockerfile on the place's base, which is called `base:1` there.
    pub fn build(&self, dockerfile: &str, more: &[&str]) -> Outcome {
        self.build_on(&self.base, dockerfile, more)
    }

    /// The same on another base, a folder.
    pub fn build_on(&self, base: &Path, dockerfile: &str, more: &[&str]) -> Outcome {
        self.repository.write("Dockerfile", dockerfile);
        let commit = self.repository.commit("hostile");
        self.build_commit("state", base, &commit, more)
    }

    fn build_commit(&self, state: &str, base: &Path, commit: &str, more: &[&str]) -> Outcome {
        let (state, base) = (self.path(state), format!("base:1={}", base.display()));
        let (state, repository) = (state.display().to_string(), self.repository.path().display().to_string());
        let fixed = ["--state-dir", &state, "build", "--json", "--repo", &repository, "--commit", commit];
        builder(fixed.iter().chain(&["--base", &base]).chain(more))
    }

    /// The unpacked layers that are kept, to the byte.
    pub fn layers(&self) -> Listing {
        listing(&self.path("state/layers"))
    }

    /// Fails the test if anything is left of a build, or anything outside was touched, or the state does not serve an honest build
    /// that comes out as it does elsewhere.
    #[track_caller]
    pub fn expect_unharmed(&self) {
        self.expect_clean();
        let good = self.repository_of_good();
        let here = self.build_commit("state", &self.base, &good, &[]).expect(0).json();
        let elsewhere = self.build_commit("elsewhere", &self.base, &good, &[]).expect(0).json();
        assert_eq!(here["digest"], elsewhere["digest"], "an honest build comes out otherwise here");
        self.expect_clean();
    }

    fn repository_of_good(&self) -> String {
        for entry in std::fs::read_dir(self.repository.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != ".git" {
                let _ = std::fs::remove_dir_all(entry.path());
                let _ = std::fs::remove_file(entry.path());
            }
        }
        self.repository.write("Dockerfile", GOOD);
        self.repository.commit("good")
    }

    #[track_caller]
    fn expect_clean(&self) {
        assert_eq!(listing(&self.path("outside")), self.outside, "something outside was touched");
        for folder in ["state/builds", "state/sandbox"] {
            let Ok(entries) = std::fs::read_dir(self.path(folder)) else { continue };
            let names = entries.map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = names.filter(|name| name != "lock").collect();
            assert!(left.is_empty(), "left in {folder}: {left:?}");
        }
        if let Ok(entries) = std::fs::read_dir(self.path("state/layers")) {
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let is_kept = |name: &str| [".lock", ".devices"].iter().any(|end| name.ends_with(end));
            let half: Vec<_> = names.filter(|name| name.starts_with('.') && !is_kept(name)).collect();
            assert!(half.is_empty(), "left half unpacked: {half:?}");
        }
        // Network namespaces are mounts, too.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = self.path("state").display().to_string();
        let left: Vec<_> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| point.starts_with(&state) && !(self.is_small && *point == state))
            .collect();
        assert!(left.is_empty(), "left mounted: {left:?}");
        let left = processes_below(self.folder.path());
        assert!(left.is_empty(), "processes are left: {left:?}");
    }
}

impl Default for Hostile {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if self.is_small {
            let _ = Command::new("umount").arg("--lazy").arg(self.path("state")).status();
        }
    }
}

/// Processes whose root, or an open file of which, lies below a folder.
fn processes_below(folder: &Path) -> Vec<String> {
    let is_below = |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(folder));
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let found = processes.filter(|process| {
        let path = process.path();
        let descriptors = std::fs::read_dir(path.join("fd")).into_iter().flatten().filter_map(Result::ok);
        let is_a_process = process.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        let is_us = process.file_name().to_str() == Some(&std::process::id().to_string());
        is_a_process
            && !is_us
            && (is_below(path.join("root"))
                || is_below(path.join("cwd"))
                || descriptors.map(|it| it.path()).any(is_below))
    });
    found
        .map(|process| {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        })
        .collect()
}

fn listing(folder: &Path) -> Listing {
    let mut found = Listing::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(place) = folders.pop() {
        for entry in std::fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            let content = match () {
                () if data.is_dir() => {
                    folders.push(path.clone());
                    Vec::new()
                }
                () if data.is_symlink() => std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
                () if data.is_file() => std::fs::read(&path).unwrap(),
                () => Vec::new(),
            };
            found.insert(path, (data.mode(), data.uid(), data.gid(), data.nlink(), data.mtime(), content));
        }
    }
    found
}
