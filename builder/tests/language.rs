//! The rest of the Dockerfile language, in whole builds.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod bench;

use bench::{Bench, Contents, answer, contents};
use images::{Image, Store};

/// Builds a Dockerfile with one context; the image's own files and its config as JSON.
fn built(bench: &Bench, files: &[(&str, &str)]) -> (Contents, serde_json::Value) {
    let commit = bench.commit(files);
    let layout = bench.path("layout");
    let _ = std::fs::remove_dir_all(&layout);
    let told = answer(&bench.build("state", &commit, &["--oci", layout.to_str().unwrap()]), 0);
    let store = Store::open_existing(&layout).unwrap();
    let image = Image::load(&store, &told["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    (contents(&store, &image), serde_json::to_value(image.config()).unwrap())
}

#[test]
fn here_documents_reach_the_image_as_they_stand() {
    let Some(bench) = Bench::new() else { return };
    let dockerfile = r#"FROM busybox:test
ENV WHO=world
RUN <<EOF
# a comment of the shell
echo "hello $WHO" > /said
exit 0
EOF
RUN <<-SCRIPT
	#!/bin/sh
	echo "$0" > /script
	SCRIPT
RUN cat <<one > /a && cat <<'two' > /b
$WHO
one
$WHO
two
COPY --chown=7:8 --chmod=640 <<EOF /etc/greeting
hello $WHO, "quoted" \$kept
EOF
COPY <<first <<"second" more /files/
1
first
$WHO
second
"#;
    let (files, config) = built(&bench, &[("Dockerfile", dockerfile), ("more", "of the commit")]);
    let text = |path: &str| files[path].4.as_str();
    assert_eq!(text("said"), "hello world\n");
    assert_eq!(text("script"), "/dev/pipes/SCRIPT\n");
    assert_eq!((text("a"), text("b")), ("world\n", "$WHO\n"));
    let (mode, uid, gid, _, ref greeting) = files["etc/greeting"];
    assert_eq!((mode, uid, gid, greeting.as_str()), (0o640, 7, 8, "hello world, \"quoted\" $kept\n"));
    assert_eq!(
        (text("files/first"), text("files/second"), text("files/more")),
        ("1\n", "$WHO\n", "of the commit")
    );
    assert!(!files.keys().any(|path| path.starts_with("dev")), "{:?}", files.keys());
    let told: Vec<_> =
        config["history"].as_array().unwrap().iter().map(|it| it["created_by"].clone()).collect();
    assert!(told.contains(&"COPY more <<first <<second /files/".into()), "{told:?}");
}

#[test]
fn a_step_without_network_reaches_nothing_and_records_nothing() {
    let Some(bench) = Bench::new() else { return };
    let dockerfile = "FROM busybox:test\nRUN --network=none ! busybox nc -w 1 198.18.0.1 80 </dev/null && echo alone > /alone\n";
    let (files, _) = built(&bench, &[("Dockerfile", dockerfile)]);
    assert_eq!(files["alone"].4, "alone\n");
}

#[test]
fn files_come_from_an_image_and_by_add() {
    let Some(bench) = Bench::new() else { return };
    let dockerfile = "FROM busybox:test\nADD --chmod=600 a b/ /data/\nCOPY --link --from=busybox:test /etc/passwd /x/passwd\n";
    let (files, _) = built(&bench, &[("Dockerfile", dockerfile), ("a", "a"), ("b/c", "c")]);
    assert_eq!((files["data/a"].4.as_str(), files["data/c"].4.as_str()), ("a", "c"));
    assert!(files["x/passwd"].4.starts_with("root:x:0:0"), "{files:?}");
    // What begins like an archive and is none stays a file.
    let dockerfile = "FROM busybox:test\nADD archive.txt /x/\n";
    let (files, _) = built(&bench, &[("Dockerfile", dockerfile), ("archive.txt", "BZh91AY")]);
    assert_eq!(files["x/archive.txt"].4, "BZh91AY");
}

#[test]
fn the_configuration_says_what_the_dockerfile_does() {
    let Some(bench) = Bench::new() else { return };
    let dockerfile = "FROM busybox:test\nMAINTAINER Carol\nVOLUME /data\nSTOPSIGNAL SIGINT\nHEALTHCHECK CMD true\nONBUILD RUN echo later > /later\n";
    let (_, config) = built(&bench, &[("Dockerfile", dockerfile)]);
    assert_eq!(config["author"], "Carol");
    let of = &config["config"];
    assert_eq!(of["Volumes"], serde_json::json!({ "/data": {} }));
    assert_eq!((&of["StopSignal"], &of["OnBuild"][0]), (&"SIGINT".into(), &"RUN echo later > /later".into()));
    assert_eq!(of["Healthcheck"], serde_json::json!({ "Test": ["CMD-SHELL", "true"] }));
    // What is built on it does first what it asks, once.
    let base = format!("first:1={}", bench.path("layout").display());
    let kept = bench.path("first");
    std::fs::rename(bench.path("layout"), &kept).unwrap();
    let base = base.replace("layout", "first");
    // The bench gives its own base to every build, so the file has to name it.
    let dockerfile = "FROM busybox:test\nFROM first:1\nRUN cat /later > /seen\n";
    let commit = bench.commit(&[("Dockerfile", dockerfile)]);
    let layout = bench.path("second");
    let told =
        answer(&bench.build("state", &commit, &["--base", &base, "--oci", layout.to_str().unwrap()]), 0);
    let store = Store::open_existing(&layout).unwrap();
    let image = Image::load(&store, &told["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    assert_eq!(contents(&store, &image)["seen"].4, "later\n");
    assert_eq!(serde_json::to_value(image.config()).unwrap()["config"]["OnBuild"], serde_json::Value::Null);
}

#[test]
fn mounts_are_seen_by_their_step_alone_and_leave_no_trace() {
    let Some(bench) = Bench::new() else { return };
    let dockerfile = r#"FROM busybox:test AS one
RUN mkdir /made && echo made > /made/f && ln -s made /way
FROM busybox:test
WORKDIR /w
RUN --mount=type=cache,target=/root/.cache/x,uid=7,mode=0750 --mount=type=tmpfs,target=/t,size=1m     --mount=type=bind,target=tree --mount=source=dir/f,target=/single     --mount=from=one,source=/way,target=/stage --mount=from=busybox:test,source=/etc,target=/image,rw     echo 1 > /root/.cache/x/kept && busybox stat -c '%u %a' /root/.cache/x > /seen && echo 1 > /t/x     && cat tree/dir/f /single /stage/f >> /seen && busybox head -c 4 /image/passwd >> /seen     && ! echo 1 > tree/dir/f && ! echo 1 > /stage/f && echo 1 > /image/new
RUN --mount=type=cache,target=/root/.cache/x busybox ls -a /root/.cache/x /root > /empty
"#;
    let (files, _) = built(&bench, &[("Dockerfile", dockerfile), ("dir/f", "of the commit\n")]);
    assert_eq!(files["seen"].4, "7 750\nof the commit\nof the commit\nmade\nroot");
    assert!(!files["empty"].4.contains("kept"), "{}", files["empty"].4);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["empty", "seen", "w"], "no mount point is left");
    for (mount, words) in [
        ("source=nothing,target=/x", "nothing is not in the context"),
        ("from=busybox:test,source=/nothing,target=/x", "/nothing is not in the stage"),
        ("type=cache,target=/", "cannot cover the root"),
    ] {
        let text = format!("FROM busybox:test\nRUN --mount={mount} true\n");
        let commit = bench.commit(&[("Dockerfile", text.as_str())]);
        let refused = answer(&bench.build("state", &commit, &[]), 3);
        assert!(refused["message"].as_str().unwrap().contains(words), "{mount}: {refused}");
    }
}

#[test]
fn a_dockerfile_is_explained_line_by_line() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("Dockerfile");
    let text = "FROM python:3.12 AS one\nRUN pip install \\\n pandas\nFROM scratch AS unused\nFROM scratch\nCOPY --from=one /x /\n";
    std::fs::write(&file, text).unwrap();
    let explain = |more: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_countersign-builder"))
            .args(more)
            .arg("explain-dockerfile")
            .arg(&file)
            .output()
            .unwrap()
    };
    let told = answer(&explain(&["--json"]), 0);
    assert_eq!(told["stages"][0]["hazards"][0]["rule"], "base-by-tag");
    let step = &told["stages"][0]["steps"][0];
    assert_eq!((&step["line"], &step["hazards"][0]["rule"]), (&2.into(), &"unpinned-pip".into()));
    let text = String::from_utf8(explain(&[]).stdout).unwrap();
    assert!(text.contains("2 to look at: base-by-tag (1), unpinned-pip (1)"), "{text}");
    assert!(text.contains("1 stage(s) of the file are not needed"), "{text}");
    assert!(text.contains("! unpinned-pip: pip install pandas"), "{text}");
    let long = format!("FROM a\nRUN true{}\n", " && echo a long line".repeat(9));
    std::fs::write(&file, long).unwrap();
    let text = String::from_utf8(explain(&[]).stdout).unwrap();
    assert!(text.contains("… (10 commands)") && text.lines().all(|line| line.len() < 130), "{text}");
    std::fs::write(&file, "FROM a\nNONSENSE\n").unwrap();
    let refused = answer(&explain(&["--json"]), 3);
    assert!(refused["message"].as_str().unwrap().contains("line 2"), "{refused}");
}

#[test]
fn a_commit_is_explained_with_its_files() {
    let (source, folder) = (testing::Repository::new(), tempfile::TempDir::new().unwrap());
    source.write(
        "countersign.toml",
        "version = 1\n[image.default]\ndockerfile = \"docker/Dockerfile\"\ntarget = \"one\"\n",
    );
    source.write(
        "docker/Dockerfile",
        "FROM a AS one\nCOPY . /app\nRUN pip install -r /app/requirements.txt && sh /app/x.sh\nFROM b\n",
    );
    source.write("requirements.txt", "six==1.16.0\npandas\n");
    source.write("x.sh", "apt-get install -y gcc\n");
    let commit = source.commit("an algorithm");
    let (state, path) = (folder.path().join("state"), source.path());
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_countersign-builder"))
        .args(["--json", "--state-dir", state.to_str().unwrap(), "explain-dockerfile"])
        .args(["--repo", path.to_str().unwrap(), "--commit", &commit])
        .output()
        .unwrap();
    let told = answer(&told, 0);
    let hazards = told["stages"][0]["steps"][1]["hazards"].as_array().unwrap();
    let found: Vec<_> = hazards.iter().map(|it| (&it["rule"], &it["words"], &it["file"])).collect();
    let wanted = [
        ("unpinned-pip", "pandas", "/app/requirements.txt"),
        ("unpinned-apt", "apt-get install -y gcc", "/app/x.sh"),
    ];
    let wanted = wanted.map(|(rule, words, file)| (rule.into(), words.into(), file.into()));
    assert_eq!(found, wanted.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    assert_eq!(told["stages"].as_array().unwrap().len(), 1, "the target is that of countersign.toml");
}
