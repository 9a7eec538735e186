//! What a policy asks of materials, held against what a real build names: the builder's words are those that the node reads.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Outcome, Repository, Site, builder, need, program, python_base, run, runner, unmet};

/// Takes two packages from an index of the test's own, one of them by a name that no purl has.
const TAKES: &str = r#"FROM python
RUN python3 - <<EOF
import urllib.request
for file in ("Zope.Interface-6.1-py3-none-any.whl", "requests-2.31.0-py3-none-any.whl"):
    urllib.request.urlopen("http://index.example/packages/" + file).read()
open("/taken", "w").close()
EOF
"#;

#[test]
fn what_a_build_took_from_the_network_decides() {
    need!("runc", "mmdebstrap");
    let (site, source, base) = (Site::start(), Repository::new(), python_base());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    source.write("Dockerfile", TAKES);
    let commit = source.commit("an algorithm");
    for who in ["ci", "alice"] {
        builder(["keygen", "--no-password", "--out", &path(who)]).expect(0);
    }
    let [state, ci, alice, evidence] = ["state", "ci", "alice", "evidence"].map(path);
    let [review, build] = ["evidence/review.json", "evidence/build.json"].map(path);
    std::fs::create_dir(&evidence).unwrap();
    let (repository, base) = (source.path().display().to_string(), format!("python={}", base.display()));
    let common = ["--repo", &repository, "--commit", &commit];
    let sign =
        ["--state-dir", &state, "review", "sign", "--name", "Alice", "--email", "alice@reviewers.example"];
    builder([&sign[..], &common, &["--key", &alice, "--out", &review]].concat()).expect(0);
    let (upstream, itself) = (format!("http_proxy={}", site.proxy()), program("countersign-builder"));
    let around = [&upstream, "no_proxy=127.0.0.1", itself.to_str().unwrap(), "--state-dir", &state];
    let signed = ["--key", &ci, "--builder-id", "https://ci.example/", "--bundle-out", &build];
    let arguments = [&around[..], &["--json", "build", "--base", &base], &common, &signed].concat();
    let built = run("env", arguments).expect(0).json();
    let image = format!("registry.example/taken@{}", built["digest"].as_str().unwrap());

    let key = |who: &str| std::fs::read_to_string(path(&format!("{who}.pub"))).unwrap();
    let policy = format!(
        "version = 1\n[people.alice]\nname = \"Alice\"\nemails = [\"alice@reviewers.example\"]\nkeys = ['''{}''']\n\
         [builders.ci]\nid = \"https://ci.example/\"\noperator = \"ci\"\nkeys = ['''{}''']\n\
         [[algorithm]]\nname = \"registry.example/taken\"\nsource = \"any\"\nbases = \"any\"\nfunctions = \"any\"\n\
         reviews = {{ threshold = 1, from = [\"alice\"] }}\n\
         builds = {{ threshold = 1, from = [\"ci\"], failed_rebuild = \"veto\" }}\n\
         parameters = {{ bases = \"any\" }}\n",
        key("alice"),
        key("ci")
    );
    let verify = |materials: &str| -> Outcome {
        std::fs::write(path("policy.toml"), format!("{policy}[algorithm.materials]\n{materials}")).unwrap();
        runner([
            "--policy",
            &path("policy.toml"),
            "--json",
            "verify",
            &image,
            "--offline",
            "--evidence",
            &evidence,
        ])
    };
    verify(
        "complete = true\nhosts = ['index.example']\nrequire = ['pkg:deb/debian/python3@*']\n\
         forbid = ['pkg:pypi/requests@*', 'pkg:npm/**@*']\nforbid_fetched = ['pkg:pypi/urllib3@*']",
    )
    .expect(0);
    for (materials, told) in [
        ("complete = true\nhosts = ['*.index.example']", "found index.example (step 0#1)"),
        (
            "complete = true\nhosts = 'any'\nforbid_fetched = ['pkg:pypi/requests@*']",
            "found pkg:pypi/requests@2.31.0, which pkg:pypi/requests@* forbids (step 0#1)",
        ),
        (
            "complete = true\nhosts = 'any'\nforbid_fetched = ['pkg:pypi/zope.interface@6.*']",
            "found pkg:pypi/zope-interface@6.1, which pkg:pypi/zope-interface@6.* forbids (step 0#1)",
        ),
        (
            "complete = false\nhosts = 'any'\nforbid = ['pkg:deb/*/python3@*']",
            "which pkg:deb/*/python3@* forbids",
        ),
        (
            "complete = true\nhosts = 'any'\nrequire = ['pkg:pypi/zope-interface@*']",
            "found nothing that matches pkg:pypi/zope-interface@*",
        ),
    ] {
        let denied = unmet(&verify(materials).expect(1));
        assert!(denied.iter().any(|it| it.contains(told)), "{materials}: {denied:#?}");
    }
}
