//! Which packages are in an image, and which only passed by: by what installers left in its layers.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use attestations::Bundle;
use attestations::provenance::{Inventory, Provenance};
use serde_json::Value;
use testing::{Repository, Site, builder, need, program, python_base, run};

/// A wheel with nothing in it but its name.
fn wheel(name: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.whl");
    let script = "import sys, zipfile\n\
                  out, name = sys.argv[1:]\n\
                  info = name.replace('-', '_') + '-1.0.dist-info/'\n\
                  with zipfile.ZipFile(out, 'w') as z:\n\
                  \x20   z.writestr(info + 'METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n')\n\
                  \x20   z.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
                  \x20   z.writestr(info + 'RECORD', '')\n";
    run("python3", ["-c", script, out.to_str().unwrap(), name]).expect(0);
    std::fs::read(out).unwrap()
}

fn index() -> (tempfile::TempDir, Site) {
    let folder = tempfile::tempdir().unwrap();
    let packages = folder.path().join("packages");
    std::fs::create_dir(&packages).unwrap();
    for name in ["kept", "copied", "removed", "tried"] {
        std::fs::write(packages.join(format!("{name}-1.0-py3-none-any.whl")), wheel(name)).unwrap();
    }
    std::fs::write(folder.path().join("model.tar.gz"), "weights").unwrap();
    let site = Site::of(folder.path());
    (folder, site)
}

struct Built {
    report: Value,
    provenance: Provenance,
    lock: String,
}

fn build(source: &Repository, proxy: &str) -> Built {
    let commit = source.commit("an algorithm");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    builder(["keygen", "--no-password", "--out", &path("ci")]).expect(0);
    let (base, repository) =
        (format!("python={}", python_base().display()), source.path().display().to_string());
    let (upstream, program) = (format!("http_proxy={proxy}"), program("countersign-builder"));
    let bundle = path("build.json");
    let arguments = [
        upstream.as_str(),
        "no_proxy=127.0.0.1",
        program.to_str().unwrap(),
        "--state-dir",
        &path("state"),
        "--json",
        "build",
        "--repo",
        &repository,
        "--commit",
        &commit,
        "--base",
        &base,
        "--key",
        &path("ci"),
        "--builder-id",
        "https://ci.example/",
        "--bundle-out",
        &bundle,
    ];
    let report = run("env", arguments).expect(0).json();
    let statement = Bundle::parse(&std::fs::read(&bundle).unwrap()).unwrap().statement_unverified().unwrap();
    let lock = builder(["lock", "--provenance", &bundle]).expect(0).stdout;
    Built { report, provenance: statement.into_provenance().unwrap().into_value(), lock }
}

const INSTALLS: &str = r#"FROM python AS tools
RUN pip install --no-deps --target /tools http://index.example/packages/copied-1.0-py3-none-any.whl
RUN mkdir -p /empty

FROM python
RUN pip install --no-deps http://index.example/packages/kept-1.0-py3-none-any.whl \
      http://index.example/packages/removed-1.0-py3-none-any.whl
RUN pip uninstall -y removed \
 && python3 -c 'import urllib.request as u; u.urlopen("http://index.example/packages/tried-1.0-py3-none-any.whl").read()'
COPY --from=tools /tools /opt/tools
COPY node_modules /app/node_modules
ADD http://index.example/model.tar.gz /srv/
RUN rm -r /app/node_modules/dropped
"#;

#[test]
fn what_is_in_the_image_is_told_from_what_passed_by() {
    need!("runc", "mmdebstrap", "python3");
    let (source, (_files, site)) = (Repository::new(), index());
    source.write("Dockerfile", INSTALLS);
    source.write("node_modules/left-pad/package.json", r#"{"name":"left-pad","version":"1.3.0"}"#);
    source.write("node_modules/dropped/package.json", r#"{"name":"dropped","version":"2.0.0"}"#);
    let built = build(&source, &site.proxy());

    let packages = built.report["packages"].as_array().unwrap();
    let of_build: BTreeMap<&str, &Value> = packages
        .iter()
        .filter(|it| it["from"] == "build")
        .map(|it| (it["purl"].as_str().unwrap(), it))
        .collect();
    let names: BTreeSet<&str> = of_build.keys().map(|purl| purl.split('?').next().unwrap()).collect();
    assert_eq!(
        names,
        BTreeSet::from([
            "pkg:generic/model.tar.gz",
            "pkg:npm/left-pad@1.3.0",
            "pkg:pypi/copied@1.0",
            "pkg:pypi/kept@1.0"
        ])
    );
    let one = |beginning: &str| of_build.iter().find(|(purl, _)| purl.starts_with(beginning)).unwrap().1;
    assert_eq!(one("pkg:generic/model.tar.gz")["records"], serde_json::json!(["srv/model.tar.gz"]));
    let copied = one("pkg:pypi/copied@1.0");
    assert_eq!(copied["records"], serde_json::json!(["opt/tools/copied-1.0.dist-info/METADATA"]));
    assert!(copied["sha256"].is_string(), "it came from another stage, which fetched it");
    assert!(one("pkg:npm/left-pad")["sha256"].is_null(), "it came with the commit");
    let fetched: Vec<&str> =
        built.report["fetched"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let names: Vec<&str> = fetched.iter().map(|purl| purl.split('?').next().unwrap()).collect();
    assert_eq!(names, ["pkg:pypi/removed@1.0", "pkg:pypi/tried@1.0"]);
    let of_base = packages.iter().filter(|it| it["from"] == "base");
    let of_base: Vec<&str> = of_base.map(|it| it["purl"].as_str().unwrap()).collect();
    assert!(of_base.iter().any(|purl| purl.starts_with("pkg:deb/debian/libc6@2.")), "{of_base:#?}");
    assert!(of_base.iter().all(|purl| !purl.starts_with("pkg:generic")), "{of_base:#?}");

    assert_eq!(built.provenance.build_definition.internal_parameters.inventory, Some(Inventory::Complete));
    let lock: toml::Table = built.lock.parse().unwrap();
    let locked = |table: &str| lock[table].as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(locked("packages"), of_build.keys().map(|purl| (*purl).to_owned()).collect());
    assert_eq!(locked("fetched"), fetched.iter().map(|purl| (*purl).to_owned()).collect());
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_named_in_the_provenance() {
    need!("runc", "mmdebstrap", "python3");
    let (source, (_files, site)) = (Repository::new(), index());
    source.write("Dockerfile", "FROM python\nCOPY node_modules /app/node_modules\n");
    source.write("node_modules/broken/package.json", "{");
    let built = build(&source, &site.proxy());
    let why = "app/node_modules/broken/package.json: it is not JSON";
    assert_eq!(built.report["unreadRecords"], serde_json::json!([why]));
    let inventory = built.provenance.build_definition.internal_parameters.inventory;
    assert_eq!(inventory, Some(Inventory::Incomplete { reasons: vec![why.to_owned()] }));
}
