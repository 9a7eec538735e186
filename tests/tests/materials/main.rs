//! What a build took from the network: kept, replayed without one, sent along, and never quietly changed. Real package
//! tools against servers of these tests' own and, where they can be reached, the real registries.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod confirm;
mod later;

use std::path::{Path, PathBuf};

use testing::{Registry, Repository, Site, flip_a_byte, need, program, python_base, run};

/// A repository, a base with Python, and the state directories of two builders.
struct Bench {
    source: Repository,
    folder: tempfile::TempDir,
    base: PathBuf,
}

impl Bench {
    fn new(dockerfile: &str) -> (Bench, String) {
        let bench =
            Bench { source: Repository::new(), folder: tempfile::tempdir().unwrap(), base: python_base() };
        bench.source.write("Dockerfile", dockerfile);
        let commit = bench.source.commit("an algorithm");
        run(program("countersign-builder"), ["keygen", "--no-password", "--out", &bench.text("key.pem")])
            .expect(0);
        (bench, commit)
    }

    fn text(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn common(&self, state: &str) -> Vec<String> {
        let base = format!("python={}", self.base.display());
        let source = self.source.path().display().to_string();
        ["--state-dir", &self.text(state), "--json", "--repo", &source, "--base", &base]
            .map(str::to_owned)
            .into()
    }

    /// `build` or `rebuild` with the common options.
    fn call(&self, verb: &str, state: &str, more: &[&str]) -> testing::Outcome {
        let mut arguments = self.common(state);
        arguments.insert(3, verb.to_owned());
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        run(program("countersign-builder"), arguments)
    }

    /// Repeats the build in a network namespace that holds nothing, not even a loopback that is up: a rebuild that
    /// needed any network would fail.
    fn rebuild_cut_off(&self, state: &str, more: &[&str]) -> testing::Outcome {
        let (trusted, bundle) = (self.text("key.pem.pub"), self.text("bundle.json"));
        let mut arguments: Vec<String> = ["--net", "--"].map(str::to_owned).into();
        arguments.push(program("countersign-builder").display().to_string());
        let mut own = self.common(state);
        own.insert(3, "rebuild".to_owned());
        arguments.extend(own);
        arguments.extend(["--provenance", &bundle, "--builder-keys", &trusted].map(str::to_owned));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        run("unshare", arguments)
    }

    fn materials(&self, state: &str, arguments: &[&str]) -> testing::Outcome {
        let state = self.text(state);
        run(
            program("countersign-builder"),
            [&["--state-dir", &state, "--json", "materials"], arguments].concat(),
        )
    }

    fn blobs(&self, state: &str) -> PathBuf {
        Path::new(&self.text(state)).join("materials/blobs/sha256")
    }
}

/// Asks a site of the test's own, by a name that leads to it, twice for what changes each time.
const ASKS: &str = r#"FROM python
RUN python3 - <<EOF
import urllib.request
with open("/taken", "w") as out:
    for path in ("count", "count", "same", "same"):
        answer = urllib.request.urlopen("http://site.example/" + path)
        out.write(str(dict(answer.headers)) + answer.read().decode() + "\n")
EOF
"#;

#[test]
fn a_build_is_repeated_with_the_network_cut() {
    need!("runc", "mmdebstrap", "unshare");
    let site = Site::start();
    let (bench, commit) = Bench::new(ASKS);
    let proxy = site.proxy();
    let built = bench.build_through(&proxy, &commit, &[]).expect(0).json();
    assert_eq!(built["exchanges"], 4, "{built}");
    assert_eq!(built["materials"]["bodies"], 3, "the same body is kept once: {built}");
    drop(site);

    let again = bench.rebuild_cut_off("state", &[]).expect(0).json();
    assert_eq!((&again["identical"], &again["online"]), (&true.into(), &false.into()), "{again}");
    assert_eq!(again["exchanges"], 4);
    // The cut is real: the same rebuild that asks the servers fails in there.
    let online = bench.rebuild_cut_off("state", &["--online"]);
    assert_ne!(online.code, 0, "{}", online.text());

    // Elsewhere, from one file.
    let missing = bench.rebuild_cut_off("elsewhere", &[]).expect(4);
    assert!(missing.text().contains("--materials FILE"), "{}", missing.text());
    let digest = built["digest"].as_str().unwrap();
    let file = bench.text("materials.tar");
    bench.materials("state", &["export", digest, "--out", &file]).expect(0);
    bench.rebuild_cut_off("elsewhere", &["--materials", &file]).expect(0);
    let listed = run("tar", ["--list", "--file", &file]).expect(0);
    assert!(listed.stdout.starts_with("oci-layout\nindex.json\nblobs/sha256/"), "{}", listed.stdout);

    // `build --replay` gives the same image without a signed word about it.
    let replayed = bench.call("build", "state", &["--commit", &commit, "--replay", digest]).expect(0).json();
    assert_eq!(replayed["digest"], built["digest"]);

    // What is damaged or missing is found, and importing mends it.
    let record = built["materials"]["record"].as_str().unwrap().to_owned();
    let bodies: Vec<PathBuf> = bench.bodies("elsewhere", &record);
    assert_eq!(bodies.len(), 3);
    flip_a_byte(&bodies[0]);
    std::fs::remove_file(&bodies[1]).unwrap();
    bench.materials("elsewhere", &["verify"]).expect(3);
    bench.materials("elsewhere", &["import", &file]).expect(0);
    bench.materials("elsewhere", &["verify"]).expect(0);
    bench.rebuild_cut_off("elsewhere", &[]).expect(0);
}

/// One thing that can be wrong in a store: what it does to a blob (and another of the same length), and the exit code.
type Damage = (&'static str, fn(&Path, &Path), i32);

const DAMAGES: &[Damage] = &[
    ("a changed byte", |blob, _| flip_a_byte(blob), 3),
    ("a missing byte", |blob, _| change(blob, |bytes| bytes.truncate(bytes.len() - 1)), 3),
    ("an extra byte", |blob, _| change(blob, |bytes| bytes.push(b'\n')), 3),
    ("no byte", |blob, _| change(blob, Vec::clear), 3),
    ("no file", |blob, _| std::fs::remove_file(blob).unwrap(), 4),
    ("the other's bytes", |blob, other| _ = std::fs::copy(other, blob).unwrap(), 3),
    (
        "a link to the other",
        |blob, other| {
            std::fs::remove_file(blob).unwrap();
            std::os::unix::fs::symlink(other, blob).unwrap();
        },
        3,
    ),
];

fn change(blob: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(blob).unwrap();
    how(&mut bytes);
    std::fs::write(blob, bytes).unwrap();
}

#[test]
fn whatever_is_wrong_in_the_store_is_found_before_it_is_used() {
    need!("runc", "mmdebstrap", "unshare");
    let site = Site::start();
    let (bench, commit) = Bench::new(ASKS);
    let built = bench.build_through(&site.proxy(), &commit, &[]).expect(0).json();
    drop(site);
    let record = built["materials"]["record"].as_str().unwrap().to_owned();
    let record_file = bench.blobs("state").join(&record[7..]);
    // Two answers of one length: swapped, they differ in nothing but what they are.
    let counts = bench.bodies("state", &record);
    let counts: Vec<&PathBuf> =
        counts.iter().filter(|it| std::fs::read(it).unwrap().starts_with(b"/count")).collect();
    let [one, other] = counts[..] else { panic!("{counts:?}") };
    for (name, damage, code) in DAMAGES {
        for blob in [one, &record_file] {
            let honest = std::fs::read(blob).unwrap();
            damage(blob, other);
            let hex = blob.file_name().unwrap().to_str().unwrap();
            let refused = bench.rebuild_cut_off("state", &[]);
            assert_eq!(refused.code, *code, "{name}: {}", refused.text());
            assert!(refused.text().contains(hex), "{name} in {hex}: {}", refused.text());
            let verified = bench.materials("state", &["verify"]);
            assert!(
                [3, 4].contains(&verified.code) && verified.text().contains(hex),
                "{name}: {}",
                verified.text()
            );
            let _ = std::fs::remove_file(blob);
            std::fs::write(blob, honest).unwrap();
        }
    }
    bench.materials("state", &["verify"]).expect(0);
    bench.rebuild_cut_off("state", &[]).expect(0);
}

#[test]
fn a_request_that_was_not_recorded_fails_the_rebuild_with_what_is_nearest() {
    need!("runc", "mmdebstrap", "unshare");
    let site = Site::start();
    // The step asks by a random name, and does not mind what comes.
    let (bench, commit) = Bench::new(
        "FROM python\nRUN python3 -c \"import urllib.request, random; urllib.request.urlopen('http://site.example/same?' + str(random.getrandbits(64)))\" || true\n",
    );
    bench.build_through(&site.proxy(), &commit, &[]).expect(0);
    let refused = bench.rebuild_cut_off("state", &[]).expect(5);
    let error = refused.json();
    let text = error.to_string();
    assert!(error["message"].to_string().contains("line 2"), "{text}");
    assert!(text.contains("not in the record") && text.contains("GET http://site.example/same?"), "{text}");
    assert!(text.contains("the nearest that was recorded: GET http://site.example/same?"), "{text}");
}

#[test]
fn materials_travel_with_the_image_and_are_let_go_by_age() {
    need!("runc", "mmdebstrap", "docker-registry", "unshare");
    let (site, registry) = (Site::start(), Registry::start());
    let (bench, commit) = Bench::new(ASKS);
    let image = registry.name("test/asks");
    let push = format!("{image}:1");
    let built = bench.build_through(&site.proxy(), &commit, &["--push", &push]).expect(0).json();
    drop(site);
    let record = built["materials"]["record"].as_str().unwrap();

    // Another machine has nothing but the reference.
    let (trusted, reference) = (bench.text("key.pem.pub"), push.as_str());
    let rebuilt = bench.call("rebuild", "auditor", &[reference, "--builder-keys", &trusted]).expect(0).json();
    assert_eq!((&rebuilt["identical"], &rebuilt["exchanges"]), (&true.into(), &4.into()));
    let pulled = bench.materials("third", &["pull", reference]).expect(0).json();
    assert_eq!(pulled["materials"][0]["record"], record);
    let shown = bench.materials("third", &["show", record]).expect(0).json();
    assert_eq!(shown["record"]["steps"][0]["exchanges"][1]["request"]["url"], "http://site.example/count");

    // A record that lost a blob in the registry is not taken for whole.
    let body = bench.bodies("third", record).remove(0);
    flip_a_byte(&registry.blob(&format!("sha256:{}", body.file_name().unwrap().to_str().unwrap())));
    let broken = bench.materials("fourth", &["pull", reference]);
    assert_eq!(broken.code, 3, "{}", broken.text());
    assert!(
        bench.materials("fourth", &["list"]).expect(0).json()["materials"].as_array().unwrap().is_empty()
    );

    // Nothing of a living build goes; by age everything does.
    let kept = bench.materials("state", &["gc"]).expect(0).json();
    assert_eq!(kept["builds"].as_array().unwrap().len(), 0, "{kept}");
    bench.materials("state", &["verify", record]).expect(0);
    let would = bench.materials("state", &["gc", "--older-than", "0", "--dry-run"]).expect(0).json();
    assert_eq!(would["builds"].as_array().unwrap().len(), 1, "{would}");
    bench.materials("state", &["gc", "--older-than", "0"]).expect(0);
    assert_eq!(std::fs::read_dir(bench.blobs("state")).unwrap().count(), 0);
    bench.materials("state", &["show", record]).expect(4);

    // Without keeping there is nothing to repeat by, and the rebuild says so.
    bench.build_through(&Site::start().proxy(), &commit, &["--no-keep"]).expect(0);
    let refused = bench.rebuild_cut_off("state", &[]).expect(4);
    assert!(refused.text().contains("--online"), "{}", refused.text());
}

impl Bench {
    fn confirm(&self, proxy: &str, digest: &str) -> testing::Outcome {
        let (state, builder) = (self.text("state"), program("countersign-builder").display().to_string());
        let proxy = format!("http_proxy={proxy}");
        let words = [&proxy, &builder, "--state-dir", &state, "--json", "materials", "confirm", digest];
        run("env", words)
    }

    /// A build whose upstream is reached through a plain proxy, which leads every name to the test's own site.
    fn build_through(&self, proxy: &str, commit: &str, more: &[&str]) -> testing::Outcome {
        let (key, out) = (self.text("key.pem"), self.text("bundle.json"));
        let mut arguments = vec![format!("http_proxy={proxy}"), "no_proxy=127.0.0.1".to_owned()];
        arguments.push(program("countersign-builder").display().to_string());
        let mut own = self.common("state");
        own.insert(3, "build".to_owned());
        arguments.extend(own);
        let signing =
            ["--commit", commit, "--key", &key, "--builder-id", "https://ci.example/", "--bundle-out", &out];
        arguments.extend(signing.iter().chain(more).map(|word| (*word).to_owned()));
        run("env", arguments)
    }

    /// The bodies of a record, in the store of `state`.
    fn bodies(&self, state: &str, record: &str) -> Vec<PathBuf> {
        let shown = self.materials(state, &["show", record]).expect(0).json();
        let mut found: Vec<PathBuf> = shown["record"]["steps"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|step| step["exchanges"].as_array().unwrap())
            .map(|one| self.blobs(state).join(&one["response"]["body"].as_str().unwrap()[7..]))
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// Killed at any moment, a build leaves a store in which every named blob is what its name says, and the next one works.
#[test]
fn killed_builds_leave_a_valid_store_and_two_at_once_share_it() {
    need!("runc", "mmdebstrap", "unshare", "timeout");
    let site = Site::saying(|path, _| {
        std::thread::sleep(std::time::Duration::from_millis(3));
        (200, Vec::new(), path.repeat(20_000).into_bytes())
    });
    let many = r#"FROM python
RUN python3 -c "import urllib.request as u; [u.urlopen('http://site.example/%d' % (n % 150)).read() for n in range(300)]"
"#;
    let (bench, commit) = Bench::new(many);
    bench.build_through(&site.proxy(), &commit, &["--no-keep"]).expect(0);
    for tenths in [8, 11, 14, 17, 20, 23] {
        let (key, out) = (bench.text("key.pem"), bench.text("killed.json"));
        let builder = program("countersign-builder").display().to_string();
        let proxy = format!("http_proxy={}", site.proxy());
        let mut own = bench.common("state");
        own.insert(3, "build".to_owned());
        let limit = format!("{}.{}", tenths / 10, tenths % 10);
        let kill = ["--signal", "KILL", &limit, "env", &proxy, "no_proxy=127.0.0.1", &builder];
        let more =
            ["--commit", &commit, "--key", &key, "--builder-id", "https://ci.example/", "--bundle-out", &out];
        let mut arguments: Vec<String> = kill.map(str::to_owned).into();
        arguments.extend(own.into_iter().chain(more.map(str::to_owned)));
        run("timeout", arguments);
        bench.materials("state", &["verify"]).expect(0);
        for entry in std::fs::read_dir(bench.blobs("state")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !name.starts_with('.') {
                assert_eq!(
                    attestations::Digest::of(&std::fs::read(&path).unwrap()).hex(),
                    name,
                    "after {limit} s"
                );
            }
        }
    }
    std::thread::scope(|scope| {
        let both = [(), ()]
            .map(|()| scope.spawn(|| bench.build_through(&site.proxy(), &commit, &[]).expect(0).json()));
        let [one, other] = both.map(|build| build.join().unwrap());
        assert_eq!(one["digest"], other["digest"]);
        assert_eq!(one["materials"]["bodies"], 150);
    });
    bench.materials("state", &["verify"]).expect(0);
    bench.materials("state", &["gc"]).expect(0);
    drop(site);
    bench.rebuild_cut_off("state", &[]).expect(0);
}
