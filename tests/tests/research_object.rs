//! One run as a research object: what `log crate` writes, from a real run.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use serde_json::Value;
use testing::{Scene, need, runner};

#[test]
fn a_run_is_written_as_a_crate_with_its_decision_and_release() {
    need!("runc", "docker-registry");
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1");
    scene.run("1", &[]).expect(0);
    let (policy, state, folder) = (scene.text("policy.toml"), scene.text("state-node"), scene.text("crate"));
    let log = |words: &[&str]| {
        let head = ["--policy", &policy, "--state-dir", &state, "--json", "log"];
        runner(head.iter().chain(words))
    };
    let entries = log(&["show"]).expect(0).json();
    let ended =
        entries["entries"].as_array().unwrap().iter().find(|it| it["run"]["event"].get("ended").is_some());
    let index = ended.unwrap()["index"].to_string();
    let organisation = ["--organisation", "Hospital", "--url", "https://hospital.example/"];
    let write = |index: &str| log(&[&["crate", index, &folder][..], &organisation].concat());
    write("0").expect(2);
    write(&index).expect(0);
    // It is written once, and into no folder that holds something.
    write(&index).expect(2);

    let text = std::fs::read_to_string(scene.path("crate/ro-crate-metadata.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let graph = document["@graph"].as_array().unwrap();
    let by_id: BTreeMap<&str, &Value> = graph.iter().map(|it| (it["@id"].as_str().unwrap(), it)).collect();
    assert_eq!(by_id.len(), graph.len(), "one entity for each id");
    assert_eq!(by_id["#run"]["actionStatus"], "http://schema.org/CompletedActionStatus");
    assert_eq!(by_id["#decision"]["additionalType"]["@id"], "https://w3id.org/shp#SignOff");
    assert_eq!(by_id["#release"]["additionalType"]["@id"], "https://w3id.org/shp#DisclosureCheck");
    let image = by_id["#run"]["instrument"]["@id"].as_str().unwrap();
    assert_eq!(image, format!("oci://{}@{}", scene.image(), scene.digest("1")));
    assert_eq!(by_id[image]["softwareVersion"], commit.as_str());
    // Every file that it names is there, and what is there can be checked with the log's key alone.
    for part in by_id["./"]["hasPart"].as_array().unwrap() {
        let name = part["@id"].as_str().unwrap();
        assert!(scene.path("crate").join(name).is_file() && by_id.contains_key(name), "{name}");
    }
    log(&["check", &scene.text("crate/ended.tlog-proof")]).expect(0);
    // The data themselves are in none of its files.
    for file in std::fs::read_dir(scene.path("crate")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("\"rows\""), "the result is in the crate");
    }
}
