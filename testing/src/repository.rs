//! A git repository made for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// When commits are made.
const TIME: &str = "2026-01-02T03:04:05Z";
const LATER: &str = "2026-01-09T13:14:15Z";

/// A repository in a temporary folder, with commits at fixed times by a named author.
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// An empty one.
    pub fn new() -> Self {
        let repository = Self { folder: TempDir::new().unwrap() };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// One whose first commit is a copy of `tree`.
    pub fn of(tree: &Path) -> Self {
        let repository = Self::new();
        let source = tree.join(".");
        let status = Command::new("cp").arg("-a").arg(source).arg(repository.path()).status().unwrap();
        assert!(status.success());
        repository
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Writes a file of the working tree.
    pub fn write(&self, path: &str, text: &str) {
        let file = self.folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Commits everything as Carol, and returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// The same some days later, as commits are outside of tests.
    pub fn commit_later(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git_at(LATER, &["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git there and returns what it printed.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_at(TIME, arguments)
    }

    fn git_at(&self, time: &str, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.folder.path())
            .args([
                "-c",
                "user.name=Carol",
                "-c",
                "user.email=carol@developers.example",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_DATE", time)
            .env("GIT_COMMITTER_DATE", time)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Default for Repository {
    fn default() -> Self {
        Self::new()
    }
}
