//! What `--help` says: each command's text stands in `tests/snapshots/help`, so that a change of words is seen in a diff.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testing::program;

/// The width of the texts, in columns.
const WIDTH: &str = "100";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots/help")
}

/// What `program COMMAND… --help` prints where no variable of the environment changes it.
fn help(name: &str, command: &[String]) -> String {
    let output = Command::new(program(name))
        .args(command)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", WIDTH)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} {command:?} --help: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // An editor that removes blanks at the ends of lines must not break a snapshot.
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

/// The commands that a help text lists.
fn listed(text: &str) -> Vec<String> {
    let list =
        text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The text of each command of both programs, found by following the lists, so that a new command cannot be forgotten.
fn texts() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in ["countersign-builder", "countersign-runner"] {
        let mut open = vec![Vec::new()];
        while let Some(command) = open.pop() {
            let text = help(name, &command);
            open.extend(listed(&text).into_iter().map(|more| [command.as_slice(), &[more]].concat()));
            let key =
                std::iter::once(name).chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
            found.insert(key, text);
        }
    }
    found
}

/// The options and arguments of a help text that nothing is said about.
fn unexplained(text: &str) -> Vec<&str> {
    // Examples are command lines, and may begin with an option.
    let lines: Vec<&str> = text.lines().take_while(|line| *line != "Examples:").collect();
    let is_entry = |line: &str| {
        let start = line.trim_start();
        line.starts_with("  ") && line.len() - start.len() <= 6 && start.starts_with(['-', '<', '['])
    };
    let entries = lines.iter().enumerate().filter(|(_, line)| is_entry(line));
    let silent = entries.filter(|(at, line)| {
        let beside = line.trim_start().contains("  ");
        let below = lines.get(at + 1).is_some_and(|next| next.starts_with("          "));
        !beside && !below
    });
    silent.map(|(_, line)| line.trim()).collect()
}

#[test]
fn help_says_what_its_snapshots_say() {
    let texts = texts();
    let path = |command: &str| folder().join(format!("{}.txt", command.replace(' ', "_")));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let _ = std::fs::remove_dir_all(folder());
        std::fs::create_dir_all(folder()).unwrap();
        texts.iter().for_each(|(command, text)| std::fs::write(path(command), text).unwrap());
    }
    const AGAIN: &str =
        "if that is meant: UPDATE_SNAPSHOTS=1 cargo test -p tests --test help, then review the diff";
    for (command, text) in &texts {
        let kept = std::fs::read_to_string(path(command)).unwrap_or_default();
        assert!(
            kept == *text,
            "`{command} --help` is not as kept\n--- kept\n{kept}\n--- now\n{text}\n{AGAIN}"
        );
    }
    let kept = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let known: Vec<PathBuf> = texts.keys().map(|command| path(command)).collect();
    let gone: Vec<PathBuf> = kept.filter(|file| !known.contains(file)).collect();
    assert!(gone.is_empty(), "no command has these texts any more: {gone:?}; {AGAIN}");
}

#[test]
fn every_option_and_argument_is_explained() {
    let texts = texts();
    assert!(texts.len() >= 25, "the walk found {} commands only", texts.len());
    for (command, text) in &texts {
        assert_eq!(unexplained(text), Vec::<&str>::new(), "`{command} --help`");
    }
}

#[test]
fn silence_about_an_option_is_seen() {
    let text =
        "Options:\n      --said <X>\n          Something\n\n      --silent <X>\n\n  -h, --help  Print help\n";
    assert_eq!(unexplained(text), ["--silent <X>"]);
    assert_eq!(
        listed("Commands:\n  one   First\n         more\n  two   Second\n  help  This\n\nOptions:\n  x  y\n"),
        ["one", "two"]
    );
}
