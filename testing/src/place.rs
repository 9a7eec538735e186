//! A repository with a Dockerfile over the base, and a folder for what is made of it.

use std::path::PathBuf;

use crate::{Outcome, Repository, base_image, builder};

/// One commit that can be built.
pub struct Place {
    folder: tempfile::TempDir,
    base: PathBuf,
    repository: Repository,
    commit: String,
}

impl Place {
    /// With this Dockerfile, whose base is `base:1`.
    pub fn new(dockerfile: &str) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let base = base_image(folder.path());
        let repository = Repository::new();
        repository.write("Dockerfile", dockerfile);
        let commit = repository.commit("one");
        Self { folder, base, repository, commit }
    }

    /// A path in the folder. The builder's state is in `state`.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Builds the commit, with `more` words.
    pub fn build(&self, more: &[&str]) -> Outcome {
        let (state, repository) = (self.path("state"), self.repository.path().display().to_string());
        let base = format!("base:1={}", self.base.display());
        let fixed =
            ["--state-dir", &state, "build", "--json", "--repo", &repository, "--commit", &self.commit];
        builder(fixed.iter().chain(&["--base", &base]).chain(more))
    }
}
