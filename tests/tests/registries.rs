//! Registries as they are met, from the command line: what a push says when its evidence will not be found where others
//! look, and what a node makes of it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Manner, Scene, need, run, runner};

/// GitLab's registry has neither the referrers API nor the tag for it.
#[test]
fn a_registry_that_reads_the_tag_as_a_digest_is_told_and_used() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let scene = scene.behind(Manner::TagIsDigest);
    let built = scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    assert!(built.stderr.contains("where cosign 2 puts them"), "{}", built.stderr);
    scene.rebuild("1.0").expect(0);
    scene.verify(&format!("{}:1.0", scene.image())).expect(0);
}

#[test]
fn where_nothing_can_be_attached_nothing_is_pushed_and_files_still_count() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    let scene = scene.behind(Manner::NoSuchTags);
    let (image, bundle) = (format!("{}:1.0", scene.image()), scene.text("ci.json"));
    let reviews = scene.reviews(&commit);
    let refused = scene.build_with(&commit, "1.0", &reviews, &["--bundle-out", &bundle]).expect(6);
    assert!(refused.stderr.contains("nothing can be attached to images in"), "{}", refused.stderr);
    assert!(refused.stderr.contains("verify --evidence"), "{}", refused.stderr);
    scene.verify(&image).expect(4);

    // Without a key and reviews there is nothing to attach; the statements come as files.
    let (state, layout) = (scene.text("state-ci"), scene.text("layout"));
    let (source, base) =
        (scene.source.path().display().to_string(), format!("base:1={}", scene.base().display()));
    let output = format!("type=oci,dest={layout},tar=false,name=x");
    let plain = ["--state-dir", &state, "build", "--repo", &source, "--commit", &commit, "--base", &base];
    testing::builder([&plain[..], &["--output", &output]].concat()).expect(0);
    let pushed =
        ["copy", "--dest-tls-verify=false", &format!("oci:{layout}:x"), &format!("docker://{image}")];
    run("skopeo", pushed).expect(0);
    let key = scene.text("auditor.pem");
    let rebuilt = scene.text("auditor.json");
    let trusted = scene.text("ci.pem.pub");
    let audit = ["--state-dir", &scene.text("state-auditor"), "rebuild", &image, "--provenance", &bundle];
    let keys = ["--builder-keys", &trusted, "--repo", &source, "--base", &base, "--key", &key];
    let out = ["--builder-id", "https://auditor.example/rebuilder", "--bundle-out", &rebuilt, "--no-attach"];
    testing::builder([&audit[..], &keys, &out].concat()).expect(0);
    let evidence = [reviews, vec![bundle, rebuilt]].concat();
    let policy = scene.text("policy.toml");
    let mut verify = vec!["--policy", policy.as_str(), "verify", image.as_str()];
    verify.extend(evidence.iter().flat_map(|file| ["--evidence", file.as_str()]));
    runner(verify).expect(0);
}
