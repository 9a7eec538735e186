//! `countersign-runner policy`: what a policy means, before anything is decided by it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Outcome, Scene, need, runner};

fn policy(words: &[&str]) -> Outcome {
    runner(["--json", "policy"].iter().chain(words))
}

#[test]
fn a_policy_is_checked_without_anything_else() {
    let (scene, _) = Scene::new();
    let file = scene.text("policy.toml");
    let sound = policy(&["check", &file]).expect(0).json();
    assert_eq!(sound["sound"], true);
    let text = std::fs::read_to_string(&file).unwrap();
    scene.write("expired.toml", &format!("expires = \"2020-01-01\"\n{text}"));
    let found = policy(&["check", &scene.text("expired.toml")]).expect(1).json();
    assert_eq!(found["findings"][0]["severity"], "error");
    policy(&["check", &scene.text("nothing.toml")]).expect(4);
}

#[test]
fn cases_come_out_as_they_expect_or_are_told() {
    need!("runc", "docker-registry");
    let (scene, commit) = Scene::new();
    let reviews = scene.reviews(&commit);
    std::fs::create_dir(scene.path("evidence")).unwrap();
    for (number, review) in reviews.iter().enumerate() {
        std::fs::copy(review, scene.path(&format!("evidence/{number}.json"))).unwrap();
    }
    let bundle = scene.text("evidence/build.json");
    scene.build_with(&commit, "1", &reviews, &["--bundle-out", &bundle]).expect(0);
    let reference = format!("{}@{}", scene.image(), scene.digest("1"));
    let case = |name: &str, expect: &str| {
        format!(
            "[[case]]\nname = \"{name}\"\nreference = \"{reference}\"\nevidence = [\"evidence\"]\nexpect = {expect}\n"
        )
    };
    let file = scene.text("cases.toml");
    let test = |text: &str| {
        scene.write("cases.toml", text);
        runner(["--policy", &scene.text("policy.toml"), "--json", "policy", "test", &file])
    };
    let lacks = case("one builder is not enough", "[\"builds\"]");
    test(&lacks).expect(0);
    let failed = test(&format!("{lacks}{}", case("it runs", "\"admitted\""))).expect(1).json();
    assert_eq!(failed["failed"], 1);
    assert_eq!(failed["cases"][1]["found"][0], "builds");
    for wrong in ["expect = \"yes\"", "expect = []", "expects = \"admitted\""] {
        let text = lacks.replace("expect = [\"builds\"]", wrong);
        test(&text).expect(3);
    }
}

#[test]
fn what_comes_out_otherwise_under_another_policy_is_listed() {
    need!("runc", "docker-registry");
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1");
    scene.run("1", &[]).expect(0);
    let (old, new, state) = (scene.text("policy.toml"), scene.text("new.toml"), scene.text("state-node"));
    let text = std::fs::read_to_string(&old).unwrap();
    scene.write("new.toml", &text.replace("failed_rebuild", "max_age = \"1h\"\nfailed_rebuild"));
    let diff = || runner(["--state-dir", &state, "--json", "policy", "diff", &old, &new]);
    diff().expect(0);
    let elsewhere =
        |line: &str| if line.starts_with("source") { "source = []".to_owned() } else { line.to_owned() };
    let strict: Vec<String> = text.lines().map(elsewhere).collect();
    scene.write("new.toml", &strict.join("\n"));
    let changed = diff().expect(1).json();
    assert_eq!(changed["images"], 1);
    assert!(changed["changed"][0]["new"].to_string().contains("source"), "{changed}");
}

#[test]
fn a_decision_is_written_down_for_other_tools() {
    need!("runc", "docker-registry", "python3");
    let (scene, commit) = Scene::new();
    let reviews = scene.reviews(&commit);
    scene.build(&commit, "1", &reviews).expect(0);
    let reference = format!("{}:1", scene.image());
    let verify = |vsa: &str| {
        let (policy, state, svr) =
            (scene.text("policy.toml"), scene.text("state-node"), scene.text("svr.json"));
        let head = ["--policy", &policy, "--state-dir", &state, "--json", "verify", &reference];
        let more =
            ["--vsa", &scene.text(vsa), "--svr", &svr, "--verifier-id", "https://hospital.example/node"];
        runner(head.iter().chain(&more))
    };
    let statement = |name: &str| -> serde_json::Value {
        let bundle = attestations::Bundle::parse(&std::fs::read(scene.path(name)).unwrap()).unwrap();
        let key = std::fs::read_to_string(scene.path("state-node/record-key.pem.pub")).unwrap();
        bundle.verify(&attestations::PublicKey::parse(&key).unwrap()).unwrap();
        let found = bundle.statement_unverified().unwrap();
        serde_json::from_slice(&found.value().to_bytes().unwrap()).unwrap()
    };
    verify("denied.json").expect(1);
    let denied = statement("denied.json");
    assert_eq!(denied["predicate"]["verificationResult"], "FAILED");
    assert_eq!(denied["predicate"]["verifiedLevels"], serde_json::json!(["FAILED"]));
    assert!(!scene.path("svr.json").exists() && !scene.path("denied.draft.json").exists());
    scene.rebuild("1").expect(0);
    verify("vsa.json").expect(0);
    let (vsa, draft, svr) = (statement("vsa.json"), statement("vsa.draft.json"), statement("svr.json"));
    assert_eq!(vsa["predicateType"], "https://slsa.dev/verification_summary/v1");
    assert_eq!(vsa["predicate"]["verifiedLevels"], serde_json::json!(["SLSA_BUILD_LEVEL_1"]));
    assert_eq!(vsa["predicate"]["inputAttestations"].as_array().unwrap().len(), 4);
    let levels = serde_json::json!(["SLSA_BUILD_REPRODUCED", "SLSA_SOURCE_TWO_PARTY_REVIEWED"]);
    assert_eq!(draft["predicate"]["verifiedLevels"], levels);
    assert_eq!(svr["predicateType"], "https://in-toto.io/attestation/svr/v0.2");
    assert_eq!(svr["predicate"]["verifier"]["id"], "https://hospital.example/node");
    assert_eq!(
        svr["subject"][0]["digest"]["sha256"].as_str().unwrap(),
        &scene.digest("1")["sha256:".len()..]
    );
}
