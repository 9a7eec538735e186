//! A build that is repeated when the network gives something else: a newer version, an index that expired.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testing::{Site, SiteRequest, need, program, run};

use super::Bench;

/// The newest version by the index, as an unpinned install takes it.
const NEWEST: &str = r#"FROM python
RUN python3 - <<EOF
import urllib.request
get = lambda path: urllib.request.urlopen("http://site.example" + path).read()
newest = get("/simple/pandas/").decode()
open("/pandas", "wb").write(get("/packages/ab/pandas-%s-py3-none-any.whl" % newest))
EOF
"#;

#[test]
fn a_lock_replays_or_tells_what_has_drifted() {
    need!("runc", "mmdebstrap", "unshare");
    let version = |version: &'static str| {
        Site::saying(move |path, _| {
            let body = if path.starts_with("/simple/") { version } else { path };
            (200, Vec::new(), body.as_bytes().to_vec())
        })
    };
    let (bench, commit) = Bench::new(NEWEST);
    let (old, new) = (version("2.2.3"), version("2.3.0"));
    let first = bench.build_through(&old.proxy(), &commit, &[]).expect(0).json();
    let (bundle, lock) = (bench.text("bundle.json"), bench.source.path().join("Dockerfile.lock"));
    let out = lock.to_str().unwrap();
    let locked =
        run(program("countersign-builder"), ["lock", "--provenance", &bundle, "--out", out]).expect(0);
    assert!(
        locked.stdout.contains("1 base, 1 package, 0 only fetched; commit it as Dockerfile.lock"),
        "{}",
        locked.stdout
    );
    let text = std::fs::read_to_string(&lock).unwrap();
    assert!(text.contains("pkg:pypi/pandas@2.2.3?"), "{text}");

    // The Dockerfile moves by a line in the same commit: the record still answers.
    bench.source.write("Dockerfile", &NEWEST.replacen("FROM python\n", "FROM python\n# newest\n", 1));
    let commit = bench.source.commit("lock");
    let same = bench.build_through(&old.proxy(), &commit, &["--deny-drift"]).expect(0).json();
    assert_eq!((&same["locked"], &same["drift"]), (&true.into(), &serde_json::json!([])));
    let drifted = bench.build_through(&new.proxy(), &commit, &[]).expect(0).json();
    assert_eq!(drifted["drift"], serde_json::json!(["pypi/pandas 2.2.3 → 2.3.0"]));
    let denied = bench.build_through(&new.proxy(), &commit, &["--deny-drift"]).expect(1);
    assert!(denied.text().contains("pypi/pandas 2.2.3 → 2.3.0"), "{}", denied.text());
    drop((old, new));

    let replayed = bench.call("build", "state", &["--commit", &commit, "--locked"]).expect(0).json();
    assert_eq!(replayed["digest"], same["digest"]);
    assert_ne!(replayed["digest"], drifted["digest"]);
    assert_eq!(
        first["layers"][1]["diffId"], replayed["layers"][1]["diffId"],
        "the same package, the same layer"
    );
    // Where the materials are not, it says where they come from; without a lock, how one is made.
    let missing = bench.call("build", "elsewhere", &["--commit", &commit, "--locked"]).expect(4);
    assert!(missing.text().contains("materials import"), "{}", missing.text());
    std::fs::remove_file(&lock).unwrap();
    let commit = bench.source.commit("no lock");
    let missing = bench.call("build", "state", &["--commit", &commit, "--locked"]).expect(4);
    assert!(missing.text().contains("countersign-builder lock"), "{}", missing.text());
    bench.source.write("Dockerfile.lock", &text.replace("version = 2", "version = 7"));
    let commit = bench.source.commit("a lock of the future");
    bench.call("build", "state", &["--commit", &commit]).expect(3);
}

const EXPIRES: &str = r#"FROM python
RUN rm -r /etc/apt/sources.list* && echo 'deb [trusted=yes] http://apt.example/debian stable main' > /etc/apt/sources.list
RUN apt-get update && apt-get install -y tiny && grep tiny /usr/share/tiny
"#;

#[test]
fn an_index_that_expired_is_replayed_as_it_was() {
    need!("runc", "mmdebstrap", "unshare", "dpkg-deb");
    let (site, expiry) = apt_repository();
    let (bench, commit) = Bench::new(EXPIRES);
    let built = bench.build_through(&site.proxy(), &commit, &[]).expect(0).json();
    let packages = built["packages"].as_array().unwrap().iter();
    let of_build: Vec<_> = packages.filter(|it| it["from"] == "build").map(|it| &it["purl"]).collect();
    assert_eq!(of_build, ["pkg:deb/debian/tiny@1.0?arch=all"]);
    let left = expiry.get().unwrap().duration_since(SystemTime::now()).unwrap_or_default();
    std::thread::sleep(left + Duration::from_secs(1));

    let again = bench.rebuild_cut_off("state", &[]).expect(0).json();
    assert_eq!((&again["identical"], &again["online"]), (&true.into(), &false.into()), "{again}");
    // It is the recorded index, to the byte, that was read.
    let record = built["materials"]["record"].as_str().unwrap();
    bench.materials("state", &["verify", record]).expect(0);
    let read = bench.bodies("state", record).into_iter().map(|body| std::fs::read(body).unwrap());
    assert!(read.into_iter().any(|body| String::from_utf8_lossy(&body).contains("\nValid-Until: ")));
    // Where it could be attacked with, it is still too old.
    let online = bench.build_through(&site.proxy(), &commit, &[]).expect(5);
    assert!(online.text().contains("Release is expired"), "{}", online.text());
}

/// An apt repository with one package, and when its index expires: some seconds after it is first asked for.
fn apt_repository() -> (Site, Arc<OnceLock<SystemTime>>) {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("usr/share")).unwrap();
    std::fs::write(tree.join("usr/share/tiny"), "tiny\n").unwrap();
    let control = "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: Carol <carol@developers.example>\nDescription: small\n";
    std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let file = folder.path().join("tiny.deb");
    let pack = ["--root-owner-group", "--build", tree.to_str().unwrap(), file.to_str().unwrap()];
    run("dpkg-deb", pack).expect(0);
    let deb = std::fs::read(file).unwrap();
    let digest = |bytes: &[u8]| attestations::Digest::of(bytes).hex();
    let path = "pool/main/t/tiny/tiny_1.0_all.deb";
    let packages = format!("{control}Filename: {path}\nSize: {}\nSHA256: {}\n\n", deb.len(), digest(&deb));
    let written = |time: SystemTime| {
        let since = format!("--date=@{}", time.duration_since(UNIX_EPOCH).unwrap().as_secs());
        run("env", ["LC_ALL=C", "date", "--utc", &since, "+%a, %d %b %Y %H:%M:%S UTC"]).stdout
    };
    let expiry = Arc::new(OnceLock::new());
    let set = expiry.clone();
    let site = Site::answering(move |asked: &SiteRequest| match asked.path.strip_prefix("/debian/") {
        Some("dists/stable/Release") => {
            let until = *set.get_or_init(|| SystemTime::now() + Duration::from_secs(8));
            let mut text =
                format!("Suite: stable\nCodename: stable\nComponents: main\nDate: {}", written(UNIX_EPOCH));
            text += &format!("Valid-Until: {}Architectures: amd64 arm64\nSHA256:\n", written(until));
            for architecture in ["amd64", "arm64"] {
                let name = format!("main/binary-{architecture}/Packages");
                text += &format!(" {} {} {name}\n", digest(packages.as_bytes()), packages.len());
            }
            (200, Vec::new(), text.into_bytes())
        }
        Some(found) if found.ends_with("/Packages") => (200, Vec::new(), packages.clone().into_bytes()),
        Some(found) if found == path => (200, Vec::new(), deb.clone()),
        _ => (404, Vec::new(), Vec::new()),
    });
    (site, expiry)
}
