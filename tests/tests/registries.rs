//! Registries as they are met, from the command line: what a push says when its evidence will not be found where others
//! look, and what a node makes of it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Manner, Scene, need, run, runner, tool};

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

/// Somebody deleted an attachment and not its entry in the list. It may have been a no: the node says so, and what helps.
#[test]
fn evidence_that_is_listed_and_gone_denies_until_the_list_is_mended() {
    need!("runc", "docker-registry", "skopeo", "jq", "curl");
    let Some(oras) = tool("oras", "1.3.6") else { return };
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1.0");
    let image = format!("{}:1.0", scene.image());
    scene.verify(&image).expect(0);
    scene.write("note.txt", "a note");
    let oras = |arguments: &[&str]| {
        run("env", [&[&format!("HOME={}", scene.text("")), oras.to_str().unwrap()], arguments].concat())
    };
    let kind = ["--artifact-type", "application/vnd.example.note", "--disable-path-validation"];
    let note = format!("{}:text/plain", scene.text("note.txt"));
    let attached =
        oras(&[&["attach", "--plain-http", "--format", "json"][..], &kind, &[&image, &note]].concat())
            .expect(0);
    let attached = attached.json()["reference"].as_str().unwrap().to_owned();
    scene.verify(&image).expect(0);

    let (repository, digest) = attached.split_once('@').unwrap();
    let (host, path) = repository.split_once('/').unwrap();
    let url = format!("http://{host}/v2/{path}/manifests/{digest}");
    run("curl", ["-sSf", "-X", "DELETE", &url]).expect(0);
    let denied = scene.verify(&image).expect(1).json();
    let unmet = &denied["denial"]["unmet"][0];
    assert_eq!(unmet["code"], "evidence-gone", "{denied}");
    assert!(unmet["found"].as_str().unwrap().contains(digest), "{denied}");
    assert!(unmet["remedy"].as_str().unwrap().contains("docs/registries.md"), "{denied}");

    // As docs/registries.md says.
    let tag = format!("{repository}:{}", scene.digest("1.0").replace(':', "-"));
    let list = oras(&["manifest", "fetch", "--plain-http", &tag]).expect(0).stdout;
    scene.write("list.json", &list);
    let without = "del(.manifests[] | select(.digest == $gone))";
    let mended =
        run("jq", ["-c", "--arg", "gone", digest, without, &scene.text("list.json")]).expect(0).stdout;
    scene.write("mended.json", &mended);
    let kind = "application/vnd.oci.image.index.v1+json";
    let file = scene.text("mended.json");
    oras(&["manifest", "push", "--plain-http", "--media-type", kind, &tag, &file]).expect(0);
    scene.verify(&image).expect(0);
}
