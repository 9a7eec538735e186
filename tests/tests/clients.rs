//! Ours read by the npm client of Sigstore, with its packages as published.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use testing::{Outcome, Repository, builder, run};

/// The packages, as `scripts/clients` installs them. None, recorded as a skip, where they are not.
#[track_caller]
fn packages() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/npm-sigstore");
    let is_there = folder.join("complete").exists();
    if !is_there {
        testing::skip("needs the npm packages of sigstore; `make test` installs them where npm is");
    }
    is_there.then_some(folder)
}

fn verify(packages: &Path, bundle: &str, key: &str) -> Outcome {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/verify.mjs");
    let clients = format!("CLIENTS={}", packages.display());
    run("env", [&clients, "node", program.to_str().unwrap(), bundle, key])
}

#[test]
fn the_npm_client_verifies_what_is_signed_here() {
    if !testing::has_programs(&["node", "git"]) {
        return;
    }
    let Some(packages) = packages() else { return };
    let (source, folder) = (Repository::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    source.write("file", "text");
    let commit = source.commit("one");
    for kind in ["p256", "ed25519"] {
        let (key, bundle, other) =
            (path(kind), path(&format!("{kind}.json")), path(&format!("{kind}-other")));
        for key in [&key, &other] {
            builder(["keygen", "--no-password", "--algorithm", kind, "--out", key]).expect(0);
        }
        let repository = source.path().display().to_string();
        let sign =
            ["--state-dir", &path("state"), "review", "sign", "--repo", &repository, "--commit", &commit];
        let who = ["--key", &key, "--name", "x", "--email", "x@reviewers.example", "--out", &bundle];
        builder([&sign[..], &who].concat()).expect(0);
        verify(&packages, &bundle, &format!("{key}.pub")).expect(0);
        let refused = verify(&packages, &bundle, &format!("{other}.pub")).expect(1);
        assert!(refused.stderr.contains("signature verification failed"), "{}", refused.stderr);
    }
}
