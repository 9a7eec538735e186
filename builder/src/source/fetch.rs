//! Fetching, by the `git` program: people's credentials work, and no second TLS stack is linked.
//!
//! Hooks, prompts, transport helpers, submodule recursion and maintenance are off, and every object is checked.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use attestations::digest::Commit;

use super::{Location, SourceError};

/// One writer at a time; released when the file is dropped.
pub(super) fn lock(cache: &Path) -> io::Result<File> {
    let file =
        File::options().create(true).truncate(false).write(true).open(cache.join("countersign.lock"))?;
    file.lock()?;
    Ok(file)
}

/// Brings `commit` into `cache`: by its id first, which some servers refuse, then by way of every reference.
pub(super) fn commit(
    cache: &Path,
    location: &Location,
    commit: &Commit,
    present: impl Fn() -> bool,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Cache { path: cache.to_path_buf(), source };
    let _lock = lock(cache).map_err(failed)?;
    let kept = format!("+{commit}:refs/countersign/{commit}");
    let by_id = git_fetch(cache, location, &kept)?;
    if let Err(detail) = &by_id
        && malformed(detail)
    {
        return Err(SourceError::Malformed { location: location.to_string(), detail: last_lines(detail) });
    }
    if by_id.is_ok() && present() {
        return Ok(());
    }
    match git_fetch(cache, location, "+refs/*:refs/fetched/*")? {
        Ok(()) if present() => Ok(()),
        Ok(()) => Err(SourceError::UnknownCommit {
            commit: commit.to_string(),
            location: location.to_string(),
            detail: format!("git: {}", last_lines(&by_id.err().unwrap_or_default())),
        }),
        Err(detail) if malformed(&detail) => {
            Err(SourceError::Malformed { location: location.to_string(), detail: last_lines(&detail) })
        }
        Err(detail) => {
            Err(SourceError::Unreachable { location: location.to_string(), detail: last_lines(&detail) })
        }
    }
}

/// What every fetch is told, whatever the configuration of the machine says.
const HARDENED: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "protocol.git.allow=never",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
];
const FETCH: [&str; 6] =
    ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force"];

/// `git fetch` into a repository, hardened; `more` configuration comes on top. What is fetched is to be added.
pub(super) fn command(repository: &Path, more: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository);
    for setting in HARDENED.iter().chain(more) {
        command.args(["-c", setting]);
    }
    command
        .args(FETCH)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env("SSH_ASKPASS", "true")
        .env("LC_ALL", "C");
    command
}

/// The outer error is ours, the inner text is what git said when it refused.
fn git_fetch(cache: &Path, location: &Location, refspec: &str) -> Result<Result<(), String>, SourceError> {
    let output = command(cache, &[])
        .arg("--")
        .arg(location.fetch_argument())
        .arg(refspec)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_OBJECT_DIRECTORY")
        .env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES")
        .stdin(Stdio::null())
        .output()
        .map_err(SourceError::NoGit)?;
    Ok(if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

/// git's own checks say `error: object <id>: <check>: …` and `fatal: fsck error in packed object`.
pub(super) fn malformed(detail: &str) -> bool {
    detail.contains("fsck error") || detail.lines().any(|line| line.starts_with("error: object "))
}

pub(super) fn last_lines(detail: &str) -> String {
    let lines: Vec<&str> = detail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}
