//! The package managers of languages other than Python, and conda.

use super::super::hazards::*;
use super::Judge;
use super::calls::Call;

/// Whether it is about one of these programs.
pub(super) fn judge(judge: &mut Judge<'_>, call: &Call<'_>) -> bool {
    let verb = call.verb();
    let is_open = match call.program.as_str() {
        "npm" => matches!(verb, "install" | "i" | "add" | "update" | "up" | "exec" | "x"),
        "npx" | "bunx" => true,
        "yarn" => yarn(call, verb),
        "pnpm" | "bun" => match verb {
            "install" | "i" => !call.has("--frozen-lockfile"),
            "add" | "update" | "up" | "dlx" | "x" => true,
            _ => false,
        },
        "corepack" => matches!(verb, "use" | "prepare") && !call.args.iter().any(|arg| arg.contains('@')),
        "cargo" => cargo(judge, call, verb),
        "rustup" => {
            matches!(verb, "update" | "default" | "install" | "toolchain" | "component")
                && call
                    .args
                    .iter()
                    .any(|arg| matches!(arg.as_str(), "stable" | "beta" | "nightly" | "update"))
        }
        "go" => go(call, verb),
        "mvn" | "mvnw" => {
            !call.has("-o") && !call.has("--offline") && !call.has("-v") && !call.has("--version")
        }
        "gradle" | "gradlew" => {
            !call.has("--offline") && !call.has("--version") && judge.lacks_or_unknown("gradle.lockfile")
        }
        "sbt" | "lein" | "bazel" | "stack" => !matches!(verb, "" | "version" | "clean"),
        "cabal" => {
            matches!(verb, "update" | "install" | "build") && judge.lacks_or_unknown("cabal.project.freeze")
        }
        "gem" => verb == "install" && !has_version(call, &["-v", "--version"]),
        "bundle" | "bundler" => bundle(judge, call, verb),
        "composer" => matches!(verb, "require" | "update" | "global" | "create-project"),
        "cpanm" | "cpan" | "luarocks" | "opam" | "pecl" | "pear" | "raco" | "nimble" => {
            !call.operands(&[]).is_empty() && !matches!(verb, "init" | "env" | "list" | "config")
        }
        "dotnet" => match verb {
            "restore" => !call.has("--locked-mode"),
            "tool" => !has_version(call, &["--version"]),
            "add" => true,
            _ => false,
        },
        "conda" | "mamba" | "micromamba" => conda(call, verb),
        "pixi" => match verb {
            "install" | "run" => !call.has("--locked") && !call.has("--frozen"),
            "add" | "update" | "global" => true,
            _ => false,
        },
        "jupyter" => verb == "labextension" && call.args.iter().any(|arg| arg == "install"),
        "nvm" | "fnm" | "pyenv" | "rbenv" | "sdk" | "asdf" => verb == "install",
        "helm" | "krew" => matches!(verb, "install" | "pull" | "repo"),
        "install2.r" | "installGithub.r" | "installBioc.r" | "install_cran" | "install.r" => {
            if !judge.uses_dated_r() {
                judge.add(&UNPINNED_R, call);
            }
            return true;
        }
        "R" | "Rscript" | "r" | "julia" => return false,
        _ => return false,
    };
    if is_open {
        judge.add(&UNLOCKED, call);
    }
    true
}

fn yarn(call: &Call<'_>, verb: &str) -> bool {
    let is_locked = call.has("--frozen-lockfile") || call.has("--immutable");
    match verb {
        "" | "install" => !is_locked && !call.has("--version"),
        "add" | "global" | "dlx" | "upgrade" | "up" => true,
        _ => false,
    }
}

fn cargo(judge: &Judge<'_>, call: &Call<'_>, verb: &str) -> bool {
    let is_locked = call.has("--locked") || call.has("--frozen");
    match verb {
        "install" | "binstall" => !is_locked,
        "update" | "add" | "generate-lockfile" => true,
        "build" | "run" | "test" | "rustc" => !is_locked && judge.lacks("Cargo.lock"),
        _ => false,
    }
}

/// Versions of modules never change; names of branches and `latest` do.
fn go(call: &Call<'_>, verb: &str) -> bool {
    let words = call.operands(&["-C", "-o", "-ldflags", "-tags", "-modfile"]);
    let is_pinned = |module: &str| {
        let version = module.rsplit_once('@').map(|(_, version)| version);
        version.is_some_and(|version| {
            let is_version = version
                .strip_prefix('v')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('.'));
            is_version || version.starts_with('$') || super::downloads::is_commit(version)
        })
    };
    let is_module = |word: &&&str| word.contains('.') && !word.starts_with(['.', '/']);
    match verb {
        "install" => {
            words[1..].iter().filter(is_module).any(|module| module.contains('@') && !is_pinned(module))
        }
        "get" => words.len() == 1 || call.has("-u") || words[1..].iter().any(|module| !is_pinned(module)),
        "mod" => words.get(1) == Some(&"tidy"),
        _ => false,
    }
}

fn bundle(judge: &Judge<'_>, call: &Call<'_>, verb: &str) -> bool {
    let is_frozen = call.has("--frozen")
        || call.has("--deployment")
        || judge.facts.sets_frozen
        || ["BUNDLE_FROZEN", "BUNDLE_DEPLOYMENT"].iter().any(|name| judge.scene.is_set(name));
    match verb {
        "install" | "" => !is_frozen,
        "update" | "add" => true,
        _ => false,
    }
}

fn conda(call: &Call<'_>, verb: &str) -> bool {
    let is_lock = |file: &&str| file.contains("lock") || file.contains("explicit");
    let files = call.values(&["-f", "--file"]);
    let is_locked = !files.is_empty() && files.iter().all(is_lock);
    let words = call.operands(&["-n", "--name", "-p", "--prefix", "-c", "--channel", "-f", "--file", "-r"]);
    match verb {
        "install" | "create" => !is_locked && (words.len() > 1 || !files.is_empty()),
        "update" | "upgrade" => true,
        "env" => matches!(words.get(1), Some(&"create" | &"update")) && !is_locked,
        _ => false,
    }
}

fn has_version(call: &Call<'_>, options: &[&str]) -> bool {
    !call.values(options).is_empty()
        || call
            .operands(options)
            .iter()
            .any(|word| word.split_once(':').is_some_and(|(_, version)| !version.is_empty()))
}

/// A script of R.
pub(super) fn judge_r(judge: &mut Judge<'_>, call: &Call<'_>, script: &str) {
    let installs = [
        "install.packages(",
        "pkg_install(",
        "BiocManager::install(",
        "biocLite(",
        "renv::install(",
        "install_deps(",
        "install_cran(",
        "install_bioc(",
    ];
    let from_git = ["install_github(", "install_gitlab(", "install_git("];
    if installs.iter().any(|it| script.contains(it)) && !names_date(script) && !judge.uses_dated_r() {
        judge.add(&UNPINNED_R, call);
    }
    let names_commit = script.split(|c: char| !c.is_ascii_alphanumeric()).any(super::downloads::is_commit);
    if from_git.iter().any(|it| script.contains(it)) && !names_commit {
        judge.add(&MOVING_GIT, call);
    }
}

/// Whether it names a day, as addresses of snapshots do.
pub(super) fn names_date(text: &str) -> bool {
    text.as_bytes().windows(10).any(is_date)
}

/// `2024-06-01`, as snapshots of repositories have it in their addresses.
fn is_date(text: &[u8]) -> bool {
    text.iter()
        .enumerate()
        .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() })
}

/// A script of Julia.
pub(super) fn judge_julia(judge: &mut Judge<'_>, call: &Call<'_>, script: &str) {
    let opens = ["Pkg.add(", "Pkg.update(", "Pkg.develop(", "Pkg.resolve(", "pkg\"add", "pkg\"up"];
    let instantiates = script.contains("Pkg.instantiate(") && judge.lacks("Manifest.toml");
    if opens.iter().any(|it| script.contains(it)) || instantiates {
        judge.add(&UNLOCKED, call);
    }
}
