//! The program's edge: how it ends when nobody reads on, and which files it does not take.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

fn builder(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-builder"));
    command.args(arguments).env_remove("COUNTERSIGN_STATE").env_remove("COUNTERSIGN_PROGRESS");
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_closed_pipe_ends_it_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = folder.path().join("Dockerfile");
    std::fs::write(&dockerfile, "FROM debian:bookworm\nRUN apt-get update\n").unwrap();
    let dockerfile = dockerfile.to_str().unwrap();
    for arguments in [
        &["explain-dockerfile", dockerfile][..],
        &["--json", "explain-dockerfile", dockerfile],
        &["completions", "bash"],
        &["build", "--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = builder(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {}", text(&output));
        assert_eq!(text(&output), "", "{arguments:?}");
        let read = builder(arguments).output().unwrap();
        assert_eq!(read.status.code(), Some(0), "{arguments:?}: {}", text(&read));
    }
}

#[test]
fn a_state_directory_that_others_may_write_to_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let list = || builder(&["--state-dir", state.to_str().unwrap(), "materials", "list"]).output().unwrap();
    assert_eq!(list().status.code(), Some(0), "{}", text(&list()));
    mode(&state, 0o777);
    let refused = list();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    for word in ["others may write to the state directory", "mode 0777", "hint: `chmod go-w"] {
        assert!(text(&refused).contains(word), "{word}: {}", text(&refused));
    }
}

#[test]
fn keys_that_others_may_change_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("password"), "correct horse\n").unwrap();
    let generate = |name: &str, password: &str| {
        builder(&["keygen", "--out", &at(name), "--password-file", &at(password)]).output().unwrap()
    };
    let made = generate("key", "password");
    assert_eq!(made.status.code(), Some(0), "{}", text(&made));
    let refused = |output: &Output, words: &[&str]| {
        assert_eq!(output.status.code(), Some(1), "{}", text(output));
        assert!(words.iter().all(|word| text(output).contains(word)), "{}", text(output));
    };
    symlink(at("password"), at("link")).unwrap();
    refused(&generate("other", "link"), &["is a symbolic link"]);
    mode(Path::new(&at("password")), 0o666);
    refused(&generate("other", "password"), &["mode 0666", "hint: `chmod go-w"]);
    assert!(!Path::new(&at("other")).exists());
    std::fs::write(at("review"), "{}").unwrap();
    let verify = || builder(&["review", "verify", &at("review"), "--key", &at("key.pub")]).output().unwrap();
    assert_ne!(verify().status.code(), Some(1), "{}", text(&verify()));
    mode(Path::new(&at("key.pub")), 0o664);
    refused(&verify(), &["its group may write to", "mode 0664"]);
}
