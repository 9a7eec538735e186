//! Real installs from the real registries: built once with the network, repeated without on what looks like another
//! machine, and the same to the byte. See `tests/ecosystems/README.md`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tests::{Repository, Site, need, program, python_base, run};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    packages: Vec<String>,
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

ecosystems!(apt, sdist, uv, npm, cargo, go, maven, r, conda, git);

/// A rule without a real case is a guess.
#[test]
fn every_rule_of_the_normaliser_has_a_case_that_needs_it() {
    let needed: BTreeSet<String> = NAMES.iter().flat_map(|name| case(name).rules).collect();
    let known: BTreeSet<String> = images::layer::rules().map(str::to_owned).collect();
    assert_eq!(needed, known);
    let folders = std::fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(folders.filter(|path| path.is_dir()).count(), NAMES.len(), "each folder is a test");
}

fn repeats(name: &str) {
    let case = case(name);
    let source = Repository::of(&folder(name));
    let commit = source.commit("an algorithm");
    let work = tempfile::tempdir().unwrap();
    let text = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    let builder = program("countersign-builder").display().to_string();
    run(&builder, ["keygen", "--no-password", "--out", &text("key.pem")]).expect(0);
    let base = format!("debian-python:bookworm={}", python_base().display());
    let repository = source.path().display().to_string();
    let common = ["--json", "--repo", &repository, "--base", &base];
    let (key, bundle, first) = (text("key.pem"), text("bundle.json"), text("first"));
    let signing =
        ["--key", &key, "--builder-id", "https://ci.example/", "--bundle-out", &bundle, "--oci", &first];
    let head = ["--state-dir", &text("state"), "build", "--commit", &commit];
    let files = tempfile::tempdir().unwrap();
    let site = index(name, files.path());
    let proxy = site.as_ref().map(|site| format!("http_proxy={}", site.proxy()));
    let proxy: Vec<&str> = proxy.as_deref().into_iter().chain([builder.as_str()]).collect();
    let built = run("env", [&proxy[..], &head, &common, &signing].concat()).expect(0).json();
    drop(site);
    assert_eq!(built["unrecorded"], serde_json::json!([]), "materials are complete");
    let named: Vec<&str> =
        built["packages"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    for wanted in &case.packages {
        assert!(named.iter().any(|purl| purl.starts_with(wanted.as_str())), "{wanted} is not in {named:#?}");
    }
    let fired: BTreeSet<&str> =
        built["normalised"].as_array().unwrap().iter().map(|it| it["rule"].as_str().unwrap()).collect();
    for rule in &case.rules {
        assert!(fired.contains(rule.as_str()), "{rule} is not in {fired:?}");
    }

    // Another machine, as far as a process can tell, and no network at all.
    let digest = built["digest"].as_str().unwrap();
    let (file, state, trusted) =
        (text("materials.tar"), text("another/state/with/a/longer/path"), text("key.pem.pub"));
    run(&builder, ["--state-dir", &text("state"), "materials", "export", digest, "--out", &file]).expect(0);
    let script = "umask 077; hostname elsewhere; exec taskset --cpu-list 0 \"$@\"";
    let elsewhere =
        ["--net", "--uts", "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nowhere"];
    let locale = ["LC_ALL=tr_TR.UTF-8", "TZ=Pacific/Kiritimati", "USER=somebody", "sh", "-c", script, "sh"];
    let head = [builder.as_str(), "--state-dir", &state, "rebuild", "--provenance", &bundle];
    let more = ["--builder-keys", &trusted, "--materials", &file, "--against", &first];
    let again = run("unshare", [&elsewhere[..], &locale, &head, &common, &more].concat());
    assert_eq!(again.code, 0, "{}\n{}", again.stdout, again.stderr);
    assert_eq!(again.json()["digest"], digest);
}
