//! `--tag` and `--push`: one image under several names.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use attestations::Digest;
use serde_json::Value;
use testing::files::unpacked;
use testing::{Place, Registry, builder, need, run};

const DOCKERFILE: &str = "FROM base:1\nCOPY Dockerfile /\n";

fn raw(place: &str) -> String {
    run("skopeo", ["inspect", "--raw", "--tls-verify=false", place]).expect(0).stdout
}

fn digest_at(reference: &str) -> String {
    Digest::of(raw(&format!("docker://{reference}")).as_bytes()).to_string()
}

#[test]
fn a_push_without_a_value_goes_to_every_tag() {
    need!("runc", "git", "skopeo", "docker-registry");
    let (place, registry) = (Place::new(DOCKERFILE), Registry::start());
    let tags = ["team/a:1", "team/a:2", "other:1"].map(|name| registry.name(name));
    let key = place.path("key");
    builder(["keygen", "--no-password", "--out", &key]).expect(0);
    let named = ["-t", &tags[0], "--tag", &tags[1], "--tag", &tags[2], "--tag", &tags[0]];
    let signed = ["--push", "--key", &key, "--builder-id", "https://ci.example/"];
    let built = place.build(&[&named[..], &signed].concat()).expect(0).json();
    assert_eq!(built["references"], serde_json::json!(tags));
    assert_eq!(built["pushed"], tags[0].as_str());
    for tag in &tags {
        assert_eq!(digest_at(tag), built["digest"].as_str().unwrap(), "{tag}");
        // Its evidence is in each repository, and once.
        let repository = tag.rsplit_once(':').unwrap().0;
        let fallback = built["digest"].as_str().unwrap().replace(':', "-");
        let list: Value = serde_json::from_str(&raw(&format!("docker://{repository}:{fallback}"))).unwrap();
        let kinds = list["manifests"].as_array().unwrap().iter();
        let bundles = kinds.filter(|it| it["artifactType"].as_str().unwrap().contains("bundle")).count();
        assert_eq!(bundles, 1, "{tag}: {list}");
    }
    // With a value it goes there alone.
    let there = registry.name("elsewhere:1");
    let built = place.build(&["--tag", &registry.name("team/a:3"), "--push", &there]).expect(0).json();
    assert_eq!(built["references"], serde_json::json!([there]));
    let missing =
        run("skopeo", ["inspect", "--tls-verify=false", &format!("docker://{}", registry.name("team/a:3"))]);
    assert_ne!(missing.code, 0);
}

#[test]
fn tags_name_the_image_in_files() {
    need!("git", "skopeo", "runc");
    let place = Place::new(DOCKERFILE);
    let (docker, oci, layout) = (place.path("docker.tar"), place.path("oci.tar"), place.path("layout"));
    let outputs = [
        format!("type=docker-archive,dest={docker}"),
        format!("type=oci,dest={oci}"),
        format!("type=oci,tar=false,dest={layout}"),
    ];
    let tags = ["r.example/org/a:1", "r.example/org/a:2"];
    let all: Vec<&str> = outputs.iter().flat_map(|output| ["--output", output.as_str()]).collect();
    let named = [&["--tag", tags[0], "--tag", tags[1]][..], &all].concat();
    let built = place.build(&named).expect(0).json();
    let digest = built["digest"].as_str().unwrap();
    let list: Value = serde_json::from_slice(&unpacked(docker.as_ref())["manifest.json"]).unwrap();
    assert_eq!(list[0]["RepoTags"], serde_json::json!(tags));
    for tag in tags {
        for place in [format!("oci-archive:{oci}:{tag}"), format!("oci:{layout}:{tag}")] {
            assert_eq!(Digest::of(raw(&place).as_bytes()).to_string(), digest, "{place}");
        }
        run("skopeo", ["inspect", "--raw", &format!("docker-archive:{docker}:{tag}")]).expect(0);
    }
    // The same bytes each time, and `name=` has the last word.
    let bytes = |path: &str| Digest::of(&std::fs::read(path).unwrap());
    let first = [bytes(&docker), bytes(&oci)];
    place.build(&named).expect(0);
    assert_eq!([bytes(&docker), bytes(&oci)], first);
    let output = format!("type=docker-archive,name=own:7,dest={docker}");
    place.build(&["--tag", tags[0], "--output", &output]).expect(0);
    let list: Value = serde_json::from_slice(&unpacked(docker.as_ref())["manifest.json"]).unwrap();
    assert_eq!(list[0]["RepoTags"], serde_json::json!(["own:7"]));
}

#[test]
fn a_name_that_is_none_is_refused_before_any_work() {
    need!("git", "skopeo", "runc");
    let place = Place::new(DOCKERFILE);
    let pinned = format!("r.example/a@{}", Digest::of(b"x"));
    for more in [
        &["--push"][..],
        &["--tag", "r.example/a"],
        &["--tag", &pinned],
        &["--push", "r.example/a"],
        &["--tag", "r.example/A:1"],
    ] {
        let refused = place.build(more).expect(2).text();
        assert!(refused.contains("--push") || refused.contains("--tag"), "{more:?}: {refused}");
    }
    assert!(!std::path::Path::new(&place.path("state/images")).exists(), "nothing was built");
}
