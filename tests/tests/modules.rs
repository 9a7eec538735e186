//! Which module of a crate may import which: only those that stand before it in its crate's list. A circle between modules
//! has no such order, so none can come about unseen. `docs/architecture.md` says what each is for.
//!
//! Read are the lines of the sources themselves, without tests and comments: `crate::name` anywhere, and `super::name` in
//! a file that is a module by itself.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate's modules, the lowest first.
const ORDER: &[(&str, &[&str])] = &[
    (
        "errors",
        &["chain", "terminal", "output", "error", "plural", "files", "trusted", "report", "logs", "program"],
    ),
    (
        "attestations",
        &[
            "through_text",
            "foreign",
            "call",
            "clock",
            "digest",
            "reference",
            "purl",
            "keys",
            "review",
            "policy_release",
            "provenance",
            "incomplete",
            "withdrawal",
            "run",
            "statement",
            "bundle",
            "sigstore",
            "policy",
            "decision",
            "federation",
            "summary",
            "fuzzing",
        ],
    ),
    ("jks", &["fuzzing"]),
    ("signers", &["password", "private", "agent", "generate"]),
    (
        "tlog",
        &[
            "error",
            "merkle",
            "layout",
            "note",
            "checkpoint",
            "cosignature",
            "policy",
            "proof",
            "witness",
            "store",
        ],
    ),
    (
        "images",
        &[
            "error",
            "hashing",
            "platform",
            "descriptor",
            "files",
            "streaming",
            "blob",
            "store",
            "image",
            "layer",
            "cache",
            "index",
            "export",
            "archive",
            "compare",
            "registry",
            "fuzzing",
        ],
    ),
    (
        "sandbox",
        &[
            "error",
            "gate",
            "user",
            "cgroup",
            "defaults",
            "filter",
            "directory",
            "mounts",
            "runtime",
            "owned",
            "process",
            "config",
            "network",
            "overlay",
            "memory",
            "run",
            "host",
        ],
    ),
    (
        "recorder",
        &[
            "block",
            "host_name",
            "addresses",
            "step_id",
            "patterns",
            "store",
            "step",
            "upstream",
            "serve",
            "fuzzing",
        ],
    ),
    ("admission", &["admitted", "memory", "federation", "policy", "evidence"]),
    (
        "builder",
        &[
            "dockerfile",
            "error",
            "progress",
            "workspace",
            "source",
            "project",
            "secrets",
            "packages",
            "plan",
            "bases",
            "parameters",
            "registry",
            "lock",
            "executor",
            "speculation",
            "scheduler",
            "pipeline",
            "review",
            "lookup",
            "provenance",
            "publish",
            "rebuild",
            "confirm",
            "explain",
            "commands",
            "fuzzing",
        ],
    ),
    (
        "runner",
        &[
            "error",
            "caller",
            "egress",
            "config",
            "vantage6",
            "engine",
            "record",
            "revocation",
            "node",
            "service",
            "commands",
        ],
    ),
];

#[test]
fn modules_import_only_what_stands_before_them() {
    let mut wrong = Vec::new();
    for (room, order) in ORDER {
        let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        for file in sources(&root().join(room).join("src")) {
            let Some((module, is_alone)) = module_of(room, &file) else { continue };
            let Some(own) = place.get(module.as_str()) else {
                wrong.push(format!("{room}: {module} stands in no order: add it to tests/tests/modules.rs"));
                continue;
            };
            for other in imports(&fs::read_to_string(&file).unwrap(), is_alone) {
                if place.get(other.as_str()).is_some_and(|other| other > own) {
                    wrong.push(format!(
                        "{room}: {module} imports {other}, which comes later ({})",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_order_names_no_module_that_is_gone() {
    for (room, order) in ORDER {
        let src = root().join(room).join("src");
        let there = |name: &&&str| src.join(format!("{name}.rs")).exists() || src.join(name).is_dir();
        let gone: Vec<_> = order.iter().filter(|name| !there(name)).collect();
        assert!(gone.is_empty(), "{room}: {gone:?}");
    }
}

#[test]
fn what_is_imported_is_read_from_every_form_of_a_path() {
    let text = "use crate::{a::B, c};\nuse crate::d::{E, f};\n// use crate::no;\nfn g() { crate::h::i() }\nuse super::j;\n\
                #[cfg(test)]\nmod tests {\n use crate::tests_only;\n}\n";
    let found = |is_alone| imports(text, is_alone).into_iter().collect::<Vec<_>>();
    assert_eq!(found(false), ["a", "c", "d", "h"]);
    assert_eq!(found(true), ["a", "c", "d", "h", "j"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// The module of the crate that a file belongs to, and whether the file is that whole module's root.
fn module_of(room: &str, file: &Path) -> Option<(String, bool)> {
    let inner = file.strip_prefix(root().join(room).join("src")).unwrap();
    let parts: Vec<&str> = inner.iter().map(|part| part.to_str().unwrap()).collect();
    let is_test = |part: &&str| ["tests", "tests.rs"].contains(part) || part.ends_with("_tests.rs");
    if parts.iter().any(is_test) || ["lib.rs", "main.rs"].contains(&parts[0]) {
        return None;
    }
    let name = parts[0].trim_end_matches(".rs").to_owned();
    Some((name, parts.len() == 1 || parts[1..] == ["mod.rs"]))
}

/// The crate's modules that a text names.
fn imports(text: &str, is_alone: bool) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut found = BTreeSet::new();
    let prefixes: &[&str] = if is_alone { &["crate::", "super::"] } else { &["crate::"] };
    for prefix in prefixes {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|it| it.is_alphanumeric() || it == '_' || it == ':') {
                continue;
            }
            found.extend(names(&code[at + prefix.len()..]));
        }
    }
    found
}

/// The first name of a path, or of each path in braces.
fn names(rest: &str) -> Vec<String> {
    let name =
        |text: &str| text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect::<String>();
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let mut depth = 0_usize;
    let mut all = Vec::new();
    let mut next = true;
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => next = true,
            it if next && depth == 0 && !it.is_whitespace() => {
                all.push(name(&list[at..]));
                next = false;
            }
            _ => {}
        }
    }
    all
}
