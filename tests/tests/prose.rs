//! The documentation as text: lines that fit a screen, and links that lead somewhere.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The widest line of prose, in characters.
const WIDTH: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Our own Markdown files; those of cases in `tests/dockerfiles` are input.
fn documents() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output();
    let listed = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let names = match &listed {
        Some(bytes) => String::from_utf8_lossy(bytes).lines().map(PathBuf::from).collect(),
        // A tree without its repository, such as an unpacked archive.
        None => {
            [".", "docs", "docs/predicates"].iter().flat_map(|folder| markdown(Path::new(folder))).collect()
        }
    };
    let is_input = |path: &PathBuf| path.starts_with("tests/dockerfiles") && path.components().count() > 3;
    let names: Vec<PathBuf> = names;
    let all: Vec<PathBuf> = names.into_iter().filter(|path| !is_input(path)).collect();
    assert!(all.len() >= 10, "only {} documents found", all.len());
    all
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| folder.join(entry.unwrap().file_name()));
    names.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect()
}

/// The lines that are neither code nor of a table, with their numbers from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut found = Vec::new();
    let mut after_blank = true;
    for (at, line) in text.lines().enumerate() {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        // Indented code follows an empty line; what is indented in a list follows its text.
        let is_code = in_code || is_fence || (line.starts_with("    ") && after_blank);
        if !is_code {
            after_blank = line.trim().is_empty();
        }
        if !is_code && !line.starts_with('|') {
            found.push((at + 1, line));
        }
    }
    found
}

/// The targets of a text's links.
fn links(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1);
    ends.filter_map(|rest| rest.split_once(')').map(|(target, _)| target.trim())).collect()
}

/// The anchors that a document's headings have, as hosting sites make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text)
        .into_iter()
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| line.trim_start_matches('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn no_line_of_prose_is_too_long() {
    let mut long = Vec::new();
    for path in documents() {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let lines = prose(&text).into_iter().filter(|(_, line)| line.chars().count() > WIDTH);
        // A single word, such as an address, cannot be broken.
        let lines = lines.filter(|(_, line)| line.trim().contains(' '));
        long.extend(
            lines.map(|(number, line)| {
                format!("{}:{number}: {} columns", path.display(), line.chars().count())
            }),
        );
    }
    assert!(long.is_empty(), "{WIDTH} columns are the most:\n{}", long.join("\n"));
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in documents() {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) =
                link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = match file {
                "" => root().join(&path),
                file => root().join(&path).parent().unwrap().join(file),
            };
            let leads = match anchor {
                None => target.exists(),
                Some(anchor) => std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).iter().any(|it| it == anchor)),
            };
            if !leads {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn code_and_tables_are_no_prose() {
    let text = "a\n\n    code\n\n| t |\n```\nfenced\n```\n- b\n    more of b\n";
    let lines: Vec<&str> =
        prose(text).into_iter().map(|(_, line)| line).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["a", "- b", "    more of b"]);
    assert_eq!(links("a [b](c.md#d) and `e` [f](g)"), ["c.md#d", "g"]);
    assert_eq!(anchors("# What, a `heading`\n"), ["what-a-heading"]);
}

/// The sources of every crate, in one text.
fn sources() -> String {
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().filter_map(|name| std::fs::read_to_string(root().join(name)).ok()).collect()
}

#[test]
fn every_test_that_the_table_of_attacks_names_is_one() {
    let table = std::fs::read_to_string(root().join("docs/attacks.md")).unwrap();
    let sources = sources();
    let mut count = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let tests: Vec<&str> = row.rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for name in tests {
            assert!(sources.contains(&format!("fn {name}(")), "`{name}` is no test");
            count += 1;
        }
    }
    assert!(count > 50, "{count} tests");
}
