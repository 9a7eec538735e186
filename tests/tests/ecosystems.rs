//! Real installs from the real registries: built once with the network, repeated without on what looks like another
//! machine, and the same to the byte. See `tests/ecosystems/README.md`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use testing::{AHEAD, Outcome, Repository, Site, elsewhere, need, program, python_base, run};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    packages: Vec<String>,
    #[serde(default)]
    fetched: Vec<String>,
    rules: Vec<String>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ecosystems").join(name)
}

fn case(name: &str) -> Case {
    toml::from_str(&std::fs::read_to_string(folder(name).join("case.toml")).unwrap()).unwrap()
}

/// What a case's own index serves, when it has one: its script `index` makes the files.
fn index(name: &str, files: &Path) -> Option<Site> {
    let script = folder(name).join("index");
    script.exists().then(|| {
        run(script, [files]).expect(0);
        Site::of(files)
    })
}

macro_rules! ecosystems {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                need!("runc", "mmdebstrap", "unshare", "taskset");
                repeats(stringify!($name));
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

ecosystems!(apt, wheels, sdist, uv, npm, cargo, go, maven, r, conda, git);

/// A rule without a real case is a guess.
#[test]
fn every_rule_of_the_normaliser_has_a_case_that_needs_it() {
    let needed: BTreeSet<String> = NAMES.iter().flat_map(|name| case(name).rules).collect();
    let known: BTreeSet<String> = images::layer::rules().map(str::to_owned).collect();
    assert_eq!(needed, known);
    let folders = std::fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(folders.filter(|path| path.is_dir()).count(), NAMES.len(), "each folder is a test");
}

/// A repository that is built once, with the network, and repeated elsewhere.
struct Bench {
    source: Repository,
    commit: String,
    work: tempfile::TempDir,
}

impl Bench {
    fn of(source: Repository) -> Self {
        let commit = source.commit("an algorithm");
        let bench = Self { source, commit, work: tempfile::tempdir().unwrap() };
        run(program("countersign-builder"), ["keygen", "--no-password", "--out", &bench.text("key.pem")])
            .expect(0);
        bench
    }

    fn text(&self, name: &str) -> String {
        self.work.path().join(name).to_str().unwrap().to_owned()
    }

    fn common(&self) -> Vec<String> {
        let base = format!("debian-python:bookworm={}", python_base().display());
        let repository = self.source.path().display().to_string();
        ["--json", "--repo", &repository, "--base", &base].map(str::to_owned).into()
    }

    fn build(&self, site: Option<&Site>) -> Outcome {
        let mut arguments: Vec<String> =
            site.map(|site| format!("http_proxy={}", site.proxy())).into_iter().collect();
        arguments.push(program("countersign-builder").display().to_string());
        let head = ["--state-dir", &self.text("state"), "build", "--commit", &self.commit];
        arguments.extend(head.map(str::to_owned));
        arguments.extend(self.common());
        let (key, bundle, first) = (self.text("key.pem"), self.text("bundle.json"), self.text("first"));
        let signing =
            ["--key", &key, "--builder-id", "https://ci.example/", "--bundle-out", &bundle, "--oci", &first];
        arguments.extend(signing.map(str::to_owned));
        run("env", arguments)
    }

    /// Repeats the build of `digest` on what looks like another machine, a day later, with what was kept of the network.
    fn repeat(&self, digest: &str) -> Outcome {
        let builder = program("countersign-builder").display().to_string();
        let (file, state, trusted) = (
            self.text("materials.tar"),
            self.text("another/state/with/a/longer/path"),
            self.text("key.pem.pub"),
        );
        run(&builder, ["--state-dir", &self.text("state"), "materials", "export", digest, "--out", &file])
            .expect(0);
        let (bundle, first, common) = (self.text("bundle.json"), self.text("first"), self.common());
        let head = [builder.as_str(), "--state-dir", &state, "rebuild", "--provenance", &bundle];
        let more = ["--builder-keys", &trusted, "--materials", &file, "--against", &first];
        let common: Vec<&str> = common.iter().map(String::as_str).collect();
        elsewhere(&[&head[..], &common, &more].concat())
    }
}

fn repeats(name: &str) {
    let case = case(name);
    let bench = Bench::of(Repository::of(&folder(name)));
    let files = tempfile::tempdir().unwrap();
    let site = index(name, files.path());
    let built = bench.build(site.as_ref()).expect(0).json();
    drop(site);
    assert_eq!(built["unrecorded"], serde_json::json!([]), "materials are complete");
    assert_eq!(built["unreadRecords"], serde_json::json!([]), "every record is read");
    let all = built["packages"].as_array().unwrap().iter();
    let installed = all.filter(|it| it["from"] == "build" && it["sha256"].is_string());
    let installed: Vec<&str> = installed.map(|it| it["purl"].as_str().unwrap()).collect();
    let fetched: Vec<&str> =
        built["fetched"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    for (wanted, named) in [(&case.packages, &installed), (&case.fetched, &fetched)] {
        for wanted in wanted {
            assert!(
                named.iter().any(|purl| purl.starts_with(wanted.as_str())),
                "{wanted} is not in {named:#?}"
            );
        }
    }
    let fired: BTreeSet<&str> =
        built["normalised"].as_array().unwrap().iter().map(|it| it["rule"].as_str().unwrap()).collect();
    for rule in &case.rules {
        assert!(fired.contains(rule.as_str()), "{rule} is not in {fired:?}");
    }
    let digest = built["digest"].as_str().unwrap();
    let again = bench.repeat(digest);
    assert_eq!(again.code, 0, "{}\n{}", again.stdout, again.stderr);
    assert_eq!(again.json()["digest"], digest);
}

/// The control: without it, a clock that nobody sees would pass for one that changes nothing.
#[test]
fn the_clock_of_the_other_machine_is_seen_to_be_ahead() {
    need!("runc", "mmdebstrap", "unshare", "taskset");
    // The kernel gives a file its time, and that clock stays: what a program's is ahead of it is no hour in any build but there.
    let source = Repository::new();
    source.write(
        "Dockerfile",
        "FROM debian-python:bookworm\n\
         RUN : > /made && echo $(( ($(date +%s) - $(stat --format=%Y /made)) / 3600 )) > /hours \\\n \
         && python -c 'import os, time; print(int(time.time() - os.stat(\"/made\").st_mtime) // 3600)' > /pythons && rm /made\n",
    );
    let bench = Bench::of(source);
    let built = bench.build(None).expect(0).json();
    let differs = bench.repeat(built["digest"].as_str().unwrap()).expect(1);
    let layers = &differs.json()["comparison"]["layers"];
    // From one digit to two.
    let what = serde_json::json!({"kind": "content", "offset": 0, "a": 2, "b": 3, "likely": null});
    let wanted = ["hours", "pythons"].map(|path| serde_json::json!({"path": path, "what": what}));
    assert_eq!(layers[0]["entries"], serde_json::json!(wanted), "{}", differs.text());
    assert!(layers[1].is_null() && AHEAD / 3600 >= 24, "{}", differs.text());
}

/// The other control: where everything is answered from the record, a network that is there would not be noticed.
#[test]
fn the_other_machine_reaches_nothing_and_is_answered_only_what_was_recorded() {
    need!("runc", "mmdebstrap", "unshare", "taskset", "curl");
    let site = Site::start();
    let asks =
        ["curl", "--silent", "--fail", "--max-time", "5", "--header", "Host: a.example", &site.proxy()];
    run(asks[0], &asks[1..]).expect(0);
    // Neither this machine's loopback nor, by an address of the documentation's, the world.
    assert_eq!(elsewhere(&asks).code, 7, "nothing listens there");
    assert_eq!(elsewhere(&["curl", "--silent", "--max-time", "5", "http://192.0.2.1/"]).code, 7);
    // What is asked for depends on the clock, and the other machine's asks for what nobody recorded.
    let source = Repository::new();
    source.write(
        "Dockerfile",
        "FROM debian-python:bookworm\n\
         RUN python -c 'import os, time, urllib.request as u; open(\"/made\", \"w\"); n = int(time.time() - os.stat(\"/made\").st_mtime) // 3600; u.urlopen(\"http://site.example/hour/%d\" % n)'\n",
    );
    let bench = Bench::of(source);
    let built = bench.build(Some(&site)).expect(0).json();
    let refused = bench.repeat(built["digest"].as_str().unwrap()).expect(5);
    let (asked, nearest) =
        (format!("GET http://site.example/hour/{}", AHEAD / 3600), "GET http://site.example/hour/0");
    for part in [&*asked, nearest, "not in the record"] {
        assert!(refused.text().contains(part), "{part} is not in {}", refused.text());
    }
}

/// Makes a wheel, whose list of files needs no digests.
const WHEEL: &str = r#"
import sys, zipfile
about = "tiny-1.0.dist-info/"
files = {
    "tiny.py": "answer = 42\n",
    about + "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    about + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    about + "RECORD": "tiny.py,,\n" + "".join(about + name + ",,\n" for name in ("METADATA", "WHEEL", "RECORD")),
}
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    for name, text in files.items():
        wheel.writestr(zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6)), text)
"#;

/// pip keeps what it got in its cache, with the servers' headers, and so in the image. No two answers have the same ones.
#[test]
fn pips_cache_holds_the_headers_that_were_recorded() {
    need!("runc", "mmdebstrap", "unshare", "taskset", "python3");
    let source = Repository::new();
    source.write(
        "Dockerfile",
        "FROM debian-python:bookworm\n\
         RUN pip install --index-url http://index.example/simple --trusted-host index.example tiny \\\n \
         && grep --recursive --ignore-case --quiet x-request /root/.cache/pip/http && python -c 'import tiny'\n",
    );
    let bench = Bench::of(source);
    let wheel = bench.text("tiny.whl");
    run("python3", ["-c", WHEEL, &wheel]).expect(0);
    let wheel = std::fs::read(wheel).unwrap();
    let site = Site::saying(move |path, number| {
        let (kind, body) = match path {
            "/simple/tiny/" => ("text/html", b"<a href='/files/tiny-1.0-py3-none-any.whl'>tiny</a>".to_vec()),
            _ => ("application/octet-stream", wheel.clone()),
        };
        let number = format!("{number}-{:?}", std::time::SystemTime::now());
        let headers = [
            ("Content-Type", kind),
            ("ETag", "\"1\""),
            ("Cache-Control", "max-age=600"),
            ("X-Request", &number),
        ];
        (200, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), body)
    });
    let built = bench.build(Some(&site)).expect(0).json();
    drop(site);
    let digest = built["digest"].as_str().unwrap();
    assert_eq!(bench.repeat(digest).expect(0).json()["digest"], digest);
}
