//! A node that follows a federation's policy, as its key holders and its administrator meet it: each refusal names its
//! reason, and its remedy works when it is followed.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use testing::{Outcome, Scene, builder, need, runner};

/// A scene whose node follows a federation of three key holders, two of whom make a release.
struct Federation {
    scene: Scene,
    policy: String,
}

impl Federation {
    fn new() -> (Self, String) {
        let (scene, commit) = Scene::new();
        let policy = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
        let mut trust = "version = 1\nname = \"oncology.example\"\nthreshold = 2\n[keys]\n".to_owned();
        for who in ["anna", "bert", "cleo"] {
            builder(["keygen", "--no-password", "--out", &scene.text(&format!("{who}.pem"))]).expect(0);
            let key = std::fs::read_to_string(scene.path(&format!("{who}.pem.pub"))).unwrap();
            trust.push_str(&format!("{who} = '''{key}'''\n"));
        }
        scene.write("federation.toml", &trust);
        scene.write(
            "runner.toml",
            "version = 1\n[federation]\ntrust = \"federation.toml\"\nrelease = \"release\"\n",
        );
        let federation = Self { scene, policy };
        federation.empty();
        (federation, commit)
    }

    /// An empty folder for the next release.
    fn empty(&self) {
        let folder = self.scene.path("release");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
    }

    /// `who` signs the text that lies in the folder, into a file of this name.
    fn sign(&self, who: &str, name: &str, version: &str, expires: &str) {
        let (text, out) =
            (self.scene.text("release/policy.toml"), self.scene.text(&format!("release/{name}.json")));
        let key = self.scene.text(&format!("{who}.pem"));
        let release = ["--federation", "oncology.example", "--policy-version", version, "--expires", expires];
        let files = ["--key", &key, "--out", &out];
        builder([&["policy", "sign", &text][..], &release, &files].concat()).expect(0);
    }

    /// A release by Anna and Bert, and nothing else in the folder.
    fn release(&self, text: &str, version: &str, expires: &str) {
        self.empty();
        self.scene.write("release/policy.toml", text);
        self.sign("anna", "anna", version, expires);
        self.sign("bert", "bert", version, expires);
    }

    fn runner(&self, words: &[&str]) -> Outcome {
        let (config, state) = (self.scene.text("runner.toml"), self.scene.text("state-node"));
        runner([&["--config", &config, "--state-dir", &state, "--json"][..], words].concat())
    }

    fn run(&self) -> Outcome {
        let image = format!("{}:1", self.scene.image());
        let (input, database) =
            (self.scene.text("input.json"), format!("default={}", self.scene.text("rows.csv")));
        self.runner(&["run", &image, "--input", &input, "--database", &database])
    }

    /// Nothing is decided, for this reason.
    fn refused(&self, reason: &str) -> Outcome {
        let refused = self.run();
        let text = refused.expect(7);
        assert!(text.text().contains(reason), "{reason}: {}", text.text());
        text
    }
}

/// The codes of what is not met.
fn codes(denied: &Outcome) -> Vec<String> {
    let answer = denied.json();
    let all = answer["denial"]["unmet"].as_array().unwrap_or_else(|| panic!("no denial in {answer}")).clone();
    all.iter().map(|it| it["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_federations_policy_is_followed_forward_only_and_a_local_one_narrows_it() {
    need!("runc", "docker-registry");
    let (federation, commit) = Federation::new();
    let (scene, policy) = (&federation.scene, federation.policy.clone());
    let reviews = scene.reviews(&commit);
    scene.build(&commit, "1", &reviews).expect(0);
    scene.rebuild("1").expect(0);

    // Nothing there, one signature, the same key twice, then enough.
    assert!(federation.run().expect(4).text().contains("copy policy.toml and its bundles"));
    scene.write("release/policy.toml", &policy);
    federation.sign("anna", "anna", "1", "2199-01-01");
    federation.refused("2 of 3 keys have to sign it as one release, and 1 (anna, version 1) did");
    federation.sign("anna", "again", "1", "2199-01-01");
    federation.refused("and 1 (anna, version 1) did");
    // The remedy: another key holder signs the same text with the same version and expiry.
    federation.sign("bert", "bert", "1", "2199-01-01");
    let ran = federation.run().expect(0).json();
    assert_eq!(ran["admitted"]["issuer"]["federation"]["version"], 1, "{ran}");
    let shown = federation.runner(&["policy", "show"]).expect(0).json();
    assert_eq!(shown["federation"]["release"]["version"], 1, "{shown}");
    assert_eq!(shown["federation"]["signedBy"], serde_json::json!(["anna", "bert"]));
    assert!(shown.get("node").is_none(), "{shown}");

    // A copy that is half done.
    scene.write("release/policy.toml", &format!("{policy}# changed\n"));
    federation.refused("anna signed version 1 of another text");
    // The same version with another text, and the remedy: the next version.
    federation.release(&format!("{policy}# changed\n"), "1", "2199-01-01");
    federation.refused("equivocation: version 1 is");
    federation.release(&format!("{policy}# changed\n"), "2", "2199-01-01");
    federation.run().expect(0);
    // The first release again: whoever delivers it would like the older rules.
    federation.release(&policy, "1", "2199-01-01");
    federation.refused("rollback: it is version 1, and version 2 was here before");
    federation.runner(&["memory", "forget-release", "oncology.example"]).expect(0);
    federation.run().expect(0);
    // One that expires while nothing newer comes, and the remedy.
    let soon = testing::run("date", ["-u", "-d", "+4 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).expect(0);
    federation.release(&policy, "3", soon.stdout.trim());
    federation.run().expect(0);
    std::thread::sleep(Duration::from_secs(5));
    federation.refused("freeze: version 3 expired at");
    federation.release(&policy, "4", "2199-01-01");
    federation.run().expect(0);

    // A local policy narrows, and cannot widen.
    let config = std::fs::read_to_string(scene.path("runner.toml")).unwrap();
    scene.write("runner.toml", &config.replace("version = 1\n", "version = 1\npolicy = \"local.toml\"\n"));
    let strict = policy.replace("functions = [\"count\"]", "functions = []");
    scene.write("local.toml", &policy);
    let ran = federation.run().expect(0).json();
    assert_eq!(ran["admitted"]["also"]["issuer"]["federation"]["version"], 4, "{ran}");
    scene.write("local.toml", &strict);
    assert_eq!(codes(&federation.run().expect(1)), ["function"]);
    federation.release(&strict, "5", "2199-01-01");
    scene.write("local.toml", &policy);
    let denied = federation.run().expect(1);
    assert_eq!(codes(&denied), ["federation-policy"]);
    assert_eq!(denied.json()["denial"]["unmet"][0]["federationCode"], "function");
    // Nor does a policy that is named on the command line.
    let (local, image) = (scene.text("policy.toml"), format!("{}:1", scene.image()));
    let denied = federation.runner(&["--policy", &local, "verify", &image, "--function", "count"]).expect(1);
    assert_eq!(codes(&denied), ["federation-policy"]);
    // Without the local file nothing is admitted, whatever the federation says.
    std::fs::remove_file(scene.path("local.toml")).unwrap();
    assert!(federation.run().expect(4).text().contains("there is no usable policy, so nothing is admitted"));
}

#[test]
fn what_cannot_be_a_release_is_not_signed_and_who_may_change_the_trust_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [key, out, policy] = ["key.pem", "out.json", "policy.toml"].map(path);
    builder(["keygen", "--no-password", "--out", &key]).expect(0);
    let sign = |text: &str, version: &str, expires: &str| {
        std::fs::write(&policy, text).unwrap();
        let release = ["--federation", "f.example", "--policy-version", version, "--expires", expires];
        builder([&["policy", "sign", &policy][..], &release, &["--key", &key, "--out", &out]].concat())
    };
    sign("version = 2\n", "1", "2199-01-01").expect(3);
    sign("version = 1\n", "0", "2199-01-01").expect(2);
    sign("version = 1\n", "1", "tomorrow").expect(2);
    assert!(sign("version = 1\n", "1", "2001-01-01").expect(2).text().contains("give a later --expires"));
    assert!(!std::path::Path::new(&out).exists());
    sign("version = 1\n", "1", "2199-01-01").expect(0);

    let public = std::fs::read_to_string(path("key.pem.pub")).unwrap();
    let trust = format!("version = 1\nname = \"f.example\"\nthreshold = 1\n[keys]\nanna = '''{public}'''\n");
    std::fs::write(path("federation.toml"), trust).unwrap();
    let config = "version = 1\n[federation]\ntrust = \"federation.toml\"\nrelease = \".\"\n";
    std::fs::write(path("runner.toml"), config).unwrap();
    let state = path("state");
    let show = || runner(["--config", &path("runner.toml"), "--state-dir", &state, "policy", "show"]);
    assert!(show().expect(0).text().contains("signed by: anna"));
    // A pipe in place of the policy holds nobody up.
    std::fs::remove_file(&policy).unwrap();
    testing::run("mkfifo", [&policy]).expect(0);
    assert!(show().expect(1).text().contains("is no regular file"));
    testing::run("chmod", ["666", &path("federation.toml")]).expect(0);
    assert!(show().expect(1).text().contains("everybody may write to"));
    std::fs::write(path("runner.toml"), "version = 1\n").unwrap();
    assert!(show().expect(3).text().contains("names neither a policy nor a federation"));
}
