//! pip, uv and the other installers of Python.

use super::super::hazards::*;
use super::Judge;
use super::calls::Call;

/// Options of pip and uv with a value.
const VALUED: [&str; 27] = [
    "-r",
    "--requirement",
    "--requirements",
    "-c",
    "--constraint",
    "--constraints",
    "-e",
    "--editable",
    "-i",
    "--index-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "-t",
    "--target",
    "--prefix",
    "--root",
    "--platform",
    "--python-version",
    "--python",
    "-p",
    "--cache-dir",
    "--timeout",
    "--retries",
    "--trusted-host",
    "--progress-bar",
    "--index",
];

/// What a requirement says of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requirement {
    /// One version, or a file that is there.
    Pinned,
    /// Any that fits.
    Open,
    /// A folder with a project.
    Project,
    /// A commit of a repository that is not named by its id.
    Git,
    /// A file of a server without its digest.
    Url,
}

/// Whether it is about one of these programs.
pub(super) fn judge(judge: &mut Judge<'_>, call: &Call<'_>) -> bool {
    let verb = call.verb();
    match call.program.as_str() {
        "pip" if matches!(verb, "install" | "download" | "wheel") => install(judge, call),
        "uv" => uv(judge, call),
        "pipx" if verb == "install" => install(judge, call),
        "uvx" => install_tool(judge, call),
        "pip-sync" => {
            let files = call.operands(&VALUED);
            let files = if files.is_empty() { vec!["requirements.txt"] } else { files };
            files.iter().for_each(|file| requirements(judge, call, file));
        }
        "pip-compile" | "easy_install" => judge.add(&UNPINNED_PIP, call),
        "spacy" if verb == "download" => judge.add(&UNPINNED_PIP, call),
        "python" if call.args.first().is_some_and(|arg| arg.ends_with("setup.py")) => {
            let is_install = call.args.iter().any(|arg| matches!(arg.as_str(), "install" | "develop"));
            if is_install && !call.has("--no-deps") {
                judge.add(&UNPINNED_PROJECT, call);
            }
        }
        "build" | "flit" if matches!(verb, "" | "install" | ".") => judge.add(&UNPINNED_PROJECT, call),
        "poetry" => match verb {
            "add" | "update" | "lock" | "self" => judge.add(&UNLOCKED, call),
            "install" | "sync" if judge.lacks("poetry.lock") => judge.add(&UNLOCKED, call),
            _ => {}
        },
        "pipenv" => {
            let is_locked = call.has("--deploy") || call.has("--ignore-pipfile");
            if matches!(verb, "update" | "lock") || verb == "install" && !is_locked {
                judge.add(&UNLOCKED, call);
            }
        }
        "pdm" => match verb {
            "add" | "update" | "lock" => judge.add(&UNLOCKED, call),
            "install" if !call.has("--frozen-lockfile") && !call.has("--check") => judge.add(&UNLOCKED, call),
            _ => {}
        },
        "hatch" if verb == "env" => judge.add(&UNLOCKED, call),
        _ => return false,
    }
    true
}

fn uv(judge: &mut Judge<'_>, call: &Call<'_>) {
    let is_frozen = call.has("--locked")
        || call.has("--frozen")
        || ["UV_LOCKED", "UV_FROZEN"].iter().any(|name| judge.scene.is_set(name));
    match call.verb() {
        "pip" => {
            let inner: Vec<&str> = call.operands(&VALUED);
            match inner.get(1).copied() {
                Some("install") => install(judge, call),
                Some("sync") => inner[2..].iter().for_each(|file| requirements(judge, call, file)),
                Some("compile") => judge.add(&UNPINNED_PIP, call),
                _ => {}
            }
        }
        "sync" | "run" | "export" if !is_frozen => judge.add(&UNLOCKED, call),
        "add" | "lock" | "remove" if !is_frozen => judge.add(&UNLOCKED, call),
        "tool" => install_tool(judge, call),
        _ => {}
    }
}

/// A tool with what it needs: only its own version can be named.
fn install_tool(judge: &mut Judge<'_>, call: &Call<'_>) {
    let words = call.operands(&VALUED);
    let name = words.iter().find(|word| !matches!(**word, "tool" | "install" | "run"));
    let is_pinned = name
        .is_some_and(|name| name.contains("==") || name.split_once('@').is_some_and(|(_, v)| v != "latest"));
    if !is_pinned {
        judge.add(&UNPINNED_PIP, call);
    }
}

fn install(judge: &mut Judge<'_>, call: &Call<'_>) {
    // Only files that are there already, or that their digests name.
    if call.has("--require-hashes") || call.has("--no-index") && call.has("--no-build-isolation") {
        return;
    }
    let has_constraints = !call.values(&["-c", "--constraint", "--constraints"]).is_empty()
        || judge.scene.is_set("PIP_CONSTRAINT");
    for file in call.values(&["-r", "--requirement", "--requirements"]) {
        requirements(judge, call, file);
    }
    let mut found: Vec<Requirement> = call
        .operands(&VALUED)
        .into_iter()
        .skip_while(|word| !is_verb(word))
        .skip(1)
        .map(requirement)
        .collect();
    found.extend(call.values(&["-e", "--editable"]).into_iter().map(|word| match requirement(word) {
        Requirement::Open => Requirement::Project,
        other => other,
    }));
    let has = |kind| found.contains(&kind);
    if has(Requirement::Open) && !has_constraints && !call.has("--no-index") {
        judge.add(&UNPINNED_PIP, call);
    }
    let is_alone = call.has("--no-deps") && call.has("--no-build-isolation");
    if has(Requirement::Project) && !has_constraints && !is_alone {
        judge.add(&UNPINNED_PROJECT, call);
    }
    if has(Requirement::Git) {
        judge.add(&MOVING_GIT, call);
    }
    if has(Requirement::Url) {
        judge.add(&UNCHECKED_DOWNLOAD, call);
    }
}

fn is_verb(word: &str) -> bool {
    matches!(word, "install" | "download" | "wheel")
}

fn requirement(word: &str) -> Requirement {
    let at = word.find("://").map(|at| &word[..at]);
    if word.contains("git+") || word.contains("hg+") {
        let reference = word.rsplit('@').next().unwrap_or_default().split('#').next().unwrap_or_default();
        let is_id = reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
        return if is_id { Requirement::Pinned } else { Requirement::Git };
    }
    if at.is_some_and(|scheme| scheme.ends_with("http") || scheme.ends_with("https")) {
        let is_checked = word.contains("#sha256=") || word.contains("--hash");
        return if is_checked { Requirement::Pinned } else { Requirement::Url };
    }
    let name = word.split('[').next().unwrap_or(word);
    let is_path = name.starts_with(['.', '/', '~']) || name.starts_with("file:") || name.contains('/');
    let is_archive = [".whl", ".tar.gz", ".zip", ".whl*"].iter().any(|ending| word.ends_with(ending));
    if is_archive {
        return Requirement::Pinned;
    }
    if is_path {
        return Requirement::Project;
    }
    // What a variable holds is not known.
    if word.starts_with(['$', '{', '-']) || !word.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Requirement::Pinned;
    }
    match word.split_once("==") {
        Some((_, version)) if !version.contains('*') => Requirement::Pinned,
        _ => Requirement::Open,
    }
}

/// A file of requirements: judged by what is in it, where that is known.
fn requirements(judge: &mut Judge<'_>, call: &Call<'_>, file: &str) {
    let Some(text) = judge.scene.files.read(file) else {
        return judge.add(&REQUIREMENTS, call);
    };
    let text = text.replace("\\\n", " ");
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let first = line.split(" ;").next().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if let Some(other) = ["-r ", "--requirement "].iter().find_map(|option| line.strip_prefix(option)) {
            if judge.scene.files.read(other.trim()).is_none() {
                judge.add_in(&REQUIREMENTS, line, file);
            }
            continue;
        }
        if let Some(project) = ["-e ", "--editable "].iter().find_map(|option| line.strip_prefix(option)) {
            let rule = if requirement(project) == Requirement::Git { &MOVING_GIT } else { &UNPINNED_PROJECT };
            judge.add_in(rule, line, file);
            continue;
        }
        if first.starts_with('-') || line.contains("--hash=") {
            continue;
        }
        // `name @ URL`
        let first = first.split_once(" @ ").map_or(first, |(_, url)| url);
        let first: String = first.split_whitespace().collect();
        match requirement(&first) {
            Requirement::Pinned => {}
            Requirement::Open => return judge.add_in(&UNPINNED_PIP, line, file),
            Requirement::Project => judge.add_in(&UNPINNED_PROJECT, line, file),
            Requirement::Git => judge.add_in(&MOVING_GIT, line, file),
            Requirement::Url => judge.add_in(&UNCHECKED_DOWNLOAD, line, file),
        }
    }
}
