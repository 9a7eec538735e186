//! One image for several platforms: what others read of it, and what rebuilders and nodes make of it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use attestations::Digest;
use serde_json::Value;
use testing::{
    FOREIGN, Outcome, Registry, Repository, Scene, builder, foreign_busybox, has_emulator, need, run, runner,
};

/// A shell for each processor, with no command needed to put it there.
const BASE: &str = "FROM scratch
ARG TARGETARCH
COPY --chmod=755 busybox-$TARGETARCH /bin/busybox
COPY links/ /bin/
ENV PATH=/bin
";

struct Place {
    folder: tempfile::TempDir,
    registry: Registry,
    repository: Repository,
}

fn here() -> String {
    images::Platform::here().architecture
}

fn both() -> String {
    format!("linux/{},linux/{FOREIGN}", here())
}

impl Place {
    fn new() -> (Self, String) {
        let place = Self {
            folder: tempfile::TempDir::new().unwrap(),
            registry: Registry::start(),
            repository: Repository::new(),
        };
        let root = place.repository.path();
        std::fs::copy("/bin/busybox", root.join(format!("busybox-{}", here()))).unwrap();
        std::fs::copy(foreign_busybox(FOREIGN), root.join(format!("busybox-{FOREIGN}"))).unwrap();
        std::fs::create_dir(root.join("links")).unwrap();
        for applet in ["sh", "uname", "cat"] {
            std::os::unix::fs::symlink("busybox", root.join("links").join(applet)).unwrap();
        }
        place.repository.write("Dockerfile", BASE);
        let commit = place.repository.commit("a shell");
        builder(["keygen", "--no-password", "--out", &place.path("key")]).expect(0);
        (place, commit)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn build(&self, state: &str, commit: &str, more: &[&str]) -> Outcome {
        let (state, repository, key) =
            (self.path(state), self.repository.path().display().to_string(), self.path("key"));
        let fixed = ["--state-dir", &state, "--json", "build", "--repo", &repository, "--commit", commit];
        let identity = ["--key", &key, "--builder-id", "https://ci.example/builder"];
        builder(fixed.iter().chain(&identity).chain(more))
    }

    fn rebuild(&self, reference: &str, more: &[&str]) -> Outcome {
        let (state, trusted, key) = (self.path("other"), self.path("key.pub"), self.path("key"));
        let fixed = ["--state-dir", &state, "--json", "rebuild", reference, "--builder-keys", &trusted];
        let identity = ["--key", &key, "--builder-id", "https://auditor.example/rebuilder"];
        builder(fixed.iter().chain(&identity).chain(more))
    }
}

fn raw(place: &str, more: &[&str]) -> String {
    let fixed = ["inspect", "--raw", "--tls-verify=false", place];
    run("skopeo", fixed.iter().chain(more)).expect(0).stdout
}

fn digests(built: &Value) -> Vec<String> {
    let images = built["images"].as_array().unwrap();
    images.iter().map(|image| image["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn several_platforms_become_one_index_that_others_read() {
    need!("runc", "git", "mmdebstrap", "skopeo", "docker-registry");
    let (place, commit) = Place::new();
    let name = place.registry.name("team/shell");
    let (tag, layout, file) = (format!("{name}:1"), place.path("layout"), place.path("index.tar"));
    let archive = format!("type=oci,dest={file}");
    let bundle = place.path("build.json");
    let more = ["--push", &tag, "--oci", &layout, "--output", &archive, "--bundle-out", &bundle];
    let platforms = both();
    let built = place.build("state", &commit, &[&more[..], &["--platform", &platforms]].concat());
    let built = built.expect(0).json();

    let index = raw(&format!("docker://{tag}"), &[]);
    assert_eq!(Digest::of(index.as_bytes()).to_string(), built["digest"].as_str().unwrap());
    assert_eq!(raw(&format!("oci:{layout}"), &[]), index);
    assert_eq!(raw(&format!("oci-archive:{file}"), &[]), index);
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let entries = index["manifests"].as_array().unwrap();
    let of = |entry: &Value| entry["platform"]["architecture"].as_str().unwrap().to_owned();
    assert_eq!(entries.iter().map(of).collect::<Vec<_>>(), ["amd64", "arm64"]);
    for (entry, digest) in entries.iter().zip(digests(&built)) {
        assert_eq!(entry["digest"], digest.as_str());
        let architecture = of(entry);
        // skopeo chooses by platform, and what it finds is for it.
        let chosen = ["--override-arch", &architecture, "inspect", "--config", "--raw", "--tls-verify=false"];
        let tag = format!("docker://{tag}");
        let config = run("skopeo", chosen.iter().chain(&[tag.as_str()])).expect(0).json();
        assert_eq!(config["architecture"], architecture.as_str());
        let own = place.path(&format!("build.linux-{architecture}.json"));
        assert!(Path::new(&own).exists(), "{own}");
    }
    let copied = ["copy", "--all", "--src-tls-verify=false", &format!("docker://{tag}")]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("oci:{}:1", place.path("copied"))]);
    run("skopeo", copied).expect(0);

    // The order of asking leaves no trace.
    let (foreign, own) = (format!("linux/{FOREIGN}"), format!("linux/{}", here()));
    let again = place.build("again", &commit, &["--platform", &foreign, "--platform", &own]).expect(0);
    assert_eq!(again.json()["digest"], built["digest"]);

    // What holds one image takes no index, and this is said before anything is built.
    let tar = format!("type=tar,dest={}", place.path("root.tar"));
    let refused = place.build("none", &commit, &["--platform", &platforms, "--output", &tar]).expect(2);
    assert!(refused.text().contains("a root file system is of one image"), "{}", refused.text());
    assert!(!Path::new(&place.path("none/images")).exists());

    // Each image has its own provenance, and each is repeated.
    let rebuilt = place.rebuild(&tag, &[]).expect(0).json();
    assert_eq!((&rebuilt["identical"], digests(&rebuilt)), (&Value::Bool(true), digests(&built)));
    let some = place.rebuild(&tag, &["--platform", &foreign]).expect(0).json();
    assert_eq!((&some["platform"], &some["identical"]), (&foreign.as_str().into(), &Value::Bool(true)));
    assert!(digests(&built).contains(&some["digest"].as_str().unwrap().to_owned()));
    let one = format!("{name}@{}", digests(&built)[1]);
    assert_eq!(place.rebuild(&one, &[]).expect(0).json()["digest"], digests(&built)[1].as_str());
    let refused = place.rebuild(&one, &["--platform", "linux/s390x"]).expect(4);
    assert!(refused.text().contains("is for linux/arm64"), "{}", refused.text());
    assert!(place.rebuild(&tag, &["--platform", "linux/s390x"]).expect(4).text().contains("linux/s390x"));
}

#[test]
fn commands_run_for_each_platform_on_a_base_that_is_an_index() {
    need!("runc", "git", "mmdebstrap", "skopeo", "docker-registry");
    if !has_emulator() {
        return;
    }
    let (place, commit) = Place::new();
    let (base, platforms) = (place.registry.name("team/shell"), both());
    let pushed = place.build("state", &commit, &["--platform", &platforms, "--push", &format!("{base}:1")]);
    let index = pushed.expect(0).json()["digest"].as_str().unwrap().to_owned();
    let tag = format!("{}:1", place.registry.name("team/says"));
    // The base by its tag, and by the digest of its index: on each platform the image for it.
    for from in [format!("{base}:1"), format!("{base}@{index}")] {
        place.repository.write("Dockerfile", &format!("FROM {from}\nRUN uname -m >/machine\n"));
        let commit = place.repository.commit("says");
        let built = place.build("state", &commit, &["--platform", &platforms, "--push", &tag]);
        let built = built.expect(0).json();
        let again = place.build("again", &commit, &["--platform", &platforms]).expect(0).json();
        assert_eq!(built["digest"], again["digest"], "{from}");
        let rebuilt = place.rebuild(&tag, &[]).expect(0).json();
        assert_eq!((&rebuilt["identical"], digests(&rebuilt)), (&Value::Bool(true), digests(&built)));
    }
    // An index in a folder is a base as well.
    let layout = place.path("layout");
    place.build("state", &commit, &["--platform", &platforms, "--oci", &layout]).expect(0);
    place.repository.write("Dockerfile", "FROM base:1\nRUN uname -m >/machine\n");
    let commit = place.repository.commit("from a folder");
    let folder = format!("base:1={layout}");
    let built =
        place.build("state", &commit, &["--platform", &platforms, "--base", &folder]).expect(0).json();
    assert_eq!(digests(&built).len(), 2);
}

#[test]
fn a_node_takes_the_image_for_its_platform_with_that_image_s_evidence() {
    need!("runc", "git", "skopeo", "docker-registry");
    let (scene, _) = Scene::new();
    scene.source.write("Dockerfile", "FROM scratch\nCOPY run.sh /app/run.sh\nENTRYPOINT [\"/app/run.sh\"]\n");
    let commit = scene.source.commit("for two platforms");
    let reviews = scene.reviews(&commit);
    let platforms = both();
    let built = scene.build_with(&commit, "two", &reviews, &["--json", "--platform", &platforms]);
    let built = built.expect(0).json();
    let digest_of = |architecture: &str| {
        let platform = format!("linux/{architecture}");
        let images = built["images"].as_array().unwrap();
        images.iter().find(|image| image["platform"] == platform.as_str()).unwrap()["digest"].clone()
    };
    let tag = format!("{}:two", scene.image());
    scene.verify(&tag).expect(1);
    scene.rebuild("two").expect(0);
    let admitted = scene.verify(&tag).expect(0);
    assert!(admitted.stdout.contains(digest_of(&here()).as_str().unwrap()), "{}", admitted.stdout);
    // Each image has evidence of its own, whoever asks; what is about the index as a whole is about no image.
    let other = format!("{}@{}", scene.image(), digest_of(FOREIGN).as_str().unwrap());
    scene.verify(&other).expect(0);
    let index = format!("{}@{}", scene.image(), built["digest"].as_str().unwrap());
    let refused = scene.verify(&index).expect(3);
    let words =
        format!("for linux/{} that is {}@{}", here(), scene.image(), digest_of(&here()).as_str().unwrap());
    assert!(refused.text().contains(&words), "{words} in {}", refused.text());
    // A rule that allows the index's digest allows nothing: what runs has another.
    let policy = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
    let by_digest = |digest: &Value, asked: &str| {
        let name = format!("name = \"{}\"", scene.image());
        let changed = policy.replace(&name, &format!("digest = {digest}"));
        scene.write("by-digest.toml", &changed);
        runner(["--policy", &scene.text("by-digest.toml"), "--json", "verify", asked])
    };
    let own = digest_of(&here());
    let named = format!("{}@{}", scene.image(), own.as_str().unwrap());
    by_digest(&own, &named).expect(0);
    // A tag is looked up only where a rule names its repository.
    for (digest, asked) in [(&own, &tag), (&built["digest"], &tag), (&built["digest"], &named)] {
        let denied = by_digest(digest, asked).expect(1);
        assert!(denied.text().contains("no-rule"), "{}", denied.text());
    }
}
