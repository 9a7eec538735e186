//! Fetching with the `git` program, so that the user's credentials work and no second TLS stack is linked.
//!
//! Hooks, prompts, transport helpers, submodule recursion and maintenance are off, and every object is checked. Git
//! runs outside of any sandbox, and starts programs from its configuration. So it gets only those environment
//! variables that fetching needs, and neither the password of a key nor a build's secrets.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use attestations::Foreign;
use attestations::digest::Commit;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use git2::Oid;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::{Location, SourceError};

/// Locks the cache, so that there is one writer at a time. Released when the file is dropped.
pub(super) fn lock(cache: &Path) -> io::Result<File> {
    let file =
        File::options().create(true).truncate(false).write(true).open(cache.join("countersign.lock"))?;
    file.lock()?;
    Ok(file)
}

/// How much of a commit's past is fetched with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Nothing: the commit, its tree and its files.
    Alone,
    /// All commits. Their trees and files are left out where the server can do that.
    History,
}

impl Depth {
    fn arguments(self, location: &Location) -> &'static [&'static str] {
        match self {
            Self::Alone => &["--depth=1"],
            // A folder of this machine allows it to nobody unless it says so, and a partial clone has nothing else.
            Self::History if location.is_local() => {
                &["--filter=tree:0", "--upload-pack=git -c uploadpack.allowFilter=true upload-pack"]
            }
            Self::History => &["--filter=tree:0"],
        }
    }

    /// What git checks of the objects that arrive.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Alone => &[],
            // Old commits are as they are, their trees are never read, and whoever reads a commit checks its id.
            Self::History => &["transfer.fsckObjects=false", "fetch.fsckObjects=false"],
        }
    }
}

/// Fetches `commit` into `cache`: by its id first, which some servers refuse, and then with all references.
pub(super) fn commit(
    cache: &Path,
    location: &Location,
    (commit, depth): (&Commit, Depth),
    present: impl Fn() -> bool,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Cache { path: cache.to_path_buf(), source };
    let _lock = lock(cache).map_err(failed)?;
    let kept = format!("+{commit}:refs/countersign/{commit}");
    let by_id = match git_fetch(cache, location, depth, (depth.arguments(location), &kept))? {
        Ok(()) if present() => return Ok(()),
        Ok(()) => String::new(),
        Err(detail) => detail,
    };
    if malformed(&by_id) || is_final(&by_id) {
        return Err(refused(location, &by_id));
    }
    match git_fetch(cache, location, depth, (&[], "+refs/*:refs/fetched/*"))? {
        Ok(()) if present() => Ok(()),
        Ok(()) => Err(SourceError::UnknownCommit {
            commit: commit.to_string(),
            location: location.to_string(),
            detail: format!("git: {}", said(&by_id)),
        }),
        Err(detail) => Err(refused(location, &detail)),
    }
}

/// The tags of a repository: name, object, and the commit or other object that they lead to.
pub(super) fn tags(at: &Path, location: &Location) -> Result<Vec<(String, Oid, Oid)>, SourceError> {
    let mut command = hardened(at, &[], &["ls-remote", "--quiet", "--tags"]);
    let output = command.arg("--").arg(location.fetch_argument()).stdin(Stdio::null()).output();
    let output = output.map_err(SourceError::NoGit)?;
    if !output.status.success() {
        return Err(refused(location, &String::from_utf8_lossy(&output.stderr)));
    }
    Ok(listed_tags(&String::from_utf8_lossy(&output.stdout)))
}

fn listed_tags(text: &str) -> Vec<(String, Oid, Oid)> {
    let mut found: Vec<(String, Oid, Oid)> = Vec::new();
    for line in text.lines() {
        let Some((id, name)) = line.split_once("\trefs/tags/") else { continue };
        let Ok(id) = Oid::from_str(id) else { continue };
        match (name.strip_suffix("^{}"), found.last_mut()) {
            // What a tag's own object leads to is listed behind it.
            (Some(name), Some((last, _, target))) if last == name => *target = id,
            (Some(_), _) => {}
            (None, _) => found.push((name.to_owned(), id, id)),
        }
    }
    found
}

/// Fetches the objects of tags into `cache`, which has what they lead to.
pub(super) fn objects_of_tags(
    cache: &Path,
    location: &Location,
    names: &[&String],
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Cache { path: cache.to_path_buf(), source };
    let _lock = lock(cache).map_err(failed)?;
    let mut command = command(cache, Depth::History.settings());
    command.arg("--").arg(location.fetch_argument());
    command.args(names.iter().map(|name| format!("+refs/tags/{name}:refs/tags/{name}")));
    let output = command.stdin(Stdio::null()).output().map_err(SourceError::NoGit)?;
    if output.status.success() {
        return Ok(());
    }
    let detail = String::from_utf8_lossy(&output.stderr);
    let gone =
        detail.split_once("couldn't find remote ref refs/tags/").and_then(|(_, rest)| rest.lines().next());
    Err(match gone {
        Some(name) => SourceError::gone_tag(&Foreign::new(name).to_string()),
        None => refused(location, &detail),
    })
}

/// The user's credentials for a server, as git's helpers have them, in the form of the header. None if there are none.
pub(super) fn credential(place: &Path, url: &url::Url) -> Option<HeaderValue> {
    let mut command = hardened(place, &[], &["credential", "fill"]);
    let asked = format!("url={url}\n\n");
    let mut git = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    git.stdin.take()?.write_all(asked.as_bytes()).ok()?;
    let output = git.wait_with_output().ok()?;
    let text = Zeroizing::new(String::from_utf8(output.stdout).ok()?);
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).filter(|it| !it.is_empty());
    let pair = Zeroizing::new(format!("{}:{}", value("username=")?, value("password=")?));
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair.as_bytes()))).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The headers that git's configuration has for a server (`http.extraHeader`), by which CI systems pass credentials.
pub(super) fn extra_headers(place: &Path, url: &url::Url) -> HeaderMap {
    let mut command = hardened(place, &[], &["config", "--get-urlmatch", "http.extraHeader"]);
    let output = command.arg(url.as_str()).stdin(Stdio::null()).output();
    let mut headers = HeaderMap::new();
    let Some(text) = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()) else {
        return headers;
    };
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(mut value)) =
            (HeaderName::try_from(name.trim()), HeaderValue::try_from(value.trim()))
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

/// The error for a fetch that git ended with `detail`.
fn refused(location: &Location, detail: &str) -> SourceError {
    let (location, said) = (location.to_string(), said(detail));
    if malformed(detail) {
        return SourceError::Malformed { location, detail: said };
    }
    match owned_by_another(detail) {
        Some(folder) => SourceError::OfAnotherUser { location, folder, detail: said },
        None => SourceError::Unreachable { location, detail: said },
    }
}

/// Whether asking the same server for all references would fail just so.
fn is_final(detail: &str) -> bool {
    const FINAL: [&str; 4] = [
        "detected dubious ownership",
        "Could not resolve host",
        "does not appear to be a git repository",
        "Authentication failed",
    ];
    FINAL.iter().any(|words| detail.contains(words))
}

/// The folder that git does not read, since it belongs to another user.
fn owned_by_another(detail: &str) -> Option<String> {
    let (_, rest) = detail.split_once("detected dubious ownership in repository at '")?;
    let (folder, _) = rest.split_once('\'')?;
    Some(Foreign::new(folder).to_string())
}

/// Settings of every fetch, whatever the machine's configuration.
const HARDENED: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "protocol.git.allow=never",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    // How old programs wrote times, addresses and modes: nobody can change a history, and nothing of it is harmful.
    "fetch.fsck.badTimezone=warn",
    "fetch.fsck.badDateOverflow=warn",
    "fetch.fsck.zeroPaddedDate=warn",
    "fetch.fsck.zeroPaddedFilemode=warn",
    "fetch.fsck.missingSpaceBeforeDate=warn",
    "fetch.fsck.missingSpaceBeforeEmail=warn",
    "fetch.fsck.missingNameBeforeEmail=warn",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
];
const FETCH: [&str; 6] =
    ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force"];

/// The environment variables that git gets, by the programs that read them.
const PASSED_ON: [&str; 46] = [
    // Programs and the user's configuration; git finds the owner of a local repository by `sudo`'s variable.
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SUDO_UID",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "GIT_EXEC_PATH",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_PARAMETERS",
    // SSH.
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    // Credential helpers: git's own, those of desktops, of GPG and pass, and of code hosting sites.
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "GPG_AGENT_INFO",
    "PASSWORD_STORE_DIR",
    "GCM_CREDENTIAL_STORE",
    "GH_CONFIG_DIR",
    "GLAB_CONFIG_DIR",
    // Proxies, as git's HTTP library spells them.
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "GIT_PROXY_COMMAND",
    "GIT_PROXY_SSL_CERT",
    "GIT_PROXY_SSL_KEY",
    "GIT_PROXY_SSL_CAINFO",
    // Certificates of servers and clients.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_CERT",
    "GIT_SSL_KEY",
    "GIT_SSL_NO_VERIFY",
];
/// Numbered configuration variables, by which CI systems pass credentials.
const PASSED_ON_NUMBERED: [&str; 3] = ["GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"];
/// A list of further variables, separated by commas or spaces, such as one for a custom credential helper.
pub(super) const MORE_VARIABLES: &str = "COUNTERSIGN_GIT_ENV";

/// The part of an environment for git: only the variables above and those in [`MORE_VARIABLES`], and none of the
/// builder's own.
fn passed_on(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let all: Vec<_> = all.collect();
    let more = all.iter().find(|(name, _)| name == MORE_VARIABLES);
    let more = more.map(|(_, names)| names.to_string_lossy().into_owned()).unwrap_or_default();
    let is_passed_on = |name: &OsStr| {
        let Some(name) = name.to_str() else { return false };
        let is_named = more.split([',', ' ']).any(|more| more == name);
        PASSED_ON.contains(&name)
            || PASSED_ON_NUMBERED.iter().any(|start| name.starts_with(start))
            || is_named && !name.starts_with("COUNTERSIGN_")
    };
    all.into_iter().filter(|(name, _)| is_passed_on(name)).collect()
}

/// `git fetch` into a repository, hardened, with `more` configuration. The caller adds what to fetch.
pub(super) fn command(repository: &Path, more: &[&str]) -> Command {
    hardened(repository, more, &FETCH)
}

fn hardened(repository: &Path, more: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository);
    for setting in HARDENED.iter().chain(more) {
        command.args(["-c", setting]);
    }
    command
        .args(arguments)
        .env_clear()
        .envs(passed_on(std::env::vars_os()))
        .env("LANG", "C")
        .env("LC_ALL", "C");
    // Of a history without trees, nothing more is fetched unasked.
    command.env("GIT_NO_LAZY_FETCH", "1");
    never_ask(&mut command);
    command
}

/// Disables all prompts, since there is no user to answer.
pub(super) fn never_ask(command: &mut Command) {
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true").env("SSH_ASKPASS", "true");
}

/// The outer error is ours, the inner text is git's message when it refused.
fn git_fetch(
    cache: &Path,
    location: &Location,
    depth: Depth,
    (arguments, refspec): (&[&str], &str),
) -> Result<Result<(), String>, SourceError> {
    let output = command(cache, depth.settings())
        .args(arguments)
        .arg("--")
        .arg(location.fetch_argument())
        .arg(refspec)
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

/// What git says first, which is the cause; the advice that it repeats after every failure is left out.
pub(super) fn said(detail: &str) -> String {
    const ADVICE: [&str; 5] = [
        "warning: ",
        "remote: warning: ",
        "fatal: Could not read from remote repository.",
        "Please make sure you have the correct access rights",
        "and the repository exists.",
    ];
    let is_advice = |line: &&str| line.is_empty() || ADVICE.iter().any(|advice| line.starts_with(advice));
    let lines: Vec<&str> = detail.lines().map(str::trim).filter(|line| !is_advice(line)).collect();
    Foreign::new(&lines[..lines.len().min(3)].join("; ")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_environment_are_not_passed_on() {
        let passed = |all: &[(&str, &str)]| {
            let all = all.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
            passed_on(all).into_iter().map(|(name, _)| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        let all = [
            ("PATH", "/bin"),
            ("COUNTERSIGN_KEY_PASSWORD", "x"),
            ("TOKEN", "x"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "http.extraHeader"),
            ("GIT_DIR", "/elsewhere"),
            ("LD_PRELOAD", "/x.so"),
            ("SSH_AUTH_SOCK", "/run/agent"),
        ];
        let always = ["PATH", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "SSH_AUTH_SOCK"];
        assert_eq!(passed(&all), always);
        let more = [&all[..], &[(MORE_VARIABLES, "TOKEN, COUNTERSIGN_KEY_PASSWORD")]].concat();
        let mut with_token = always.to_vec();
        with_token.insert(1, "TOKEN");
        assert_eq!(passed(&more), with_token);
    }

    #[test]
    fn the_cause_leads_and_cannot_steer_a_terminal() {
        let detail = "warning: object 01: badTimezone\nfatal: detected dubious ownership in repository at '/srv/x/.git'\n\
            To add an exception for this directory, call:\n\n\tgit config --global --add safe.directory /srv/x/.git\n\
            fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\n\
            and the repository exists.\n";
        assert!(said(detail).starts_with("fatal: detected dubious ownership"), "{}", said(detail));
        assert!(said(detail).ends_with("safe.directory /srv/x/.git"), "{}", said(detail));
        assert_eq!(owned_by_another(detail).unwrap(), "/srv/x/.git");
        assert_eq!(said("remote: \u{1b}[2J\0gone\n"), "remote: \\u{1b}[2J\\0gone");
    }
}
