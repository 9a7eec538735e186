//! Repositories as people have them: of another user, with an odd past, with things in them that nobody copies.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::{Value, json};
use testing::{Bench, Registry, builder, need, program, run};

const COPIES: &str = "FROM base:1\nCOPY a.txt /a.txt\n";

fn words(bench: &Bench, commit: &str) -> Vec<String> {
    let (source, base) = (bench.source.path(), bench.base());
    let words =
        [program("countersign-builder").display().to_string(), "--state-dir".into(), bench.text("state")];
    let more =
        ["build".into(), "--repo".into(), source.display().to_string(), "--commit".into(), commit.into()];
    let base = ["--base".into(), format!("base:1={}", base.display())];
    [&words[..], &more, &base].concat()
}

fn owned_by(path: &Path, user: &str) {
    run("chown", ["-R", &format!("{user}:{user}"), path.to_str().unwrap()]).expect(0);
}

#[test]
fn a_folder_of_another_user_is_refused_in_git_s_own_words_and_the_remedy_works() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    bench.source.write("a.txt", "hello");
    let commit = bench.dockerfile(COPIES);
    owned_by(&bench.source.path(), "1234");
    let home = format!("HOME={}", bench.text("home"));
    std::fs::create_dir(bench.path("home")).unwrap();
    let build = || {
        let environment = [home.clone(), "GIT_CONFIG_NOSYSTEM=1".to_owned()];
        run("env", environment.into_iter().chain(words(&bench, &commit)))
    };
    let refused = build().expect(8);
    assert!(refused.stderr.contains("detected dubious ownership in repository at"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("access rights"), "{}", refused.stderr);
    let hint =
        refused.stderr.lines().find_map(|line| line.split_once("git config --global --add safe.directory "));
    let (_, folder) = hint.unwrap_or_else(|| panic!("no remedy: {}", refused.stderr));
    run("env", [home.as_str(), "git", "config", "--global", "--add", "safe.directory", folder]).expect(0);
    build().expect(0);
}

/// The signed statement of a bundle.
fn statement(bundle: &str) -> Value {
    let bundle: Value = serde_json::from_slice(&std::fs::read(bundle).unwrap()).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    serde_json::from_slice(&base64(payload)).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    let decoded = run("sh", ["-c", "printf %s \"$0\" | base64 -d", text]).expect(0);
    decoded.stdout.into_bytes()
}

#[test]
fn an_odd_old_commit_far_below_does_not_matter() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    let root = bench.source.path().display().to_string();
    bench.source.write("a.txt", "one");
    let make = "git -C \"$0\" add a.txt; old=$(printf 'tree %s\\nauthor O <o@example.org> 1259452800 +0000\\ncommitter O \
                <o@example.org> 1287367363 -700\\n\\nimported\\n' $(git -C \"$0\" write-tree) | git -C \"$0\" hash-object \
                -t commit -w --stdin --literally); git -C \"$0\" reset -q --hard $old";
    run("sh", ["-euc", make, &root]).expect(0);
    let commit = bench.dockerfile(COPIES);
    let words = words(&bench, &commit);
    run(&words[0], &words[1..]).expect(0);
}

#[test]
fn another_dockerfile_and_context_are_named_on_the_command_line_and_repeated() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    for (path, text) in [
        ("glm/Dockerfile", "FROM base:1\nCOPY a.txt /a.txt\n"),
        (
            "docker/gpu.Dockerfile",
            "FROM base AS one\nARG WHO\nCOPY a.txt /b.txt\nRUN echo $WHO > /who\nFROM one\n",
        ),
        ("docker/gpu.Dockerfile.dockerignore", "x\n"),
        ("docker/Dockerfile.cpu", "FROM base:1\n"),
        ("glm/a.txt", "in the folder"),
    ] {
        bench.source.write(path, text);
    }
    let commit = bench.source.commit("several");
    let words = words(&bench, &commit);
    let build = |more: &[&str]| {
        let words =
            words.iter().map(String::as_str).filter(|word| !word.starts_with("base:1=") && *word != "--base");
        let base = format!("docker.io/library/base={}", bench.base().display());
        let base = if more.contains(&"--base") { vec![] } else { vec!["--base".to_owned(), base] };
        run("env", words.map(str::to_owned).chain(base).chain(more.iter().map(|it| (*it).to_owned())))
    };
    let missing = build(&[]).expect(4);
    for listed in [
        "has no Dockerfile",
        "it has glm/Dockerfile",
        "docker/Dockerfile.cpu",
        "docker/gpu.Dockerfile\n",
        "--file docker/",
    ] {
        assert!(missing.stderr.contains(listed), "{listed}: {}", missing.stderr);
    }
    assert!(!missing.stderr.contains("dockerignore"), "{}", missing.stderr);
    let place = format!("base:1={}", bench.base().display());
    build(&["--context", "glm", "--base", &place]).expect(0);
    build(&["--context", "../glm"]).expect(2);
    let stray = build(&["--context", "glm"]).expect(2);
    let (name, has) =
        ("--base docker.io/library/base: the Dockerfile has no base of that name", "it has base:1");
    assert!(stray.stderr.contains(name) && stray.stderr.contains(has), "{}", stray.stderr);

    let (key, bundle, layout) = (bench.text("key.pem"), bench.text("bundle.json"), bench.text("layout"));
    let program = &words[0];
    let what =
        ["--file", "docker/gpu.Dockerfile", "--context", "glm", "--target", "one", "--build-arg", "WHO=me"];
    let signed =
        ["--key", &key, "--builder-id", "https://ci.example", "--bundle-out", &bundle, "--oci", &layout];
    build(&[&what[..], &signed].concat()).expect(0);
    let parameters = &statement(&bundle)["predicate"]["buildDefinition"]["externalParameters"];
    let said = ["dockerfile", "context", "target"].map(|field| parameters[field].as_str().unwrap());
    assert_eq!(said, ["docker/gpu.Dockerfile", "glm", "one"]);
    let overrides = json!(["dockerfile", "context", "target", "build-arg:WHO", "base:base"]);
    assert_eq!(parameters["overrides"], overrides);
    let given = format!("base={}", bench.base().display());
    let again =
        ["--state-dir", &bench.text("other"), "rebuild", "--provenance", &bundle, "--against", &layout];
    let trusted = format!("{key}.pub");
    let more = ["--builder-keys", &trusted, "--base", &given, "--online"];
    let rebuilt = run(program, [&again[..], &more].concat()).expect(0);
    assert!(rebuilt.stdout.contains("identical"), "{}", rebuilt.text());
}

#[test]
fn a_base_without_a_tag_is_the_latest_and_its_digest_is_repeated() {
    need!("git", "runc", "skopeo", "docker-registry");
    let (bench, registry) = (Bench::new(), Registry::start());
    let push = |tag: &str| {
        let (from, to) =
            (format!("oci:{}", bench.base().display()), format!("docker://{}:{tag}", registry.name("base")));
        run("skopeo", ["copy", "--quiet", "--dest-tls-verify=false", &from, &to]).expect(0);
    };
    push("latest");
    let commit = bench.dockerfile(&format!("FROM {}\nRUN echo 1 > /one\n", registry.name("base")));
    let (key, bundle, layout) = (bench.text("key.pem"), bench.text("bundle.json"), bench.text("layout"));
    let source = bench.source.path().display().to_string();
    let state = bench.text("state");
    let build = ["--state-dir", &state, "build", "--repo", &source, "--commit", &commit, "--oci", &layout];
    let signed = ["--key", &key, "--builder-id", "https://ci.example", "--bundle-out", &bundle];
    builder([&build[..], &signed].concat()).expect(0);
    let statement = statement(&bundle);
    let base = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let base = base.iter().find(|it| it["name"] == "base").unwrap();
    assert_eq!(base["annotations"]["name"], registry.name("base").as_str(), "{base}");
    assert!(
        base["uri"].as_str().unwrap().starts_with(&format!("oci://{}@sha256:", registry.name("base"))),
        "{base}"
    );
    assert_eq!(statement["predicate"]["buildDefinition"]["externalParameters"].get("overrides"), None);
    let trusted = format!("{key}.pub");
    let other = bench.text("other");
    let again = ["--state-dir", &other, "rebuild", "--provenance", &bundle, "--against", &layout];
    builder([&again[..], &["--builder-keys", &trusted, "--online"]].concat()).expect(0);
}

#[test]
fn a_new_countersign_toml_has_every_dockerfile_and_builds() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    let folder = bench.source.path().display().to_string();
    bench.source.write("glm/Dockerfile", COPIES);
    bench.source.write("glm/a.txt", "a");
    bench.source.write("docker/gpu.Dockerfile", "FROM base:1\n");
    builder(["init", &folder]).expect(0);
    builder(["init", &folder]).expect(2);
    let commit = bench.source.commit("with its own settings");
    let words = words(&bench, &commit);
    for image in ["glm", "gpu"] {
        run(&words[0], words[1..].iter().map(String::as_str).chain(["--image", image])).expect(0);
    }
}
