//! Ours read by cosign, and cosign's read by ours: the real program, offline, with keys.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use attestations::{Bundle, Predicate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use testing::{Cosign, Outcome, Scene, builder, need, run, runner};

fn image(scene: &Scene) -> String {
    format!("{}@{}", scene.image(), scene.digest("1.0"))
}

/// The scene's image under another name, without anything attached; the reference by digest.
fn bare_copy(scene: &Scene, name: &str) -> String {
    let from = format!("docker://{}:1.0", scene.image());
    let to = scene.registry.name(name);
    let copy = ["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"];
    run("skopeo", [&copy[..], &[&from, &format!("docker://{to}:1.0")]].concat()).expect(0);
    format!("{to}@{}", scene.digest("1.0"))
}

fn policy_about(scene: &Scene, image: &str) -> String {
    let name = image.split('@').next().unwrap();
    let text = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
    let path = scene.text("other-policy.toml");
    std::fs::write(&path, text.replace(&scene.image(), name)).unwrap();
    path
}

fn verify(policy: &str, image: &str, evidence: &[String]) -> Outcome {
    let mut arguments = vec!["--policy", policy, "--json", "verify", image];
    for path in evidence {
        arguments.extend(["--evidence", path]);
    }
    runner(arguments)
}

#[test]
fn cosign_verifies_what_is_attached_here() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let Some(cosign) = Cosign::find(&scene.path("home")) else { return };
    scene.publish(&commit, "1.0");
    let image = image(&scene);
    for who in ["ci", "auditor"] {
        let key = scene.text(&format!("{who}.pem.pub"));
        let verified = cosign.verify_attestation(&key, "slsaprovenance1", &image).expect(0);
        // One line for each bundle that verified; the other builder's is not this key's.
        assert_eq!(verified.stdout.trim().lines().count(), 1, "{}", verified.stdout);
    }
    let stranger = cosign.verify_attestation(&scene.text("alice.pem.pub"), "slsaprovenance1", &image);
    assert_ne!(stranger.code, 0, "a key that signed nothing of it");
    let other = cosign.verify_attestation(&scene.text("ci.pem.pub"), "vuln", &image);
    assert_ne!(other.code, 0, "a type that nobody signed");
}

#[test]
fn cosign_verifies_files_by_keys_of_both_kinds() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let Some(cosign) = Cosign::find(&scene.path("home")) else { return };
    for kind in ["p256", "ed25519"] {
        let (key, bundle) = (scene.text(&format!("{kind}.pem")), scene.text(&format!("{kind}.json")));
        builder(["keygen", "--no-password", "--algorithm", kind, "--out", &key]).expect(0);
        let source = scene.source.path().display().to_string();
        let state = scene.text("state-review");
        let sign = ["--state-dir", &state, "review", "sign", "--repo", &source, "--commit", &commit];
        let who = ["--key", &key, "--name", "x", "--email", "x@reviewers.example", "--out", &bundle];
        builder([&sign[..], &who].concat()).expect(0);
        let about =
            ["--type", "https://countersign.dev/review/v1", "--digest", &commit, "--digestAlg", "gitCommit"];
        cosign.verify_blob(&format!("{key}.pub"), &bundle, &about).expect(0);
        let other = [
            "--type",
            "https://countersign.dev/review/v1",
            "--digest",
            &commit.replace(&commit[..1], "0"),
            "--digestAlg",
            "gitCommit",
        ];
        let refused = cosign.verify_blob(&format!("{key}.pub"), &bundle, &other);
        assert_ne!(refused.code, 0, "another commit: {}", refused.text());
    }
}

#[test]
fn what_cosign_attests_with_a_builders_key_counts_as_that_builders() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let Some(cosign) = Cosign::find(&scene.path("home")) else { return };
    let reviews = scene.reviews(&commit);
    let provenance = scene.text("ci.json");
    scene.build_with(&commit, "1.0", &reviews, &["--bundle-out", &provenance]).expect(0);
    let rebuilt = scene.text("rebuild.json");
    scene.rebuild_with("1.0", &["--bundle-out", &rebuilt]).expect(0);
    let image = bare_copy(&scene, "test/bare");
    let policy = policy_about(&scene, &image);
    let evidence = [&reviews[..], &[rebuilt]].concat();
    verify(&policy, &image, &evidence).expect(1);

    let bundle = Bundle::parse(&std::fs::read(&provenance).unwrap()).unwrap();
    let statement = bundle.statement_unverified().unwrap().into_value();
    let Predicate::Provenance(predicate) = statement.predicate else { panic!("no provenance") };
    scene.write("predicate.json", &serde_json::to_string(&*predicate).unwrap());
    let key = cosign.import(&scene.text("ci.pem"), &scene.text("ci-cosign"));
    // In the layout of cosign 2 it is an envelope alone: it counts where it is attached, and as cosign downloads it.
    let predicate = scene.text("predicate.json");
    let old = ["--new-bundle-format=false"];
    cosign.attest(&key, "slsaprovenance1", &predicate, &image, &old).expect(0);
    let downloaded = cosign.run(["download", "attestation", &image]).expect(0).stdout;
    assert!(downloaded.contains("\"payloadType\"") && !downloaded.contains("mediaType"), "{downloaded}");
    scene.write("downloaded.jsonl", &downloaded);
    let counted = |answer: Outcome| answer.expect(0).json()["admitted"]["builds"].clone();
    assert_eq!(counted(verify(&policy, &image, &evidence)), serde_json::json!(["auditor", "ci"]));
    let files = [&evidence[..], &[scene.text("downloaded.jsonl")]].concat();
    let offline = ["--policy", &policy, "--json", "verify", "--offline", &image];
    let named = files.iter().flat_map(|file| ["--evidence", file]);
    let offline = runner(offline.into_iter().chain(named));
    assert_eq!(counted(offline), serde_json::json!(["auditor", "ci"]));
    let image = bare_copy(&scene, "test/new");
    let policy = policy_about(&scene, &image);
    verify(&policy, &image, &evidence).expect(1);
    cosign.attest(&key, "slsaprovenance1", &predicate, &image, &[]).expect(0);
    assert_eq!(counted(verify(&policy, &image, &evidence)), serde_json::json!(["auditor", "ci"]));
}

#[test]
fn what_cosign_attests_of_other_things_takes_no_image_out_of_service() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let Some(cosign) = Cosign::find(&scene.path("home")) else { return };
    scene.publish(&commit, "1.0");
    let image = image(&scene);
    scene.verify(&image).expect(0);
    scene.write("sbom.json", r#"{"spdxVersion": "SPDX-2.3"}"#);
    for who in ["ci", "alice"] {
        let key = cosign.import(&scene.text(&format!("{who}.pem")), &scene.text(&format!("{who}-cosign")));
        cosign.attest(&key, "spdxjson", &scene.text("sbom.json"), &image, &[]).expect(0);
        cosign
            .run(["sign", "--key", &key, "--use-signing-config=false", "--tlog-upload=false", &image])
            .expect(0);
    }
    scene.verify(&image).expect(0);
}

#[test]
fn a_rejection_that_cosign_signed_denies() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let Some(cosign) = Cosign::find(&scene.path("home")) else { return };
    scene.publish(&commit, "1.0");
    let review = std::fs::read(scene.path(&format!("bob-{commit}.json"))).unwrap();
    let review: Value = serde_json::from_slice(&review).unwrap();
    let payload = STANDARD.decode(review["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    let mut said: Value = serde_json::from_slice(&payload).unwrap();
    said["predicate"]["verdict"] = "rejected".into();
    scene.write("no.json", &said.to_string());
    let key = cosign.import(&scene.text("bob.pem"), &scene.text("bob-cosign"));
    let out = scene.text("no-bundle.json");
    let sign = ["attest-blob", "--key", &key, "--statement", &scene.text("no.json"), "--bundle", &out];
    cosign.run([&sign[..], &["--use-signing-config=false", "--tlog-upload=false"]].concat()).expect(0);
    let denied = verify(&scene.text("policy.toml"), &image(&scene), &[out]).expect(1);
    assert_eq!(denied.json()["denial"]["unmet"][0]["code"], "rejected", "{}", denied.stdout);
}

#[test]
fn what_cosign_signs_verifies_as_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let Some(cosign) = Cosign::find(folder.path()) else { return };
    let (key, file, bundle) = (path("key.pem"), path("file"), path("bundle.json"));
    builder(["keygen", "--no-password", "--out", &key]).expect(0);
    std::fs::write(&file, "some bytes").unwrap();
    let theirs = cosign.import(&key, &path("theirs"));
    let sign = ["sign-blob", "--key", &theirs, "--bundle", &bundle];
    cosign.run([&sign[..], &["--use-signing-config=false", "--tlog-upload=false", &file]].concat()).expect(0);
    let digest = format!("sha256:{}", run("sha256sum", [&file]).expect(0).stdout.split(' ').next().unwrap());
    let verify = |key: &str, what: &str| runner(["verify-bundle", "--bundle", &bundle, "--key", key, what]);
    for what in [&file, &digest] {
        verify(&format!("{key}.pub"), what).expect(0);
    }
    std::fs::write(&file, "other bytes").unwrap();
    let refused = verify(&format!("{key}.pub"), &file).expect(7);
    assert!(refused.stderr.contains("it is about another file or image"), "{}", refused.stderr);
    builder(["keygen", "--no-password", "--out", &path("other")]).expect(0);
    let refused = verify(&path("other.pub"), &digest).expect(7);
    assert!(refused.stderr.contains("the key did not sign this"), "{}", refused.stderr);
    let nobody = ["verify-bundle", "--bundle", &bundle, "--certificate-identity", "a", &digest];
    runner(nobody).expect(2);
    runner(["verify-bundle", "--bundle", &bundle, &digest]).expect(2);
}
