//! What `git`, which runs outside of any sandbox, sees of the environment of the builder that starts it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;

use testing::{Bench, need, program, run};

/// Notes its environment, and does what git does. What its credential helpers say is noted too.
const GIT: &str = r#"#!/bin/sh
env >>"SEEN"
printf 'protocol=https\nhost=git.example\n\n' | "REAL" credential fill >>"SEEN"
exec "REAL" "$@"
"#;

#[test]
fn git_sees_no_secret_and_people_s_credential_helpers_work() {
    need!("git");
    let bench = Bench::new();
    let commit = bench.dockerfile("FROM base:1\nENV a=b\n");
    let real = run("sh", ["-c", "command -v git"]).expect(0).stdout.trim().to_owned();
    std::fs::create_dir(bench.path("bin")).unwrap();
    std::fs::create_dir(bench.path("home")).unwrap();
    let script = GIT.replace("SEEN", &bench.text("seen")).replace("REAL", &real);
    std::fs::write(bench.path("bin/git"), script).unwrap();
    std::fs::set_permissions(bench.path("bin/git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let helper = "[credential]\n\thelper = \"!f() { echo username=u; echo password=of-$FORGE_TOKEN; }; f\"\n";
    std::fs::write(bench.path("home/.gitconfig"), helper).unwrap();

    let path = format!("PATH={}:{}", bench.text("bin"), std::env::var("PATH").unwrap());
    let home = format!("HOME={}", bench.text("home"));
    let environment = [
        path.as_str(),
        home.as_str(),
        "COUNTERSIGN_KEY_PASSWORD=the-password",
        "STEP_TOKEN=the-secret-of-a-step",
        "SSH_AUTH_SOCK=/run/an-agent",
        "FORGE_TOKEN=the-forge",
        "COUNTERSIGN_GIT_ENV=FORGE_TOKEN",
        "GIT_DIR=/nowhere",
    ];
    let source = bench.source.path().display().to_string();
    let base = format!("base:1={}", bench.base().display());
    let state = bench.text("state");
    let builder = program("countersign-builder").display().to_string();
    let own = ["--state-dir", &state, "build", "--repo", &source, "--commit", &commit, "--base", &base];
    let secret = ["--secret", "id=token,env=STEP_TOKEN"];
    run("env", environment.iter().copied().chain([builder.as_str()]).chain(own).chain(secret)).expect(0);

    let seen = std::fs::read_to_string(bench.path("seen")).unwrap();
    for one in ["SSH_AUTH_SOCK=/run/an-agent", "LC_ALL=C", "password=of-the-forge", home.as_str()] {
        assert!(seen.lines().any(|line| line == one), "{one}: {seen}");
    }
    for one in ["the-password", "the-secret-of-a-step", "/nowhere", "COUNTERSIGN_"] {
        assert!(!seen.contains(one), "{one}: {seen}");
    }
}
