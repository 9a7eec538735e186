//! What is fetched from servers and repositories by itself.

use super::super::hazards::*;
use super::Judge;
use super::calls::Call;

/// Whether it is about one of these programs.
pub(super) fn judge(judge: &mut Judge<'_>, call: &Call<'_>, is_run: bool) -> bool {
    match call.program.as_str() {
        _ if fetches(call) => match is_run {
            true => judge.add(&PIPED_SHELL, call),
            false if !judge.facts.is_checked => judge.add(&UNCHECKED_DOWNLOAD, call),
            false => {}
        },
        "apt-key" if call.has("--fetch-keys") => judge.add(&UNCHECKED_DOWNLOAD, call),
        "git" => git(judge, call),
        "svn" if matches!(call.verb(), "checkout" | "co" | "export") => judge.add(&MOVING_GIT, call),
        "hg" if matches!(call.verb(), "clone" | "pull") && !judge.facts.has_commit => {
            judge.add(&MOVING_GIT, call)
        }
        "aws" | "gsutil" | "gcloud" | "azcopy" | "rclone" | "gdown" | "rsync" | "scp" | "gh" | "kaggle" => {
            let is_copy = call.args.iter().any(|arg| {
                arg.contains("://")
                    || arg.contains(':') && arg.contains('/')
                    || matches!(arg.as_str(), "download")
            });
            if is_copy && !judge.facts.is_checked {
                judge.add(&UNCHECKED_DOWNLOAD, call);
            }
        }
        "huggingface-cli" | "hf" if call.verb() == "download" => {
            let revision = call.values(&["--revision"]);
            if !revision.iter().any(|id| is_commit(id)) {
                judge.add(&MOVING_GIT, call);
            }
        }
        "playwright" | "ollama" if matches!(call.verb(), "install" | "pull") => {
            judge.add(&UNCHECKED_DOWNLOAD, call);
        }
        _ => return false,
    }
    true
}

/// Whether a program fetches a file: it is given an address, or what may be one.
pub(super) fn fetches(call: &Call<'_>) -> bool {
    let is_fetcher = matches!(call.program.as_str(), "curl" | "wget" | "aria2c" | "axel" | "lwp-request");
    let only_looks = ["-I", "--head", "--spider", "--version", "-V", "--help"];
    let is_here = |arg: &String| ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| arg.contains(host));
    let is_address = |arg: &String| {
        let is_host = arg.contains('.') && arg.contains('/') && !arg.starts_with(['/', '.', '-']);
        (arg.contains("://") || arg.starts_with('$') || is_host) && !is_here(arg)
    };
    is_fetcher
        && call.args.iter().any(is_address)
        && !call.args.iter().any(|arg| only_looks.contains(&arg.as_str()))
}

/// Whether a program runs what it reads.
pub(super) fn is_interpreter(call: &Call<'_>) -> bool {
    let is_one = matches!(
        call.program.as_str(),
        "sh" | "bash"
            | "dash"
            | "ash"
            | "zsh"
            | "python"
            | "perl"
            | "ruby"
            | "node"
            | "php"
            | "R"
            | "Rscript"
    );
    // With a script of its own, it only reads data.
    is_one && call.script().is_none()
}

/// Whether a command runs what the commands in its words print.
pub(super) fn runs_its_words(call: &Call<'_>) -> bool {
    matches!(call.program.as_str(), "sh" | "bash" | "dash" | "ash" | "zsh" | "eval" | "source" | ".")
}

fn git(judge: &mut Judge<'_>, call: &Call<'_>) {
    let words = call.operands(&["-C", "-c", "-b", "--branch", "--depth", "--git-dir", "--work-tree"]);
    let is_moving = match words.first().copied() {
        Some("clone" | "pull" | "fetch") => !judge.facts.has_commit,
        Some("submodule") => call.has("--remote"),
        _ => false,
    };
    if is_moving {
        judge.add(&MOVING_GIT, call);
    }
}

/// Whether it is the whole id of a commit.
pub(super) fn is_commit(word: &str) -> bool {
    word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}
