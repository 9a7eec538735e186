//! Bills of materials, attached to an image and validated by other people's code against the published schemas.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use attestations::{Bundle, Predicate, Reference};
use testing::{Registry, Repository, Site, need, program, python_base, run};

/// The validators of the two formats' own projects, kept below `target`. None, recorded as a skip, when they cannot be installed.
fn validators() -> Option<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-validators");
    if !kept.join("complete").exists() {
        let folder = kept.to_str().unwrap();
        let packages = ["cyclonedx-python-lib[json-validation]", "spdx-tools", "packageurl-python"];
        let install = ["-m", "pip", "install", "--quiet", "--upgrade", "--target", folder];
        let installed = run("python3", [&install[..], &packages].concat());
        if installed.code != 0 {
            testing::skip(&format!("pip cannot install the validators: {}", installed.stderr));
            return None;
        }
        std::fs::write(kept.join("complete"), "").unwrap();
    }
    Some(kept)
}

const TAKES: &str = r#"FROM python
RUN python3 - <<EOF
import urllib.request
for path in (
    "packages/ab/typing_extensions-4.12.2-py3-none-any.whl",
    "debian/pool/main/g/gcc-12/libstdc%2b%2b6_12.2.0-14_amd64.deb",
    "@types/node/-/node-20.14.2.tgz",
    "github.com/!masterminds/semver/v3/@v/v3.2.1.zip",
    "maven2/org/apache/commons/commons-lang3/3.12.0/commons-lang3-3.12.0.jar",
    "conda-forge/linux-64/numpy-1.26.4-py311h64a7726_0.conda",
    "models/weights%20v2.tar.xz?signature=secret",
):
    urllib.request.urlopen("http://site.example/" + path).read()
EOF
"#;

#[test]
fn attached_bills_are_valid_and_name_every_package() {
    need!("runc", "mmdebstrap", "docker-registry", "python3");
    let Some(validators) = validators() else { return };
    let (site, registry, source) = (Site::start(), Registry::start(), Repository::new());
    source.write("Dockerfile", TAKES);
    let commit = source.commit("takes packages");
    let work = tempfile::tempdir().unwrap();
    let text = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    let builder = program("countersign-builder").display().to_string();
    run(&builder, ["keygen", "--no-password", "--out", &text("key.pem")]).expect(0);
    let push = format!("{}:1", registry.name("test/bills"));
    let (proxy, base) =
        (format!("http_proxy={}", site.proxy()), format!("python={}", python_base().display()));
    let (state, repository, key) = (text("state"), source.path().display().to_string(), text("key.pem"));
    let build = [
        "--state-dir",
        &state,
        "--json",
        "build",
        "--repo",
        &repository,
        "--commit",
        &commit,
        "--base",
        &base,
    ];
    let sign = ["--key", &key, "--builder-id", "https://ci.example/", "--push", &push, "--sbom"];
    let environment = [proxy.as_str(), "no_proxy=127.0.0.1", &builder];
    let built = run("env", [&environment[..], &build, &sign].concat()).expect(0).json();
    let fetched: Vec<&str> =
        built["fetched"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(fetched.len(), 7, "{fetched:#?}");
    let installed = built["packages"].as_array().unwrap().iter().map(|it| it["purl"].as_str().unwrap());
    let purls: Vec<&str> = fetched.iter().copied().chain(installed).collect();
    assert!(
        purls.iter().any(|purl| purl.starts_with("pkg:deb/debian/libc6@")),
        "the base's are named: {purls:#?}"
    );

    let pinned = push.parse::<Reference>().unwrap();
    let pinned = pinned.pin(built["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = images::registry::Client::new([]);
    let attached = runtime.block_on(client.attachments(&pinned)).unwrap();
    let mut bills = Vec::new();
    for attachment in &attached.bundles {
        let statement =
            Bundle::parse(&attachment.bytes).unwrap().statement_unverified().unwrap().into_value();
        assert_eq!(statement.subject[0].sha256().as_ref(), Some(pinned.digest()));
        if let Predicate::Other { predicate_type, value } = statement.predicate {
            bills.push((predicate_type, value.to_string()));
        }
    }
    bills.sort();
    let [(cyclonedx, first), (spdx, second)] = &bills[..] else { panic!("{bills:?}") };
    assert_eq!(
        (cyclonedx.as_str(), spdx.as_str()),
        ("https://cyclonedx.org/bom/v1.6", "https://spdx.dev/Document/v2.3")
    );
    for (name, bytes) in [("bill.spdx.json", second), ("bill.cdx.json", first), ("purls", &purls.join("\n"))]
    {
        std::fs::write(work.path().join(name), bytes).unwrap();
        assert!(purls.iter().all(|purl| bytes.contains(purl)), "{name} lacks one of {purls:#?}");
        assert!(!bytes.contains("signature=secret"), "{name}");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("validate-bills.py");
    let path = format!("PYTHONPATH={}", validators.display());
    let (spdx, cyclonedx, purls) = (text("bill.spdx.json"), text("bill.cdx.json"), text("purls"));
    let judged = run("env", [&path, "python3", script.to_str().unwrap(), &spdx, &cyclonedx, &purls]);
    assert_eq!((judged.code, judged.stdout.trim()), (0, "valid"), "{}", judged.stderr);
}
