//! `keygen` and `review` as programs, with git, openssl and ssh-keygen beside them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// The program in a folder of its own, with nothing of this machine's environment but the path.
fn builder(dir: &Path, password: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-builder"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", dir);
    if let Some(password) = password {
        command.env("COUNTERSIGN_KEY_PASSWORD", password);
    }
    let stdin = std::process::Stdio::null();
    command.args(["--state-dir", "state"]).args(arguments).current_dir(dir).stdin(stdin).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn sh(dir: &Path, command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn repository(dir: &Path) -> String {
    sh(
        dir,
        "git init -q repo && cd repo && echo 'FROM scratch' > Dockerfile && git add -A &&
         git -c user.name=Carol -c user.email=carol@example.org -c commit.gpgsign=false commit -q -m one &&
         git rev-parse HEAD",
    )
}

#[test]
fn a_review_is_shown_signed_and_checked() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let commit = repository(dir);
    let shown = builder(dir, None, &["review", "show", "--repo", "repo", "--commit", &commit]);
    let text = String::from_utf8(shown.stdout.clone()).unwrap();
    assert_eq!(code(&shown), 0);
    assert!(text.contains(&commit) && text.contains("author      Carol <carol@example.org>"), "{text}");
    assert!(text.contains("    1 | FROM scratch"), "{text}");
    let shown = builder(dir, None, &["--json", "review", "show", "--repo", "repo", "--commit", &commit]);
    let value: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(value["files"][0]["path"], "Dockerfile");

    sh(dir, "ssh-keygen -q -t ed25519 -N 'correct horse' -f alice");
    let what =
        ["review", "sign", "--repo", "repo", "--commit", &commit, "--key", "alice", "--out", "alice.json"];
    let who = ["--name", "Alice", "--email", "alice@example.org"];
    let sign = [&what[..], &who].concat();
    for (password, expected) in
        [(None, 7), (Some("wrong"), 7), (Some("correct horse"), 0), (Some("correct horse"), 2)]
    {
        let signed = builder(dir, password, &sign);
        assert_eq!(code(&signed), expected, "{password:?}: {signed:?}");
        assert_eq!(dir.join("alice.json").exists(), matches!(expected, 0 | 2));
    }
    assert_eq!(code(&builder(dir, None, &["review", "verify", "alice.json", "--key", "alice.pub"])), 0);
    sh(
        dir,
        "ssh-keygen -q -t ed25519 -N '' -f bob; cp alice.json changed.json; sed -i 's/\"payload\":\"e/\"payload\":\"f/' changed.json",
    );
    assert_eq!(code(&builder(dir, None, &["review", "verify", "alice.json", "--key", "bob.pub"])), 1);
    assert_ne!(code(&builder(dir, None, &["review", "verify", "changed.json", "--key", "alice.pub"])), 0);
    assert_eq!(code(&builder(dir, None, &["review", "verify", "missing.json", "--key", "bob.pub"])), 4);
    assert_eq!(code(&builder(dir, None, &["review", "verify", "bob.pub", "--key", "bob.pub"])), 3);
}

/// The envelope's signature is checked by openssl over bytes put together by Python.
#[test]
fn the_envelope_is_what_other_programs_expect() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let commit = repository(dir);
    for (name, kind) in [("a", "ed25519"), ("b", "p256")] {
        assert_eq!(code(&builder(dir, Some("pw"), &["keygen", "--out", name, "--algorithm", kind])), 0);
        let out = format!("{name}.json");
        let what = ["review", "sign", "--repo", "repo", "--commit", &commit, "--key", name, "--out", &out];
        let signed =
            builder(dir, Some("pw"), &[&what[..], &["--name", "A", "--email", "a@example.org"]].concat());
        assert_eq!(code(&signed), 0, "{signed:?}");
        let take_apart = format!(
            "import json, base64\n\
             e = json.load(open('{out}'))['dsseEnvelope']\n\
             p, t = base64.b64decode(e['payload']), e['payloadType'].encode()\n\
             open('pae', 'wb').write(b'DSSEv1 %d %s %d %s' % (len(t), t, len(p), p))\n\
             assert len(e['signatures']) == 1\n\
             open('sig', 'wb').write(base64.b64decode(e['signatures'][0]['sig']))\n"
        );
        std::fs::write(dir.join("apart.py"), take_apart).unwrap();
        let digest = if kind == "p256" { "-digest sha256" } else { "" };
        sh(dir, "python3 apart.py");
        sh(
            dir,
            &format!("openssl pkeyutl -verify -rawin {digest} -pubin -inkey {name}.pub -in pae -sigfile sig"),
        );
    }
}

#[test]
fn keygen_never_overwrites_and_never_goes_without_a_password_unasked() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    assert_eq!(code(&builder(dir, None, &["keygen", "--out", "k"])), 7);
    assert!(!dir.join("k").exists() && !dir.join("k.pub").exists());
    assert_eq!(code(&builder(dir, None, &["keygen", "--out", "k", "--no-password"])), 0);
    let before = std::fs::read(dir.join("k")).unwrap();
    assert_eq!(code(&builder(dir, None, &["keygen", "--out", "k", "--no-password"])), 7);
    assert_eq!(std::fs::read(dir.join("k")).unwrap(), before);
    assert_eq!(code(&builder(dir, None, &["keygen", "--out", "no/such/folder/k", "--no-password"])), 4);
    std::fs::write(dir.join("pw"), "secret\n").unwrap();
    assert_eq!(code(&builder(dir, None, &["keygen", "--out", "l", "--password-file", "pw"])), 0);
    sh(dir, "openssl pkey -in l -passin pass:secret -noout");
}
