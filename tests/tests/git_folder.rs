//! The context's `.git`: what version tools see of the commit, the same on every machine, and repeated by a rebuild
//! whatever happened to the tags since.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use testing::{Bench, Outcome, builder, need, run};

const EVERYTHING: &str = "FROM base:1\nWORKDIR /app\nCOPY . .\nRUN cat .git/HEAD > /head\n";

/// A repository with a merge, two kinds of tags, an executable file, a link, and files that the context leaves out.
fn history(bench: &Bench) -> String {
    let source = &bench.source;
    source.write("Dockerfile", EVERYTHING);
    source.write("run.sh", "#!/bin/sh\n");
    source.write("notes/private.txt", "not in the image\n");
    source.write("notes/run.cmd", "one\r\n");
    source.write(".gitattributes", "*.cmd text eol=crlf\n");
    source.write(".dockerignore", "**/private.txt\n");
    let at = source.path();
    std::os::unix::fs::symlink("run.sh", at.join("link")).unwrap();
    run("chmod", ["755", at.join("run.sh").to_str().unwrap()]).expect(0);
    source.commit("first");
    source.git(&["tag", "light"]);
    source.git(&["tag", "-a", "-m", "the first", "v1.0"]);
    source.git(&["checkout", "-q", "-b", "side"]);
    source.write("side.txt", "s");
    source.commit("side");
    source.git(&["checkout", "-q", "-"]);
    source.write("a.txt", "a");
    source.commit("second");
    source.git(&["merge", "-q", "-m", "merged", "side"]);
    source.git(&["checkout", "-q", "-b", "other", "light"]);
    source.write("other.txt", "o");
    source.commit("not in the history");
    source.git(&["tag", "v9.9"]);
    source.git(&["checkout", "-q", "-"]);
    source.git(&["rev-parse", "HEAD"]).trim().to_owned()
}

/// Builds a commit of a repository, writes its files and its layout, and signs.
fn build(bench: &Bench, repository: &str, commit: &str, name: &str) -> Outcome {
    let base = format!("base:1={}", bench.base().display());
    let [state, files, layout] =
        ["state", "files", "layout"].map(|what| bench.text(&format!("{name}-{what}")));
    let (key, bundle) = (bench.text("key.pem"), bench.text(&format!("{name}.json")));
    let output = format!("type=local,dest={files}");
    let own =
        ["--state-dir", &state, "--json", "build", "--repo", repository, "--commit", commit, "--base", &base];
    let signed = ["--key", &key, "--builder-id", "https://ci.example", "--bundle-out", &bundle];
    builder([&own[..], &signed, &["--output", &output, "--oci", &layout]].concat())
}

fn git(at: &Path, arguments: &[&str]) -> String {
    let at = at.to_str().unwrap();
    let own = ["-C", at, "-c", "safe.directory=*"];
    let words = own.iter().chain(arguments);
    let environment = ["GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "git"];
    run("env", environment.iter().chain(words)).expect(0).stdout.trim_end().to_owned()
}

#[test]
fn version_tools_see_the_commit_and_everybody_gets_the_same() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    let commit = history(&bench);
    let source = bench.source.path();
    let first = build(&bench, source.to_str().unwrap(), &commit, "one").expect(0).json();
    let app = bench.path("one-files").join("app");
    for asked in [
        &["describe"][..],
        &["describe", "--tags", "--dirty", "--always", "--long"],
        &["describe", "--dirty", "--tags", "--long", "--match", "*[0-9]*"],
        &["describe", "--exact-match", "v1.0"],
        &["rev-list", "--count", "HEAD"],
        &["log", "--format=%H %an %ad %s", "--topo-order"],
        &["ls-files", "--stage"],
        &["show", "-s", "--format=%ci", "HEAD"],
        &["show", "HEAD"],
        &[
            "for-each-ref",
            "--merged",
            &commit,
            "refs/tags",
            "--format=%(refname) %(objectname) %(*objectname)",
        ],
    ] {
        assert_eq!(git(&app, asked), git(&source, asked), "{asked:?}");
    }
    let index = std::fs::read(app.join(".git/index")).unwrap();
    assert_eq!(git(&app, &["status", "--porcelain", "--ignored"]), "");
    assert_eq!(git(&app, &["status", "--porcelain", "--branch"]), "## HEAD (no branch)");
    assert_eq!(std::fs::read(app.join(".git/index")).unwrap(), index, "git had something to write");
    assert!(git(&app, &["archive", "HEAD"]).contains("not in the image"));
    assert!(git(&app, &["show-ref"]).contains("refs/tags/light"));
    std::fs::write(app.join("a.txt"), "changed").unwrap();
    assert!(git(&app, &["describe", "--dirty"]).ends_with("-dirty"));
    assert!(!app.join("notes/private.txt").exists());

    // A clone with other packs, another state, another time.
    let clone = bench.text("clone");
    git(&source, &["clone", "-q", "--mirror", &format!("file://{}", source.display()), &clone]);
    git(Path::new(&clone), &["gc", "-q", "--aggressive"]);
    let second = build(&bench, &clone, &commit, "two").expect(0).json();
    assert_eq!(first["digest"], second["digest"]);

    // The tags are others now, and a rebuild takes those that there were.
    git(&source, &["tag", "v2.0", &commit]);
    git(&source, &["tag", "-d", "light"]);
    let (bundle, layout, trusted) =
        (bench.text("one.json"), bench.text("one-layout"), bench.text("key.pem.pub"));
    let (state, base) = (bench.text("third"), format!("base:1={}", bench.base().display()));
    let again = ["--state-dir", &state, "rebuild", "--provenance", &bundle, "--against", &layout, "--online"];
    let rebuilt = builder([&again[..], &["--builder-keys", &trusted, "--base", &base]].concat()).expect(0);
    assert!(rebuilt.stdout.contains("identical"), "{}", rebuilt.text());
    let third = build(&bench, source.to_str().unwrap(), &commit, "three").expect(0).json();
    assert_ne!(first["digest"], third["digest"]);
    // A tag's own object that is gone cannot be made again.
    git(&source, &["tag", "-d", "v1.0"]);
    let gone = bench.text("fourth");
    let again = ["--state-dir", &gone, "rebuild", "--provenance", &bundle, "--against", &layout, "--online"];
    let refused = builder([&again[..], &["--builder-keys", &trusted, "--base", &base]].concat()).expect(4);
    assert!(refused.stderr.contains("the tag v1.0 cannot be put into .git"), "{}", refused.text());
}

#[test]
fn nothing_is_made_where_docker_has_nothing() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    let built = |name: &str, files: &[(&str, &str)]| {
        for (path, text) in files {
            bench.source.write(path, text);
        }
        let commit = bench.source.commit(name);
        build(&bench, bench.source.path().to_str().unwrap(), &commit, name).expect(0);
        let statement = std::fs::read_to_string(bench.path(&format!("{name}.json"))).unwrap();
        let payload: serde_json::Value = serde_json::from_str(&statement).unwrap();
        let payload = payload["dsseEnvelope"]["payload"].as_str().unwrap().to_owned();
        let statement = run("sh", ["-c", "printf %s \"$0\" | base64 -d", &payload]).expect(0).json();
        let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
        (bench.path(&format!("{name}-files")).join("app"), parameters["git"].clone())
    };
    let copies = ("Dockerfile", "FROM base:1\nWORKDIR /app\nCOPY . .\n");
    let (app, taken) = built("ignored", &[copies, (".dockerignore", ".git\n")]);
    assert!(app.join("Dockerfile").exists() && !app.join(".git").exists() && taken.is_null());
    let (app, taken) = built(
        "untaken",
        &[("Dockerfile", "FROM base:1\nWORKDIR /app\nCOPY Dockerfile .\n"), (".dockerignore", "x\n")],
    );
    assert!(!app.join(".git").exists() && taken.is_null());
    let (app, taken) = built("kept", &[copies, (".dockerignore", ".git\n!.git/HEAD\n")]);
    assert_eq!(
        std::fs::read_dir(app.join(".git"))
            .unwrap()
            .filter(|it| it.as_ref().unwrap().path().is_file())
            .count(),
        1
    );
    assert_eq!(taken["history"], "whole");
    let (app, taken) = built(
        "mounted",
        &[
            (
                "Dockerfile",
                "FROM base:1\nWORKDIR /app\nRUN --mount=type=bind,target=/src cp /src/.git/HEAD .\n",
            ),
            (".dockerignore", "x\n"),
        ],
    );
    assert!(app.join("HEAD").exists() && !app.join(".git").exists());
    assert_eq!(taken["history"], "whole");
    let (app, _) = built(
        "folder",
        &[
            ("sub/Dockerfile", copies.1),
            ("countersign.toml", "version = 1\n[image.default]\ncontext = \"sub\"\n"),
        ],
    );
    assert!(app.join("Dockerfile").exists() && !app.join(".git").exists());
}

#[test]
fn a_shallow_clone_gives_the_commit_alone_and_a_full_one_repeats_that() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    let commit = history(&bench);
    let source = bench.source.path();
    let clone = bench.text("clone");
    git(&source, &["clone", "-q", "--depth=1", &format!("file://{}", source.display()), &clone]);
    build(&bench, &clone, &commit, "one").expect(0);
    let app = bench.path("one-files").join("app");
    assert_eq!(git(&app, &["describe", "--always", "--dirty"]), commit[..7]);
    assert_eq!(git(&app, &["rev-list", "--count", "HEAD"]), "1");
    let (bundle, layout, trusted) =
        (bench.text("one.json"), bench.text("one-layout"), bench.text("key.pem.pub"));
    let (state, base) = (bench.text("third"), format!("base:1={}", bench.base().display()));
    let repository = source.display().to_string();
    let again = ["--state-dir", &state, "rebuild", "--provenance", &bundle, "--against", &layout, "--online"];
    let more = ["--builder-keys", &trusted, "--base", &base, "--repo", &repository];
    builder([&again[..], &more].concat()).expect(0);
}
