//! Reviews on their way to a node: in roles, attached after the build, and of an SSH key that signed the commit.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Scene, builder, need, unmet};

/// What is attached to an image after it was built counts like what came with the build.
#[test]
fn a_review_is_attached_to_an_image_that_is_in_the_registry() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &[scene.review("alice", &commit)]).expect(0);
    scene.rebuild("1.0").expect(0);
    let image = format!("{}:1.0", scene.image());
    let denied = unmet(&scene.verify(&image).expect(1));
    assert!(denied.len() == 1 && denied[0].contains("2 approving reviewer(s)"), "{denied:?}");

    let bob = scene.review("bob", &commit);
    let (state, keys) = (scene.text("state-review"), scene.text("alice.pem.pub"));
    let attach =
        |more: &[&str]| builder([&["--state-dir", &state, "review", "attach", &image], more].concat());
    let refused = attach(&[&bob, "--reviewer-keys", &keys]).expect(1);
    assert!(refused.text().contains("none of the reviewers' keys"), "{}", refused.text());
    attach(&[&scene.text("input.json")]).expect(3);
    assert!(!unmet(&scene.verify(&image).expect(1)).is_empty(), "nothing was attached yet");
    let keys = scene.text("bob.pem.pub");
    let attached = attach(&[&bob, "--reviewer-keys", &keys]).expect(0);
    assert!(attached.text().contains("1 review attached"), "{}", attached.text());
    let admitted = scene.verify(&image).expect(0).json();
    assert_eq!(admitted["admitted"]["reviews"], serde_json::json!(["alice", "bob"]));
    let again = attach(&[&bob]).expect(0);
    assert!(again.text().contains("attached already"), "{}", again.text());

    // The reviews of the image are at hand for the next commit.
    scene.source.write("more.sh", "echo more\n");
    let next = scene.source.commit("more");
    let both = std::fs::read_to_string(scene.path("alice.pem.pub")).unwrap()
        + &std::fs::read_to_string(scene.path("bob.pem.pub")).unwrap();
    scene.write("reviewers.pub", &both);
    let (keys, source) = (scene.text("reviewers.pub"), scene.source.path().display().to_string());
    let what = ["--state-dir", &state, "review", "diff", "--repo", &source, "--commit", &next];
    let from = ["--attached-to", &image, "--reviewer-keys", &keys, "--threshold", "2"];
    let unreviewed = builder([&what[..], &from].concat()).expect(1);
    assert!(unreviewed.text().contains("+echo more"), "{}", unreviewed.text());
    assert!(unreviewed.text().contains(&format!("everything since {commit}")), "{}", unreviewed.text());
}
