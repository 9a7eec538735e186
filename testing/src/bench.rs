//! A builder with a repository, a base with busybox alone, and a state of its own, whose upstream is a test's own site.

use std::path::{Path, PathBuf};

use crate::base::base_image;
use crate::programs::{Outcome, program, run};
use crate::repository::Repository;

/// Where one builder works.
pub struct Bench {
    /// What is built.
    pub source: Repository,
    folder: tempfile::TempDir,
    base: PathBuf,
}

impl Bench {
    /// An empty repository, and a key to sign with.
    pub fn new() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let base = base_image(folder.path());
        let bench = Self { source: Repository::new(), folder, base };
        run(program("countersign-builder"), ["keygen", "--no-password", "--out", &bench.text("key.pem")])
            .expect(0);
        bench
    }

    /// A path in the bench's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The image that Dockerfiles call `base:1`.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Commits a Dockerfile.
    pub fn dockerfile(&self, text: &str) -> String {
        self.source.write("Dockerfile", text);
        self.source.commit("a Dockerfile")
    }

    fn common(&self, verb: &str) -> Vec<String> {
        let base = format!("base:1={}", self.base.display());
        let source = self.source.path().display().to_string();
        ["--state-dir", &self.text("state"), "--json", verb, "--repo", &source, "--base", &base]
            .map(str::to_owned)
            .into()
    }

    /// Builds a commit, with upstream behind a plain proxy, and signs its provenance.
    pub fn build(&self, proxy: &str, commit: &str, more: &[&str]) -> Outcome {
        let (key, out) = (self.text("key.pem"), self.text("bundle.json"));
        let mut arguments = vec![format!("http_proxy={proxy}"), "no_proxy=127.0.0.1".to_owned()];
        arguments.push(program("countersign-builder").display().to_string());
        arguments.extend(self.common("build"));
        let signing =
            ["--commit", commit, "--key", &key, "--builder-id", "https://ci.example/", "--bundle-out", &out];
        arguments.extend(signing.iter().chain(more).map(|word| (*word).to_owned()));
        run("env", arguments)
    }

    /// Builds a commit from what another build kept.
    pub fn replay(&self, commit: &str, digest: &str, more: &[&str]) -> Outcome {
        run(program("countersign-builder"), self.replay_words(commit, digest, more))
    }

    /// The arguments for that.
    pub fn replay_words(&self, commit: &str, digest: &str, more: &[&str]) -> Vec<String> {
        let mut arguments = self.common("build");
        let own = ["--commit", commit, "--replay", digest];
        arguments.extend(own.iter().chain(more).map(|word| (*word).to_owned()));
        arguments
    }

    /// Builds a commit by its lock.
    pub fn locked(&self, commit: &str, more: &[&str]) -> Outcome {
        let mut arguments = self.common("build");
        arguments.extend(["--commit", commit, "--locked"].iter().chain(more).map(|word| (*word).to_owned()));
        run(program("countersign-builder"), arguments)
    }

    /// Repeats the signed build in a network namespace that holds nothing.
    pub fn rebuild_cut_off(&self, more: &[&str]) -> Outcome {
        let (trusted, bundle) = (self.text("key.pem.pub"), self.text("bundle.json"));
        let mut arguments: Vec<String> = ["--net", "--"].map(str::to_owned).into();
        arguments.push(program("countersign-builder").display().to_string());
        arguments.extend(self.common("rebuild"));
        arguments.extend(["--provenance", &bundle, "--builder-keys", &trusted].map(str::to_owned));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        run("unshare", arguments)
    }

    /// The files below the state directory that hold `bytes`, also where they are compressed.
    pub fn holding(&self, bytes: &str) -> Vec<PathBuf> {
        holding(&self.path("state"), bytes)
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// The files below a folder that hold `bytes`, also where they are compressed.
pub(crate) fn holding(folder: &Path, bytes: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    search(folder, bytes.as_bytes(), &mut found);
    found
}

fn search(folder: &Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
    let holds = |content: &[u8]| content.windows(bytes.len()).any(|window| window == bytes);
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let named = holds(entry.file_name().as_encoded_bytes());
        let inside = kind.is_file() && {
            let content = std::fs::read(&path).unwrap();
            let packed = content.starts_with(&[0x1f, 0x8b]);
            holds(&content) || packed && holds(run("gzip", [Path::new("-dc"), &path]).stdout.as_bytes())
        };
        if named || inside {
            found.push(path.clone());
        }
        if kind.is_dir() {
            search(&path, bytes, found);
        }
    }
}
