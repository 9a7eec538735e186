//! Whole builds, as people run them: a real git repository, a base of static busybox, and the program as a process.
//! They need root, for the overlays and the runtime; without it they say so and pass.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::PathBuf;
use std::process::Command;

use images::image::Config;
use images::{Image, Store};
use serde_json::Value;

mod bench;

use bench::{Bench, answer, contents};

const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
ARG BASE=busybox:test
FROM ${BASE} AS tools
RUN mkdir /made && echo tool > /made/tool && chown 7:8 /made/tool && chmod 4755 /made/tool
RUN ["ln", "-s", "tool", "/made/link"]

FROM busybox:test
ARG GREETING=hello
ENV WHO=world GREETED="$GREETING ${WHO:-nobody}"
LABEL org.example.note="a note"
WORKDIR /app
COPY --chown=1000:1001 src/*.txt docs/
COPY . .
COPY --from=tools /made /opt/
RUN echo "$GREETED" > out && echo "$SOURCE_DATE_EPOCH" > epoch && rm docs/a.txt \
 && env > /tmp/env && cat /etc/resolv.conf > /dev/null
USER 1000
EXPOSE 8080
RUN echo user > /tmp/by-user
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat out"]
"#;

#[test]
fn two_builds_of_a_commit_are_the_same_to_the_bit_and_as_docker_would_have_it() {
    let Some(bench) = Bench::new() else { return };
    let commit = bench.commit(&[
        ("Dockerfile", DOCKERFILE),
        (".dockerignore", "secret\n*.md\n"),
        ("src/a.txt", "A"),
        ("src/b.txt", "B"),
        ("src/c.bin", "C"),
        ("secret", "S"),
        ("README.md", "R"),
    ]);
    let layout = bench.path("layout").display().to_string();
    let first = answer(&bench.build("state-one", &commit, &["--oci", &layout]), 0);
    let second = answer(&bench.build("state-two", &commit, &["--quiet"]), 0);
    assert_eq!(first["digest"], second["digest"]);

    let store = Store::open_existing(bench.path("layout")).unwrap();
    let image = Image::load(&store, &first["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    let epoch = 1_767_323_046;
    let found = contents(&store, &image);
    let expected = [
        ("app", 0o755, 0, 0, ""),
        ("app/docs/.wh.a.txt", 0, 0, 0, ""),
        ("app/docs/b.txt", 0o644, 1000, 1001, "B"),
        ("app/epoch", 0o644, 0, 0, "1767323046\n"),
        ("app/out", 0o644, 0, 0, "hello nobody\n"),
        ("app/src/c.bin", 0o644, 0, 0, "C"),
        ("opt/link", 0o777, 0, 0, "tool"),
        ("opt/tool", 0o4755, 7, 8, "tool\n"),
        ("tmp/by-user", 0o644, 1000, 1000, "user\n"),
    ];
    for (path, mode, uid, gid, text) in expected {
        let entry = found.get(path).unwrap_or_else(|| panic!("{path} is missing from {:?}", found.keys()));
        assert_eq!((entry.1, entry.2, entry.4.as_str()), (uid, gid, text), "{path}");
        if !path.contains(".wh.") {
            assert_eq!((entry.0 & 0o7777, entry.3), (mode, epoch), "{path}");
        }
    }
    for absent in
        ["app/secret", "app/README.md", "etc/resolv.conf", "etc/hosts", "etc/ssl/cert.pem", "dev", "made"]
    {
        assert!(!found.contains_key(absent), "{absent} must not be in a layer");
    }
    check_environment(&found["tmp/env"].4);
    check_config(image.config());
}

fn check_environment(env: &str) {
    for line in [
        "PYTHONHASHSEED=0",
        "SOURCE_DATE_EPOCH=1767323046",
        "HOME=/root",
        "GREETING=hello",
        "WHO=world",
        "PATH=/bin",
    ] {
        assert!(env.lines().any(|found| found == line), "{line} in\n{env}");
    }
}

fn check_config(config: &Config) {
    assert_eq!(config.created.as_deref(), Some("2026-01-02T03:04:06Z"));
    assert_eq!(config.config.env, ["PATH=/bin", "WHO=world", "GREETED=hello nobody"].map(str::to_owned));
    assert_eq!((config.config.user.as_str(), config.config.working_dir.as_str()), ("1000", "/app"));
    assert_eq!(config.config.entrypoint, Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]));
    assert_eq!(config.config.cmd, Some(vec!["cat out".to_owned()]));
    assert_eq!(config.config.labels["org.example.note"], "a note");
    assert!(config.config.exposed_ports.contains_key("8080/tcp"));
    let history: Vec<_> = config
        .history
        .iter()
        .map(|entry| (entry.created_by.as_deref().unwrap(), entry.empty_layer))
        .collect();
    assert_eq!(history[0], ("ARG GREETING=hello", true));
    assert_eq!(history[3], ("WORKDIR /app", false));
    assert_eq!(history[4], ("COPY --chown=1000:1001 src/*.txt /app/docs/", false));
    assert!(history[7].0.starts_with("RUN |1 GREETING=hello /bin/sh -c echo"), "{:?}", history[7]);
    let layers = history.iter().filter(|(_, empty)| !empty).count();
    assert_eq!(layers + 1, config.rootfs.diff_ids.len());
}

#[test]
fn a_failing_step_shows_its_last_output_and_its_line_and_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let commit = bench
        .commit(&[("Dockerfile", "FROM busybox:test\n\nRUN echo before; \\\n  echo after >&2; exit 3\n")]);
    let layout = bench.path("layout");
    let failed = answer(&bench.build("state", &commit, &["--oci", layout.to_str().unwrap()]), 5);
    assert!(failed["message"].as_str().unwrap().starts_with("line 3: RUN echo before"), "{failed}");
    assert!(failed["message"].as_str().unwrap().ends_with("ended with exit code 3"), "{failed}");
    let details: Vec<_> =
        failed["details"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(details.contains(&"before") && details.contains(&"after"), "{details:?}");
    assert!(!layout.exists());
    assert_nothing_is_left(&bench);
}

#[test]
fn bad_input_is_refused_before_anything_runs() {
    let Some(bench) = Bench::new() else { return };
    let none = bench.commit(&[("a", "a")]);
    assert_eq!(answer(&bench.build("state", &none, &[]), 4)["kind"], "not-found");
    let table = [
        (
            "FROM busybox:test\nRUN touch /ran\nRUN --mount=type=ssh true\n",
            3,
            "line 3: RUN --mount=type=ssh is not supported",
        ),
        ("FROM busybox:test\nCOPY missing /\n", 3, "missing is not in the context"),
        ("FROM busybox:test\nCOPY ../x /\n", 3, "../x is not in the context"),
        ("FROM busybox:test\nUSER nobody-there\nRUN echo\n", 3, "has no user nobody-there"),
        ("FROM busybox:test\nENV A=${B\n", 3, "line 2"),
        ("FROM busybox\n", 2, "--base busybox:test: the Dockerfile has no base of that name"),
    ];
    for (text, code, reason) in table {
        let commit = bench.commit(&[("Dockerfile", text)]);
        let error = answer(&bench.build("state", &commit, &[]), code);
        assert!(error["message"].as_str().unwrap().contains(reason), "{text}: {error}");
    }
    let commit = bench.commit(&[
        ("Dockerfile", "FROM busybox:test\n"),
        ("countersign.toml", "version = 1\n[image.a]\nx = 1\n"),
    ]);
    assert!(
        answer(&bench.build("state", &commit, &[]), 3)["message"]
            .as_str()
            .unwrap()
            .contains("countersign.toml")
    );
    let unknown = "0123456789012345678901234567890123456789";
    assert_eq!(answer(&bench.build("state", unknown, &[]), 4)["kind"], "not-found");
    assert_eq!(bench.build("state", "main", &[]).status.code(), Some(2));
}

#[test]
fn a_rebuild_is_identical_and_a_changed_image_differs() {
    let Some(bench) = Bench::new() else { return };
    let commit = bench.commit(&[("Dockerfile", "FROM busybox:test\nRUN echo one > /one\n")]);
    let key = bench.path("ci.pem").display().to_string();
    let made = bench.run("state", &["keygen", "--no-password", "--out", &key]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = format!("{key}.pub");
    let (layout, bundle) =
        (bench.path("layout").display().to_string(), bench.path("bundle.json").display().to_string());
    let signing = ["--key", &key, "--builder-id", "https://ci.example"];
    let output = ["--oci", &layout, "--bundle-out", &bundle];
    let built = answer(&bench.build("one", &commit, &[&signing[..], &output[..]].concat()), 0);

    let base = format!("busybox:test={}", bench.path("base").display());
    let result = bench.path("rebuilt.json").display().to_string();
    let arguments =
        ["rebuild", "--json", "--provenance", &bundle, "--builder-keys", &public, "--base", &base];
    let more = ["--against", &layout, "--bundle-out", &result];
    let rebuilt = answer(&bench.run("two", &[&arguments[..], &more[..], &signing[..]].concat()), 0);
    assert_eq!((&rebuilt["identical"], &rebuilt["digest"]), (&Value::Bool(true), &built["digest"]));
    let signed = attestations::Bundle::parse(&std::fs::read(&result).unwrap()).unwrap();
    let statement = signed.statement_unverified().unwrap().into_value();
    let attestations::Predicate::Provenance(provenance) = statement.predicate else { panic!() };
    let of = provenance.build_definition.internal_parameters.rebuild_of.unwrap();
    assert_eq!(of.subject.to_string(), built["digest"].as_str().unwrap());

    let other = bench.commit(&[("Dockerfile", "FROM busybox:test\nRUN echo two > /one\n")]);
    let second = bench.path("second").display().to_string();
    answer(&bench.build("one", &other, &["--oci", &second]), 0);
    let differs = answer(&bench.run("one", &["diff", "--json", &layout, &second]), 1);
    assert_eq!(differs["comparison"]["layers"][0]["entries"][0]["path"], "one", "{differs}");
    assert!(bench.run("one", &["diff", &layout, &layout]).status.success());

    let stranger = bench.path("stranger.pem").display().to_string();
    assert!(bench.run("state", &["keygen", "--no-password", "--out", &stranger]).status.success());
    let unknown =
        bench.run("two", &["rebuild", "--provenance", &bundle, "--builder-keys", &format!("{stranger}.pub")]);
    assert_eq!(unknown.status.code(), Some(7));
}

#[test]
fn a_rebuild_that_differs_says_where_and_is_signed_as_well() {
    let Some(bench) = Bench::new() else { return };
    let random = "FROM busybox:test\nRUN cat /proc/sys/kernel/random/uuid > /random\n";
    let commit = bench.commit(&[("Dockerfile", random)]);
    let key = bench.path("ci.pem").display().to_string();
    assert!(bench.run("state", &["keygen", "--no-password", "--out", &key]).status.success());
    let path = |name: &str| bench.path(name).display().to_string();
    let (layout, bundle, result) = (path("layout"), path("bundle.json"), path("result.json"));
    let signing = ["--key", &key, "--builder-id", "https://ci.example"];
    answer(
        &bench.build("one", &commit, &[&signing[..], &["--oci", &layout, "--bundle-out", &bundle]].concat()),
        0,
    );
    let base = format!("busybox:test={}", path("base"));
    let rebuild = ["rebuild", "--json", "--provenance", &bundle, "--trust-unverified", "--base", &base];
    let more = ["--against", &layout, "--bundle-out", &result];
    let differs = answer(&bench.run("two", &[&rebuild[..], &more[..], &signing[..]].concat()), 1);
    assert_eq!(differs["comparison"]["layers"][0]["entries"][0]["path"], "random", "{differs}");
    let signed = attestations::Bundle::parse(&std::fs::read(&result).unwrap()).unwrap();
    let statement = signed.statement_unverified().unwrap().into_value();
    assert_eq!(statement.subject[0].sha256().unwrap().to_string(), differs["digest"].as_str().unwrap());
    let attestations::Predicate::Provenance(provenance) = statement.predicate else { panic!() };
    let of = provenance.build_definition.internal_parameters.rebuild_of.unwrap();
    assert_eq!(of.verdict, attestations::provenance::RebuildVerdict::Differs);
    // Without the first image, the record of its layers says as much.
    let recorded = answer(&bench.run("two", &rebuild), 1);
    assert!(
        recorded["comparison"]["recorded"].to_string().contains("layer 1 (RUN /bin/sh -c cat"),
        "{recorded}"
    );
}

#[test]
fn a_commit_without_the_reviews_asked_for_is_not_built() {
    let Some(bench) = Bench::new() else { return };
    let commit = bench.commit(&[("Dockerfile", "FROM busybox:test\nRUN echo\n")]);
    let repository = bench.path("repository").display().to_string();
    let mut keys = String::new();
    for (name, email) in [("alice", "alice@example.org"), ("carol", "carol@example.org")] {
        let key = bench.path(name).display().to_string();
        assert!(bench.run("state", &["keygen", "--no-password", "--out", &key]).status.success());
        keys.push_str(&std::fs::read_to_string(format!("{key}.pub")).unwrap());
        let out = format!("{key}.review");
        let sign =
            ["review", "sign", "--repo", &repository, "--commit", &commit, "--key", &key, "--name", name];
        let signed = bench.run("state", &[&sign[..], &["--email", email, "--out", &out]].concat());
        // Carol wrote the commit: her tool may refuse already, and the builder has to in any case.
        assert!(signed.status.success() || name == "carol", "{}", String::from_utf8_lossy(&signed.stderr));
    }
    let file = bench.path("keys").display().to_string();
    std::fs::write(&file, keys).unwrap();
    let review = bench.path("alice.review").display().to_string();
    let gate = |n: &'static str| {
        ["--require-reviews", n, "--reviewer-keys", &file, "--reviews", &review].map(str::to_owned)
    };
    let build = |n| {
        let gate = gate(n);
        let gate: Vec<&str> = gate.iter().map(String::as_str).collect();
        bench.build("state", &commit, &gate)
    };
    answer(&build("1"), 0);
    let refused = answer(&build("2"), 1);
    assert!(refused["message"].as_str().unwrap().contains("has 1 of the 2 reviews"), "{refused}");
    let missing =
        answer(&bench.build("state", &commit, &["--require-reviews", "1", "--reviewer-keys", &file]), 1);
    assert!(missing["hint"].as_str().unwrap().contains("review sign"), "{missing}");
}

/// A file system of so many mebibytes at a path; gone with the test.
struct Small(PathBuf);

impl Small {
    fn at(path: PathBuf, mebibytes: u32) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let size = format!("size={mebibytes}m,mode=700");
        assert!(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        Self(path)
    }

    fn grow(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_a_state_that_serves_again() {
    let Some(bench) = Bench::new() else { return };
    let commit =
        bench.commit(&[("Dockerfile", "FROM busybox:test\nRUN cat /bin/busybox /bin/busybox > /big\n")]);
    let disk = Small::at(bench.path("state"), 3);
    let layout = bench.path("layout");
    let arguments = ["--oci", layout.to_str().unwrap()];
    for size in [3, 4, 5] {
        disk.grow(size);
        let full = bench.build("state", &commit, &arguments);
        let told = String::from_utf8_lossy(&full.stdout).to_lowercase();
        assert!(matches!(full.status.code(), Some(5 | 8)), "{size} MiB: {told}");
        assert!(told.contains("no space left"), "{size} MiB: {told}");
        assert!(!layout.exists(), "{size} MiB");
    }
    disk.grow(200);
    let built = answer(&bench.build("state", &commit, &arguments), 0);
    assert_eq!(built["digest"], answer(&bench.build("elsewhere", &commit, &[]), 0)["digest"]);
}

/// Processes that sleep so many seconds, a number that nobody else uses.
fn sleeping(seconds: &str) -> usize {
    let wanted = format!("sleep\0{seconds}\0");
    let lines = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.ends_with(wanted.as_bytes())).count()
}

/// A build in a RUN that goes on for as long as nobody ends it.
fn building(bench: &Bench, seconds: &str) -> std::process::Child {
    let dockerfile = format!("FROM busybox:test\nRUN exec busybox sleep {seconds}\n");
    let commit = bench.commit(&[("Dockerfile", dockerfile.as_str())]);
    let base = format!("busybox:test={}", bench.path("base").display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign-builder"))
        .args(["build", "--repo", bench.path("repository").to_str().unwrap(), "--commit", &commit])
        .args(["--base", &base, "--state-dir"])
        .arg(bench.path("state"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while sleeping(seconds) == 0 {
        assert!(child.try_wait().unwrap().is_none() && std::time::Instant::now() < end, "it does not run");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child
}

fn assert_nothing_is_left(bench: &Bench) {
    assert_eq!(std::fs::read_dir(bench.path("state/builds")).unwrap().count(), 0);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(bench.folder.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn a_killed_build_leaves_nothing_that_the_next_does_not_clear() {
    let Some(bench) = Bench::new() else { return };
    let mut child = building(&bench, "65432");
    child.kill().unwrap();
    child.wait().unwrap();
    let next = bench.commit(&[("Dockerfile", "FROM busybox:test\nRUN echo one > /one\n")]);
    answer(&bench.build("state", &next, &[]), 0);
    assert_eq!(sleeping("65432"), 0);
    assert_nothing_is_left(&bench);
}

#[test]
fn an_interrupted_build_cleans_up_behind_itself() {
    let Some(bench) = Bench::new() else { return };
    for (signal, seconds) in [("-INT", "65433"), ("-TERM", "65434")] {
        let mut child = building(&bench, seconds);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(5), "{signal}");
        assert_eq!(sleeping(seconds), 0, "{signal}");
        assert_nothing_is_left(&bench);
    }
}

#[test]
fn without_root_a_build_says_what_it_needs() {
    use std::os::unix::fs::PermissionsExt;
    let Some(bench) = Bench::new() else { return };
    let commit = bench.commit(&[("Dockerfile", "FROM busybox:test\nRUN true\n")]);
    std::fs::set_permissions(bench.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(bench.path("state")).unwrap();
    let program = bench.path("countersign-builder");
    std::fs::copy(env!("CARGO_BIN_EXE_countersign-builder"), &program).unwrap();
    let base = format!("busybox:test={}", bench.path("base").display());
    let owned = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(bench.path("repository"))
        .arg(bench.path("base"))
        .arg(bench.path("state"))
        .status();
    assert!(owned.unwrap().success());
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args([
            "build",
            "--json",
            "--repo",
            bench.path("repository").to_str().unwrap(),
            "--commit",
            &commit,
            "--base",
            &base,
        ])
        .arg("--state-dir")
        .arg(bench.path("state"))
        .env("HOME", bench.folder.path())
        .output()
        .unwrap();
    let refused = answer(&output, 8);
    assert!(refused.to_string().contains("root"), "{refused}");
}
