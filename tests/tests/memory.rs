//! A node that remembers, as an administrator meets it: a no that somebody takes away, an older image under the tag, a clock that
//! goes back, a revocation while something runs, and parameters that nobody reviewed.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use testing::{Outcome, Repository, Scene, builder, need, program, run, runner, unmet};

/// The codes of what is not met.
fn codes(denied: &Outcome) -> Vec<String> {
    let answer = denied.json();
    let all = answer["denial"]["unmet"].as_array().unwrap_or_else(|| panic!("no denial in {answer}")).clone();
    all.iter().map(|it| it["code"].as_str().unwrap().to_owned()).collect()
}

/// Bob's no to a commit; the path of its bundle.
fn rejection(scene: &Scene, commit: &str) -> String {
    let (out, key, state) = (scene.text("no.json"), scene.text("bob.pem"), scene.text("state-review"));
    let source = scene.source.path();
    let repository = source.to_str().unwrap();
    let sign =
        ["--state-dir", &state, "review", "sign", "--reject", "--repo", repository, "--commit", commit];
    let who = ["--key", &key, "--name", "bob", "--email", "bob@reviewers.example", "--out", &out];
    builder(sign.iter().chain(&who)).expect(0);
    out
}

fn memory(scene: &Scene, words: &[&str]) -> Outcome {
    let (policy, state) = (scene.text("policy.toml"), scene.text("state-node"));
    let head = ["--policy", &policy, "--state-dir", &state, "--json", "memory"];
    runner(head.iter().chain(words))
}

#[test]
fn a_no_that_was_seen_once_holds_until_its_signer_takes_it_back() {
    need!("runc", "docker-registry");
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1");
    scene.run("1", &[]).expect(0);
    let no = rejection(&scene, &commit);
    assert_eq!(codes(&scene.run("1", &["--json", "--evidence", &no])), ["rejected"]);
    // It was in no registry, and whoever held the file took it away again.
    assert_eq!(codes(&scene.run("1", &["--json"])), ["rejected"]);
    let kept = memory(&scene, &["show"]).expect(0).json();
    assert_eq!(kept["noes"].as_array().unwrap().len(), 1, "{kept}");
    // Alice cannot take it back, and Bob can.
    let withdrawal = scene.text("withdrawal.json");
    let withdraw = |who: &str| {
        let key = scene.text(&format!("{who}.pem"));
        builder(["withdraw", &no, "--reason", "a misreading", "--key", &key, "--out", &withdrawal])
    };
    assert!(withdraw("alice").expect(7).stderr.contains("only the key that signed"));
    withdraw("bob").expect(0);
    scene.run("1", &["--evidence", &withdrawal]).expect(0);
    scene.run("1", &[]).expect(0);
}

#[test]
fn an_older_image_under_the_tag_and_a_clock_that_goes_back() {
    need!("runc", "docker-registry", "python3");
    let (scene, first) = Scene::new();
    scene.publish(&first, "1");
    scene.run("1", &[]).expect(0);
    scene.source.write("run.sh", &format!("{}# newer\n", Scene::SCRIPT));
    let second = scene.source.commit_later("a repair");
    scene.publish(&second, "2");
    scene.run("2", &[]).expect(0);
    let denied = scene.run("1", &["--json"]);
    assert_eq!(codes(&denied), ["older-than-seen"], "{}", denied.text());
    assert!(unmet(&denied)[0].contains("ran before"));
    let allowed = scene.run("1", &["--json", "--allow-older"]).expect(0).json();
    assert_eq!(allowed["admitted"]["older"], "allowed");
    assert_eq!(codes(&scene.run("1", &["--json"])), ["older-than-seen"]);
    memory(&scene, &["forget-newest", &scene.image()]).expect(0);
    scene.run("1", &[]).expect(0);

    let later = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                 c.execute(\"UPDATE clock SET latest = '2199-01-01T00:00:00.000000Z'\"); c.commit()";
    run("python3", ["-c", later, &scene.text("state-node/memory.sqlite")]).expect(0);
    assert_eq!(codes(&scene.run("1", &["--json"])), ["clock-set-back"]);
    memory(&scene, &["reset-clock"]).expect(0);
    scene.run("1", &[]).expect(0);
}

#[test]
fn a_revocation_stops_what_runs() {
    need!("runc", "docker-registry");
    let (scene, _) = Scene::new();
    scene.source.write("run.sh", "#!/bin/sh\nsleep 60\necho '{}' > /mnt/countersign/output\n");
    let commit = scene.source.commit("a long one");
    scene.publish(&commit, "1");
    let (policy, state, input) =
        (scene.text("policy.toml"), scene.text("state-node"), scene.text("input.json"));
    let reference = format!("{}:1", scene.image());
    let database = format!("default={}", scene.text("rows.csv"));
    let mut running = std::process::Command::new(program("countersign-runner"))
        .args(["--policy", &policy, "--state-dir", &state, "run", &reference, "--input", &input])
        .args(["--database", &database])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while std::fs::read_dir(scene.path("state-node/runs")).map_or(0, Iterator::count) < 2 {
        assert!(started.elapsed() < Duration::from_secs(60) && running.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(1));
    let text = std::fs::read_to_string(&policy).unwrap();
    let revoked = format!("version = 1\nrevoked = [\"{}\"]\n", scene.digest("1"));
    std::fs::write(scene.path("policy.new"), text.replacen("version = 1\n", &revoked, 1)).unwrap();
    std::fs::rename(scene.path("policy.new"), &policy).unwrap();
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(5), "{said}");
    assert!(said.contains("it was stopped, since the policy revokes sha256:"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(50), "it ran to its end");
}

#[test]
fn a_build_argument_that_nobody_reviewed() {
    need!("runc", "docker-registry");
    let (scene, commit) = Scene::new();
    let reviews = scene.reviews(&commit);
    scene.build_with(&commit, "1", &reviews, &["--build-arg", "GREETING=bye"]).expect(0);
    scene.rebuild("1").expect(0);
    let reference = format!("{}:1", scene.image());
    let denied = scene.verify(&reference).expect(1);
    assert_eq!(codes(&denied), ["parameters", "builds"], "{}", denied.text());
    assert!(denied.text().contains("build-arg:GREETING=bye"), "{}", denied.text());
    let text = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
    scene.write("policy.toml", &format!("{text}[algorithm.parameters]\nbuild_args.GREETING = [\"bye\"]\n"));
    scene.verify(&reference).expect(0);
}

#[test]
fn a_base_that_is_not_the_one_that_the_dockerfile_pins() {
    need!("runc", "docker-registry");
    let (scene, _) = Scene::new();
    let pinned = format!("base:1@sha256:{}", "b".repeat(64));
    scene.source.write("Dockerfile", &format!("FROM {pinned}\nCOPY run.sh /run.sh\n"));
    let commit = scene.source.commit("pinned");
    let base = scene.base();
    let refused = scene.build_with(&commit, "1", &[], &["--base", &format!("{pinned}={}", base.display())]);
    let said = refused.expect(1).stderr;
    assert!(
        said.contains("the commit pins the base") && said.contains("change the pin in a commit"),
        "{said}"
    );
}

#[test]
fn a_rebuild_that_comes_to_nothing_says_so() {
    need!("runc", "docker-registry");
    let (scene, commit) = Scene::new();
    let reviews = scene.reviews(&commit);
    scene.build(&commit, "1", &reviews).expect(0);
    let other = Repository::new();
    other.commit("another one");
    let elsewhere = other.path();
    let elsewhere = elsewhere.to_str().unwrap();
    let reference = format!("{}:1", scene.image());
    let (state, key, trusted) =
        (scene.text("state-auditor"), scene.text("auditor.pem"), scene.text("ci.pem.pub"));
    let head =
        ["--state-dir", &state, "rebuild", &reference, "--builder-keys", &trusted, "--repo", elsewhere];
    let who = ["--key", &key, "--builder-id", "https://auditor.example/rebuilder"];
    let failed = builder(head.iter().chain(&who));
    assert_ne!(failed.code, 0);
    let policy = scene.text("policy.toml");
    let told = runner(["--policy", &policy, "verify", "--explain", &reference]).expect(1).stdout;
    assert!(told.contains("could not rebuild commit"), "{told}");
    assert!(told.contains("a rebuild that could not be finished"), "{told}");
}

#[test]
fn the_digest_that_an_explanation_shows_is_what_revokes_the_statement() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1");
    let (reference, policy) = (format!("{}:1", scene.image()), scene.text("policy.toml"));
    let told = runner(["--policy", &policy, "verify", "--explain", &reference]).expect(0).stdout;
    let review = told.find("approved the whole of").unwrap_or_else(|| panic!("{told}"));
    let digest = told[review..].split("statement ").nth(1).unwrap().lines().next().unwrap();
    let text = std::fs::read_to_string(&policy).unwrap();
    let revoked = format!("version = 1\nrevoked = [\"{digest}\"]");
    assert!(text.contains("version = 1") && !text.contains("revoked = "), "{text}");
    std::fs::write(&policy, text.replacen("version = 1", &revoked, 1)).unwrap();
    let denied = unmet(&scene.verify(&reference).expect(1));
    assert!(denied[0].starts_with("2 approving reviewer(s) of alice, bob; found "), "{denied:?}");
}

#[test]
fn evidence_of_the_hospitals_own_repository_is_asked_for() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1");
    let reference = format!("{}:1", scene.image());
    scene.verify(&reference).expect(0);
    // The hospital keeps a copy of the image with a veto of its own; the developer cannot write there.
    let own = scene.registry.name("hospital/evidence");
    let digest = scene.digest("1");
    let (from, to) = (format!("docker://{reference}"), format!("docker://{own}:1"));
    run("skopeo", ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]).expect(0);
    let no = rejection(&scene, &commit);
    let image = format!("{own}@{digest}");
    let attach = ["review", "attach", &image, &no];
    let state = scene.text("state-review");
    builder(["--state-dir", &state].iter().copied().chain(attach)).expect(0);
    scene.verify(&reference).expect(0);
    let text = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
    scene.write("policy.toml", &format!("evidence = [\"{own}\"]\n{text}"));
    assert_eq!(codes(&scene.verify(&reference).expect(1)), ["rejected"]);
}

#[test]
fn a_memory_that_is_damaged_unreadable_or_gone_admits_nothing() {
    need!("runc", "docker-registry", "python3", "setpriv");
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1");
    scene.run("1", &[]).expect(0);
    let no = rejection(&scene, &commit);
    assert_eq!(codes(&scene.run("1", &["--json", "--evidence", &no])), ["rejected"]);
    let (file, kept) = (scene.text("state-node/memory.sqlite"), scene.text("kept.sqlite"));
    let sql = |change: &str| {
        let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]).fetchall(); c.commit()";
        run("python3", ["-c", script, &file, change]).expect(0);
    };
    sql("PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::copy(&file, &kept).unwrap();
    for change in ["UPDATE no SET bytes = x'7b7d'", "DELETE FROM no"] {
        sql(change);
        sql("PRAGMA wal_checkpoint(TRUNCATE)");
        let said = scene.run("1", &[]).expect(8).stderr;
        assert!(said.contains("never written there") && said.contains("backup"), "{change}: {said}");
        std::fs::copy(&kept, &file).unwrap();
    }
    // Somebody who may not look into the state directory is not told that nothing is remembered there.
    let (policy, state, image) =
        (scene.text("policy.toml"), scene.text("state-node"), format!("{}:1", scene.image()));
    let readable = scene.text("runner");
    std::fs::copy(program("countersign-runner"), &readable).unwrap();
    run("chmod", ["755", scene.path("").to_str().unwrap(), &readable]).expect(0);
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", &readable, "--policy", &policy];
    let refused = run("setpriv", nobody.iter().chain(&["--state-dir", &state, "verify", &image]));
    assert!(refused.code == 8 && refused.stderr.contains("memory"), "{}", refused.text());
    // Gone: the node says so, and goes on only when an administrator says so.
    std::fs::remove_file(&file).unwrap();
    assert!(scene.run("1", &[]).expect(1).stderr.contains("what it remembers is gone"));
    memory(&scene, &["begin-anew"]).expect(0);
    scene.run("1", &[]).expect(0);
    memory(&scene, &["begin-anew"]).expect(2);
    // The key of the log is not made anew either, and its public half stays.
    std::fs::remove_file(scene.path("state-node/record-key.pem")).unwrap();
    assert!(scene.run("1", &[]).expect(4).stderr.contains("is gone"));
    assert!(scene.path("state-node/record-key.pem.pub").exists());
}
