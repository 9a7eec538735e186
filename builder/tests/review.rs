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

/// A key, and the arguments with which its holder signs.
fn reviewer(dir: &Path, who: &str) -> Vec<String> {
    assert_eq!(code(&builder(dir, None, &["keygen", "--out", who, "--no-password"])), 0);
    let email = format!("{who}@example.org");
    ["review", "sign", "--repo", "repo", "--key", who, "--name", who, "--email", &email]
        .map(str::to_owned)
        .into()
}

fn with<'a>(who: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    who.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn commit(dir: &Path, file: &str, content: &str) -> String {
    std::fs::write(dir.join("repo").join(file), content).unwrap();
    sh(
        dir,
        "cd repo && git add -A &&
         git -c user.name=Carol -c user.email=carol@example.org -c commit.gpgsign=false commit -q -m more &&
         git rev-parse HEAD",
    )
}

#[test]
fn a_request_is_shown_and_signed_for_one_of_its_roles() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let commit = repository(dir);
    let asked = ["review", "request", "--repo", "repo", "--commit", &commit, "--out", "asked.json"];
    let roles = ["--role", "code", "--role", "privacy", "--build-arg", "A=1"];
    assert_eq!(code(&builder(dir, None, &[&asked[..], &roles].concat())), 0);
    let again = builder(dir, None, &[&asked[..], &roles].concat());
    assert_eq!(code(&again), 2, "a request is not overwritten");
    let shown = builder(dir, None, &["review", "show", "--repo", "repo", "--request", "asked.json"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("for         code, privacy\n") && text.contains("A=1  [NOT FROM THE COMMIT]"),
        "{text}"
    );
    assert!(text.contains("    1 | FROM scratch"), "{text}");

    let alice = reviewer(dir, "alice");
    let sign =
        |more: &[&str]| builder(dir, None, &with(&alice, &[&["--request", "asked.json"], more].concat()));
    assert_eq!(code(&sign(&["--out", "alice.json"])), 2, "which of the two roles?");
    assert_eq!(code(&sign(&["--role", "ethics", "--out", "alice.json"])), 2);
    assert_eq!(code(&sign(&["--role", "privacy", "--expires", "2020-01-01", "--out", "alice.json"])), 2);
    let signed = sign(&["--role", "privacy", "--expires", "2199-01-01", "--out", "alice.json"]);
    assert_eq!(code(&signed), 0, "{signed:?}");
    let verified = builder(dir, None, &["review", "verify", "alice.json", "--key", "alice.pub"]);
    let text = String::from_utf8(verified.stdout).unwrap();
    for line in [
        "role      privacy",
        "expires   2199-01-01T00:00:00Z",
        "built     with Dockerfile in .",
        "build-arg A=1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    // A request that says otherwise than the repository.
    sh(dir, "sed -i 's/\"path\": \"Dockerfile\"/\"path\": \"README\"/' asked.json");
    let refused = sign(&["--role", "code", "--out", "other.json"]);
    assert_eq!(code(&refused), 1, "{refused:?}");
    assert!(!dir.join("other.json").exists());
}

#[test]
fn what_is_unreviewed_is_shown_by_the_reviews_of_a_folder() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let first = repository(dir);
    let second = commit(dir, "a.py", "print(1)\n");
    let third = commit(dir, "b.py", "print(2)\n");
    let alice = reviewer(dir, "alice");
    std::fs::create_dir(dir.join("reviews")).unwrap();
    std::fs::write(dir.join("reviews/other.json"), "{}").unwrap();
    let sign = |more: &[&str]| assert_eq!(code(&builder(dir, None, &with(&alice, more))), 0);
    let diff = |more: &[&str]| {
        let what = ["review", "diff", "--repo", "repo", "--commit", &third];
        let output = builder(dir, None, &[&what[..], more].concat());
        (code(&output), String::from_utf8(output.stdout).unwrap())
    };
    let at_hand = ["--reviews", "reviews", "--reviewer-keys", "alice.pub"];
    let (exit, text) = diff(&at_hand);
    assert!(exit == 1 && text.contains("everything: no commit") && text.contains("print(1)"), "{text}");
    sign(&["--commit", &first, "--out", "reviews/1.json"]);
    sign(&["--commit", &second, "--since", &first, "--out", "reviews/2.json"]);
    let (exit, text) = diff(&at_hand);
    assert!(exit == 1 && text.contains(&format!("everything since {second}, approved by alice@")), "{text}");
    assert!(text.contains("+print(2)") && !text.contains("print(1)"), "{text}");
    let (exit, text) = diff(&["--since", &first]);
    assert!(exit == 1 && text.contains("+print(2)") && text.contains("+print(1)"), "{text}");
    assert_eq!(diff(&[&at_hand[..], &["--threshold", "2", "--list"]].concat()).0, 1);
    assert_eq!(diff(&[]).0, 2, "nothing is at hand");
    sign(&["--commit", &third, "--since", &second, "--out", "reviews/3.json"]);
    let (exit, text) = diff(&at_hand);
    assert!(exit == 0 && text.contains("nothing is unreviewed"), "{text}");
}

#[test]
fn a_lock_is_shown_and_named_in_the_review() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let first = repository(dir);
    let digest = |byte: &str| format!("sha256:{}", byte.repeat(64));
    let lock = |version: &str, file: &str| {
        format!(
            "version = 2\n[bases]\n[packages]\n\"pkg:pypi/a@{version}\" = [\"{0}\"]\n\
             [fetched]\n\"pkg:pypi/tried@1\" = [\"{0}\"]\n",
            digest(file)
        )
    };
    std::fs::write(dir.join("own.lock"), lock("1", "a")).unwrap();
    let show = |id: &str, more: &[&str]| {
        let what = ["--json", "review", "show", "--repo", "repo", "--commit", id];
        let output = builder(dir, None, &[&what[..], more].concat());
        (code(&output), serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap())
    };
    assert_eq!(show(&first, &["--lock"]).0, 4, "the commit has none");
    let (_, given) = show(&first, &["--lock", "own.lock"]);
    assert_eq!(given["lock"]["entries"][0], format!("pkg:pypi/a@1 {}", digest("a")));
    assert_eq!(given["lock"]["entries"][1], format!("fetched pkg:pypi/tried@1 {}", digest("a")));
    let second = commit(dir, "Dockerfile.lock", &lock("1", "a"));
    let third = commit(dir, "Dockerfile.lock", &format!("# anew\n{}", lock("2", "b")));
    let (_, of_commit) = show(&second, &["--lock"]);
    assert_eq!(of_commit["lock"]["digest"], given["lock"]["digest"], "it is the content that counts");
    let (_, changed) = show(&third, &["--since", &second, "--lock"]);
    assert_eq!(changed["lock"]["drift"][0], "pypi/a 1 → 2");

    let alice = reviewer(dir, "alice");
    let signed = with(&alice, &["--commit", &third, "--lock", "--out", "alice.json"]);
    assert_eq!(code(&builder(dir, None, &signed)), 0);
    let verified = builder(dir, None, &["--json", "review", "verify", "alice.json", "--key", "alice.pub"]);
    let value: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(value["review"]["lock"], changed["lock"]["digest"]);
}

#[test]
fn a_build_asks_for_reviews_of_each_role_once() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let commit = repository(dir);
    let alice = reviewer(dir, "alice");
    let signed = with(&alice, &["--commit", &commit, "--role", "privacy", "--out", "alice.json"]);
    assert_eq!(code(&builder(dir, None, &signed)), 0);
    let build = |more: &[&str]| {
        let what = ["build", "--repo", "repo", "--commit", &commit, "--reviewer-keys", "alice.pub"];
        let output = builder(dir, None, &[&what[..], &["--reviews", "alice.json"], more].concat());
        (code(&output), String::from_utf8(output.stderr).unwrap())
    };
    let (exit, told) = build(&["--require-reviews", "1", "--require-reviews", "code=2"]);
    assert!(exit == 2 && told.contains("twice for the role code"), "{told}");
    assert_eq!(build(&["--require-reviews", "Code=2"]).0, 2);
    let (exit, told) = build(&["--require-reviews", "privacy=1", "--require-reviews", "1"]);
    assert!(exit == 1 && told.contains("has 0 of the 1 review asked for"), "{told}");
    let (exit, told) = build(&["--require-reviews", "privacy=2"]);
    assert!(exit == 1 && told.contains("has 1 of the 2 reviews asked for, in the role privacy"), "{told}");
}

/// `script` gives the program a terminal; the pager is a program that marks what it got.
#[test]
fn a_pager_is_used_on_a_terminal_alone() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let commit = repository(dir);
    let program = env!("CARGO_BIN_EXE_countersign-builder");
    let show = format!("'{program}' --state-dir state review show --repo repo --commit {commit}");
    let in_terminal = sh(
        dir,
        &format!("PAGER='sed s/^/PAGED/' script -qec \"{show}\" /dev/null < /dev/null | tr -d '\\r'"),
    );
    assert!(in_terminal.lines().all(|line| line.starts_with("PAGED")), "{in_terminal}");
    assert!(in_terminal.contains("PAGED    1 | FROM scratch"), "{in_terminal}");
    let piped = sh(dir, &format!("PAGER='sed s/^/PAGED/' {show} | cat"));
    assert!(piped.contains("    1 | FROM scratch") && !piped.contains("PAGED"), "{piped}");
}
