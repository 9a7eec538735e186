//! The cast of most tests: two reviewers, two builders, a small algorithm of Carol's, a registry, and a node's policy.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::base::base_image;
use crate::front::{Front, Manner};
use crate::programs::{Outcome, builder, runner};
use crate::registry::Registry;
use crate::repository::Repository;

/// An algorithm to vantage6's contract in a few lines of shell: it counts the rows of its database.
const DOCKERFILE: &str = r#"FROM base:1
ARG GREETING=hello
ENV GREETING=$GREETING
WORKDIR /app
COPY run.sh /app/run.sh
RUN chmod 755 /app/run.sh && echo "$GREETING" > /app/greeting && id -u > /app/built-by
LABEL org.example.kind="test"
USER 65534:65534
ENTRYPOINT ["/bin/sh", "/app/run.sh"]
"#;

const SCRIPT: &str = r#"#!/bin/sh
# The values of the environment are encoded; the places are fixed by the contract's one folder.
cd /mnt/countersign || exit 3
rows=$(cat data/*/* | grep -c ,) || exit 4
echo "{\"rows\": $rows}" > output
"#;

/// Everything a test needs for the whole path.
pub struct Scene {
    /// A real registry.
    pub registry: Registry,
    /// Carol's repository.
    pub source: Repository,
    folder: TempDir,
    base: PathBuf,
    /// Where the image is pushed to, if that is not the registry itself.
    front: Option<Front>,
}

impl Scene {
    /// What its algorithm runs.
    pub const SCRIPT: &str = SCRIPT;

    /// Sets it up: keys made, the algorithm committed. Returns the commit too.
    pub fn new() -> (Self, String) {
        let folder = TempDir::new().unwrap();
        let base = base_image(folder.path());
        let scene =
            Self { registry: Registry::start(), source: Repository::new(), folder, base, front: None };
        for who in ["alice", "bob", "ci", "auditor"] {
            builder(["keygen", "--no-password", "--out", &scene.text(&format!("{who}.pem"))]).expect(0);
        }
        scene.source.write("Dockerfile", DOCKERFILE);
        scene.source.write("run.sh", SCRIPT);
        let commit = scene.source.commit("count rows");
        scene.write("input.json", r#"{"method": "count"}"#);
        scene.write("rows.csv", "a,b\n1,2\n3,4\n");
        scene.write("policy.toml", &scene.policy());
        (scene, commit)
    }

    /// A path in the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The layout of the base that it is built on.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The image's name, without tag.
    pub fn image(&self) -> String {
        match &self.front {
            None => self.registry.name("test/count"),
            Some(front) => format!("{}/test/count", front.host()),
        }
    }

    /// The same scene, whose registry is reached by a front that does as `manner` says.
    #[must_use]
    pub fn behind(self, manner: Manner) -> Self {
        let scene = Self { front: Some(Front::before(&self.registry.host(), manner)), ..self };
        scene.write("policy.toml", &scene.policy());
        scene
    }

    /// `who` approves a commit; the path of the signed review.
    pub fn review(&self, who: &str, commit: &str) -> String {
        let out = self.text(&format!("{who}-{commit}.json"));
        let email = format!("{who}@reviewers.example");
        let source = self.source.path();
        let (key, state) = (self.text(&format!("{who}.pem")), self.text("state-review"));
        let source = source.to_str().unwrap();
        let arguments = [
            "--state-dir",
            &state,
            "review",
            "sign",
            "--repo",
            source,
            "--commit",
            commit,
            "--key",
            &key,
            "--name",
            who,
            "--email",
            &email,
            "--out",
            &out,
        ];
        builder(arguments).expect(0);
        out
    }

    /// Both reviewers approve it.
    pub fn reviews(&self, commit: &str) -> Vec<String> {
        ["alice", "bob"].map(|who| self.review(who, commit)).into()
    }

    /// CI builds a commit and pushes it under `tag`.
    pub fn build(&self, commit: &str, tag: &str, reviews: &[String]) -> Outcome {
        self.build_with(commit, tag, reviews, &[])
    }

    /// The same with more arguments.
    pub fn build_with(&self, commit: &str, tag: &str, reviews: &[String], more: &[&str]) -> Outcome {
        let push = format!("{}:{tag}", self.image());
        let source = self.source.path();
        let (base, state, key) =
            (format!("base:1={}", self.base.display()), self.text("state-ci"), self.text("ci.pem"));
        let mut arguments =
            vec!["--state-dir", &state, "build", "--repo", source.to_str().unwrap(), "--commit", commit];
        arguments.extend(self.needs_base().then_some(["--base", &base]).iter().flatten());
        arguments.extend(["--key", &key, "--builder-id", "https://ci.example/builder", "--push", &push]);
        arguments.extend(more);
        if !reviews.is_empty() {
            arguments.push("--reviews");
            arguments.extend(reviews.iter().map(String::as_str));
        }
        builder(arguments)
    }

    /// Whether the Dockerfile of the newest commit names the base of the scene: a stray `--base` is an error.
    fn needs_base(&self) -> bool {
        self.source.git(&["show", "HEAD:Dockerfile"]).contains("base:1")
    }

    /// The auditor repeats the build of a tag.
    pub fn rebuild(&self, tag: &str) -> Outcome {
        self.rebuild_with(tag, &[])
    }

    /// The same with more arguments.
    pub fn rebuild_with(&self, tag: &str, more: &[&str]) -> Outcome {
        let reference = format!("{}:{tag}", self.image());
        let source = self.source.path();
        let (base, state, key, trusted) = (
            format!("base:1={}", self.base.display()),
            self.text("state-auditor"),
            self.text("auditor.pem"),
            self.text("ci.pem.pub"),
        );
        let mut arguments = vec![
            "--state-dir",
            &state,
            "rebuild",
            &reference,
            "--builder-keys",
            &trusted,
            "--repo",
            source.to_str().unwrap(),
        ];
        arguments.extend(self.needs_base().then_some(["--base", &base]).iter().flatten());
        arguments.extend(["--key", &key, "--builder-id", "https://auditor.example/rebuilder"]);
        arguments.extend(more);
        builder(arguments)
    }

    /// Both reviewers approve a commit, CI builds it under `tag`, and the auditor repeats that.
    pub fn publish(&self, commit: &str, tag: &str) {
        self.build(commit, tag, &self.reviews(commit)).expect(0);
        self.rebuild(tag).expect(0);
    }

    /// The node decides about a reference.
    pub fn verify(&self, reference: &str) -> Outcome {
        runner(["--policy", &self.text("policy.toml"), "--json", "verify", reference])
    }

    /// The node verifies and runs a tag, on the engine that `options` name.
    pub fn run(&self, tag: &str, options: &[&str]) -> Outcome {
        let reference = format!("{}:{tag}", self.image());
        let (policy, state, input) =
            (self.text("policy.toml"), self.text("state-node"), self.text("input.json"));
        let database = format!("default={}", self.text("rows.csv"));
        let arguments = [
            "--policy",
            &policy,
            "--state-dir",
            &state,
            "run",
            &reference,
            "--input",
            &input,
            "--database",
            &database,
        ];
        runner(arguments.into_iter().chain(options.iter().copied()))
    }

    /// The digest that a tag names now, by skopeo's word.
    pub fn digest(&self, tag: &str) -> String {
        let reference = format!("docker://{}:{tag}", self.image());
        let inspected =
            crate::run("skopeo", ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &reference])
                .expect(0);
        inspected.stdout.trim().to_owned()
    }

    fn policy(&self) -> String {
        let key = |who: &str| std::fs::read_to_string(self.path(&format!("{who}.pem.pub"))).unwrap();
        let person = |who: &str| {
            format!(
                "[people.{who}]\nname = \"{who}\"\nemails = [\"{who}@reviewers.example\"]\nkeys = [\"\"\"{}\"\"\"]\n",
                key(who)
            )
        };
        let builder = |who: &str, id: &str| {
            format!(
                "[builders.{who}]\nid = \"{id}\"\noperator = \"{who}.example\"\nkeys = [\"\"\"{}\"\"\"]\n",
                key(who)
            )
        };
        format!(
            "version = 1\n{}{}{}{}[[algorithm]]\nname = \"{}\"\nsource = [\"file://{}\"]\nbases = [\"{}\"]\nfunctions = [\"count\"]\ndatabases = [\"default\"]\n\
             [algorithm.reviews]\nthreshold = 2\nfrom = [\"alice\", \"bob\"]\nauthor_may_review = false\n\
             [algorithm.builds]\nthreshold = 2\nfrom = [\"ci\", \"auditor\"]\nfailed_rebuild = \"veto\"\n",
            person("alice"),
            person("bob"),
            builder("ci", "https://ci.example/builder"),
            builder("auditor", "https://auditor.example/rebuilder"),
            self.image(),
            self.source.path().display(),
            layout_digest(&self.base),
        )
    }
}

/// The digest of the one image of a layout.
fn layout_digest(layout: &Path) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// The conditions that a denial says are not met.
pub fn unmet(denied: &Outcome) -> Vec<String> {
    let answer = denied.json();
    let unmet = answer["denial"]["unmet"].as_array().unwrap_or_else(|| panic!("no denial in {answer}"));
    unmet
        .iter()
        .map(|it| format!("{}; found {}", it["condition"].as_str().unwrap(), it["found"].as_str().unwrap()))
        .collect()
}
