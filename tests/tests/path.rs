//! The whole path, from a reviewed commit to a verified run, and the attacks on each of its joints. Real registry, real
//! OCI runtime, real Docker engine, foreign clients.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Engine, Scene, need, run, unmet};

fn has(reasons: &[String], word: &str) {
    assert!(reasons.iter().any(|reason| reason.contains(word)), "no reason speaks of `{word}`: {reasons:#?}");
}

#[test]
fn a_reviewed_and_rebuilt_image_runs_and_nothing_less_does() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let reviews = scene.reviews(&commit);

    scene.build(&commit, "1.0", &reviews).expect(0);
    let digest = scene.digest("1.0");
    let one_build = scene.verify(&format!("{}:1.0", scene.image())).expect(1);
    has(&unmet(&one_build), "2 distinct builder");

    let rebuilt = scene.rebuild("1.0").expect(0);
    assert!(rebuilt.text().contains("identical"), "{}", rebuilt.text());
    let admitted = scene.verify(&format!("{}:1.0", scene.image())).expect(0).json();
    assert_eq!(admitted["verdict"], "admitted");
    assert!(admitted["admitted"]["pinned"].to_string().contains(&digest[7..]), "{admitted}");

    let ran = scene.run("1.0", &[]).expect(0);
    assert_eq!(ran.json()["rows"], 3);
}

#[test]
fn docker_runs_the_admitted_image_whatever_its_local_names_say() {
    need!("runc", "docker-registry", "skopeo", "dockerd", "docker");
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    scene.rebuild("1.0").expect(0);
    let engine = Engine::start();
    let config = format!(
        "version = 1\npolicy = \"policy.toml\"\nengine = \"docker\"\ndocker_socket = \"{}\"\n",
        engine.socket().display()
    );
    scene.write("runner.toml", &config);
    let config = scene.text("runner.toml");

    let ran = scene.run("1.0", &["--config", &config]).expect(0);
    assert_eq!(ran.json()["rows"], 3);
    let left = engine.docker(["ps", "--all", "--quiet"]).expect(0);
    assert_eq!(left.stdout, "", "a container was left");

    // The attack: the local name now means something else. The start goes by the config's digest.
    let layout = format!("docker-archive:{}:evil:1", scene.text("evil.tar"));
    run(
        "skopeo",
        ["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{}:1.0", scene.image()), &layout],
    )
    .expect(0);
    engine.docker(["load", "--quiet", "--input", &scene.text("evil.tar")]).expect(0);
    engine.docker(["tag", "evil:1", &format!("{}:1.0", scene.image())]).expect(0);
    assert_eq!(scene.run("1.0", &["--config", &config]).expect(0).json()["rows"], 3);

    // A foreign client runs what we built.
    let id = scene.text("evil.tar");
    assert!(std::path::Path::new(&id).exists());
    let ran = engine
        .docker([
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "/bin/sh",
            "evil:1",
            "-c",
            "cat /app/greeting /app/built-by; id -u",
        ])
        .expect(0);
    assert_eq!(ran.stdout, "hello\n0\n65534\n");
}

#[test]
fn one_changed_byte_under_the_same_tag_is_denied() {
    need!("runc", "docker-registry", "skopeo", "python3");
    let (scene, commit) = Scene::new();
    // The attack looks for a Python file.
    scene.source.write("count.py", "print('count')\n");
    scene.source.write(
        "Dockerfile",
        "FROM base:1\nCOPY run.sh count.py /app/\nENTRYPOINT [\"/bin/sh\", \"/app/run.sh\"]\n",
    );
    let commit_with_python = scene.source.commit("python");
    assert_ne!(commit, commit_with_python);
    scene.build(&commit_with_python, "1.0", &scene.reviews(&commit_with_python)).expect(0);
    scene.rebuild("1.0").expect(0);
    scene.verify(&format!("{}:1.0", scene.image())).expect(0);
    let good = scene.digest("1.0");

    let tamper = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/tamper.py");
    let changed = run("python3", [tamper, &scene.registry.host(), "test/count", "1.0"]).expect(0);
    assert!(changed.stdout.contains("count.py"), "{}", changed.stdout);
    let denied = scene.verify(&format!("{}:1.0", scene.image())).expect(1);
    has(&unmet(&denied), "distinct builder");
    scene.run("1.0", &[]).expect(1);
    // The tag moved; the digest that was reviewed still runs.
    scene.verify(&format!("{}@{good}", scene.image())).expect(0);
}

#[test]
fn a_layer_changed_in_the_registry_itself_never_starts() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    scene.rebuild("1.0").expect(0);
    let raw =
        run("skopeo", ["inspect", "--raw", "--tls-verify=false", &format!("docker://{}:1.0", scene.image())])
            .expect(0);
    let layers = raw.json()["layers"].as_array().unwrap().clone();
    testing::flip_a_byte(&scene.registry.blob(layers.last().unwrap()["digest"].as_str().unwrap()));
    let refused = scene.run("1.0", &[]);
    assert!(refused.code != 0 && refused.code != 70, "{}", refused.text());
    assert!(refused.text().contains("digest"), "{}", refused.text());
    assert!(!refused.text().contains("rows"), "it ran: {}", refused.text());
}

#[test]
fn a_name_just_off_the_rule_is_denied() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    scene.rebuild("1.0").expect(0);
    let evil = format!("{}-evil:1.0", scene.image());
    let from = format!("docker://{}:1.0", scene.image());
    run(
        "skopeo",
        [
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &from,
            &format!("docker://{evil}"),
        ],
    )
    .expect(0);
    has(&unmet(&scene.verify(&evil).expect(1)), "rule");
}

#[test]
fn a_commit_that_nobody_read_is_neither_built_nor_admitted() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let reviews = scene.reviews(&commit);
    scene.source.write("run.sh", "#!/bin/sh\necho '{\"rows\": 1000}' > /mnt/countersign/output\n");
    let unread = scene.source.commit("nothing to see here");
    // The gate at the builder is for its own benefit; a builder that skips it builds what no node admits.
    scene.build(&unread, "2.0", &[]).expect(0);
    scene.rebuild("2.0").expect(0);
    let denied = scene.verify(&format!("{}:2.0", scene.image())).expect(1);
    has(&unmet(&denied), "review");
    drop(reviews);
}

#[test]
fn a_broken_policy_admits_nothing() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    scene.rebuild("1.0").expect(0);
    let reference = format!("{}:1.0", scene.image());
    let whole = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
    // In the middle of a rule: half of the text may end where a smaller policy does.
    let half = whole.split("failed_rebuild").next().unwrap();
    for (text, why) in
        [("", "empty"), (half, "half-written"), (&whole.replace("threshold", "treshold"), "misspelt")]
    {
        scene.write("policy.toml", text);
        let refused = scene.verify(&reference);
        assert_eq!(refused.code, 3, "{why}: {}", refused.text());
    }
    std::fs::remove_file(scene.path("policy.toml")).unwrap();
    assert_eq!(scene.verify(&reference).code, 4);
}

#[test]
fn a_function_that_is_not_allowed_is_not_called() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    scene.rebuild("1.0").expect(0);
    scene.write("input.json", r#"{"method": "dump"}"#);
    let refused = scene.run("1.0", &[]).expect(1);
    assert!(refused.text().contains("dump"), "{}", refused.text());
}

#[test]
fn two_builds_in_two_places_are_identical_to_the_bit() {
    need!("runc", "docker-registry", "skopeo");
    let (one, commit) = Scene::new();
    one.build(&commit, "1.0", &[]).expect(0);
    let first = one.digest("1.0");
    // Another machine's state, another tag.
    std::fs::rename(one.path("state-ci"), one.path("elsewhere")).unwrap();
    one.build(&commit, "again", &[]).expect(0);
    assert_eq!(one.digest("again"), first);
}
