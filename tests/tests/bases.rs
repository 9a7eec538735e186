//! A base that no list names: built, reviewed and rebuilt like any image, pushed, and admitted below an algorithm by that alone.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::Value;
use testing::{Outcome, Registry, Repository, Scene, builder, need, runner};

/// A base from scratch, as small as one with a shell can be.
const BASE: &str =
    "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

struct Bases<'a> {
    scene: &'a Scene,
    source: Repository,
    commit: String,
    reference: String,
}

impl Bases<'_> {
    /// CI builds the base and pushes it, with whatever reviews there are.
    fn build(&self, reviews: &[&str]) -> Outcome {
        self.signed(
            "build",
            "ci",
            "https://ci.example/builder",
            &["--push", &self.reference, "--commit", &self.commit],
            reviews,
        )
    }

    fn rebuild(&self) -> Outcome {
        let trusted = self.scene.text("ci.pem.pub");
        let more = [self.reference.as_str(), "--builder-keys", &trusted];
        self.signed("rebuild", "auditor", "https://auditor.example/rebuilder", &more, &[])
    }

    fn signed(&self, verb: &str, who: &str, id: &str, more: &[&str], reviews: &[&str]) -> Outcome {
        let (state, key) = (self.scene.text(&format!("state-{who}")), self.scene.text(&format!("{who}.pem")));
        let source = self.source.path().display().to_string();
        let own = ["--state-dir", &state, verb, "--repo", &source, "--key", &key, "--builder-id", id];
        let reviews: Vec<&str> = reviews.iter().flat_map(|file| ["--reviews", file]).collect();
        builder([&own[..], more, &reviews].concat()).expect(0)
    }

    fn review(&self) -> String {
        let (state, key, out) = (
            self.scene.text("state-review"),
            self.scene.text("bob.pem"),
            self.scene.text("base-review.json"),
        );
        let source = self.source.path().display().to_string();
        let who = ["--name", "Bob", "--email", "bob@reviewers.example", "--key", &key, "--out", &out];
        let what = ["--state-dir", &state, "review", "sign", "--repo", &source, "--commit", &self.commit];
        builder([&what[..], &who].concat()).expect(0);
        out
    }
}

/// What a base lacks, by the codes of it.
fn lacking(denied: &Outcome) -> Vec<String> {
    let answer = denied.json();
    let unmet = answer["denial"]["unmet"].as_array().unwrap_or_else(|| panic!("no denial in {answer}"));
    let of_base = unmet.iter().filter(|it| it["code"] == "built-base");
    let mut codes: Vec<String> = of_base.map(|it| it["baseCode"].as_str().unwrap().to_owned()).collect();
    codes.sort();
    codes
}

#[test]
fn a_base_is_admitted_by_its_own_provenance() {
    need!("runc", "docker-registry", "skopeo", "curl");
    let (scene, _) = Scene::new();
    let home = Registry::start();
    let source = Repository::new();
    std::fs::copy("/bin/busybox", source.path().join("busybox")).unwrap();
    source.write("Dockerfile", BASE);
    let commit = source.commit("a base");
    let bases = Bases { scene: &scene, source, commit, reference: home.name("bases/busybox:1") };
    bases.build(&[]);

    // Carol builds on it by its name; it is nowhere listed.
    let dockerfile =
        "RUN echo built > /built\nCOPY run.sh /app/run.sh\nENTRYPOINT [\"/bin/sh\", \"/app/run.sh\"]\n";
    scene.source.write("Dockerfile", &format!("FROM {}\n{dockerfile}", bases.reference));
    let commit = scene.source.commit("on a built base");
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    scene.rebuild("1.0").expect(0);
    let image = format!("{}:1.0", scene.image());
    let listed = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
    assert_eq!(codes(&scene.verify(&image).expect(1)), ["base", "builds"]);
    let policy = |repositories: &str| {
        let (before, after) = listed.split_once("bases = [\"sha256:").unwrap();
        let (_, after) = after.split_once('\n').unwrap();
        let rule = format!(
            "[algorithm.built_bases]\nrepositories = [\"{repositories}\"]\nsource = [\"file://{}\"]\nbases = []\n\
             reviews = {{ threshold = 1, from = [\"bob\"] }}\n\
             builds = {{ threshold = 2, from = [\"ci\", \"auditor\"], failed_rebuild = \"veto\" }}\n",
            bases.source.path().display()
        );
        scene.write("policy.toml", &format!("{before}bases = []\n{after}{rule}"));
    };

    // One build of it, which nobody reviewed.
    policy(&home.name("bases/*"));
    assert_eq!(lacking(&scene.verify(&image).expect(1)), ["builds", "reviews"]);
    bases.rebuild();
    let denied = scene.verify(&image).expect(1);
    assert_eq!(lacking(&denied), ["reviews"], "{}", denied.text());
    bases.build(&[&bases.review()]);
    let admitted = scene.verify(&image).expect(0).json();
    let [base] = &admitted["admitted"]["bases"].as_array().unwrap()[..] else { panic!("{admitted}") };
    assert_eq!(
        (&base["commit"], &base["reviews"][0]),
        (&bases.commit.as_str().into(), &"bob".into()),
        "{base}"
    );
    assert_eq!(base["builds"], serde_json::json!(["auditor", "ci"]));
    assert_eq!(scene.run("1.0", &[]).expect(0).json()["rows"], 3);
    offline(&scene, &image, &admitted, &home);

    // Where the policy lets nobody ask, and where nobody answers, it is not allowed, whatever was kept.
    policy(&home.name("others/*"));
    let denied = scene.verify(&image).expect(1);
    assert_eq!(lacking(&denied), ["base-evidence"]);
    assert!(denied.text().contains("not in repositories"), "{}", denied.text());
    policy(&home.name("bases/*"));
    drop(home);
    let denied = scene.run("1.0", &["--json"]).expect(1);
    assert_eq!(lacking(&denied), ["base-evidence"], "{}", denied.text());

    // From a folder, there is nowhere to ask.
    scene.source.write("Dockerfile", &format!("FROM base:1\n{dockerfile}"));
    let commit = scene.source.commit("on a folder");
    scene.build(&commit, "2.0", &scene.reviews(&commit)).expect(0);
    let denied = scene.verify(&format!("{}:2.0", scene.image())).expect(1);
    assert_eq!(lacking(&denied), ["base-evidence"]);
    assert!(denied.text().contains("oci-layout:base:1 is in no registry"), "{}", denied.text());
}

fn codes(denied: &Outcome) -> Vec<String> {
    let unmet = denied.json()["denial"]["unmet"].as_array().unwrap().clone();
    unmet.iter().map(|it| it["code"].as_str().unwrap().to_owned()).collect()
}

/// Without any registry, by the bundles in a folder: those of the image and of the base.
fn offline(scene: &Scene, image: &str, admitted: &Value, home: &Registry) {
    let folder = scene.path("evidence");
    std::fs::create_dir(&folder).unwrap();
    let pinned = admitted["admitted"]["pinned"]["digest"].as_str().unwrap();
    let base = admitted["admitted"]["bases"][0]["digest"].as_str().unwrap();
    let name = format!("{}@{pinned}", scene.image());
    let verify = |folder: &Path| {
        let (policy, folder) = (scene.text("policy.toml"), folder.display().to_string());
        runner(["--policy", &policy, "--json", "verify", &name, "--offline", "--evidence", &folder])
    };
    save(scene.image().as_str(), pinned, &folder);
    assert_eq!(lacking(&verify(&folder).expect(1)), ["builds", "reviews"], "{image}");
    save(&home.name("bases/busybox"), base, &folder);
    assert_eq!(verify(&folder).expect(0).json()["admitted"]["bases"], admitted["admitted"]["bases"]);
}

/// Saves what is attached to an image, as any client can: by the referrers' tag.
fn save(repository: &str, digest: &str, folder: &Path) {
    let inspect = |reference: &str| {
        let from = format!("docker://{repository}{reference}");
        testing::run("skopeo", ["inspect", "--raw", "--tls-verify=false", &from]).expect(0).json()
    };
    let list = inspect(&format!(":{}", digest.replace(':', "-")));
    let (host, path) = repository.split_once('/').unwrap();
    for entry in list["manifests"].as_array().unwrap() {
        let manifest = inspect(&format!("@{}", entry["digest"].as_str().unwrap()));
        for layer in manifest["layers"].as_array().unwrap() {
            let blob = layer["digest"].as_str().unwrap();
            let file = folder.join(format!("{}.json", blob.replace(':', "-")));
            if layer["mediaType"].as_str().unwrap().contains("sigstore.bundle") {
                let url = format!("http://{host}/v2/{path}/blobs/{blob}");
                testing::run("curl", ["--silent", "--fail", "--output", file.to_str().unwrap(), &url])
                    .expect(0);
            }
        }
    }
}
