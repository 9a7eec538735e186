//! Steps of a rebuild do not wait for each other, and nobody can tell from the image: what ran ahead on layers that nothing came to
//! does not count.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Bench, Events, Site, SiteRequest, has_one_processor, need, program, run};

/// What one builder made of a Dockerfile, and its commit.
fn built(bench: &Bench, site: &Site, dockerfile: &str, more: &[&str]) -> (String, String) {
    let commit = bench.dockerfile(dockerfile);
    let built = bench.build(&site.proxy(), &commit, more).expect(0).json();
    (commit, built["digest"].as_str().unwrap().to_owned())
}

const STEPS: &str = "FROM base:1
RUN sleep 2 && echo 1 >/one
COPY Dockerfile /copied
RUN cat /one /copied >/two && sleep 1
USER 7
RUN cat /two
RUN id -u
";

#[test]
fn commands_run_beside_those_before_them() {
    need!("runc", "unshare", "taskset");
    let (bench, site) = (Bench::new(), Site::start());
    let (commit, digest) = built(&bench, &site, STEPS, &["--oci", &bench.text("layout")]);
    let again = bench.replay(&commit, &digest, &[]).expect(0);
    assert_eq!(again.json()["digest"], digest.as_str());
    let layout = bench.text("layout");
    let rebuilt = bench.rebuild_cut_off(&["--against", &layout]).expect(0);
    assert_eq!(rebuilt.json()["identical"], true);
    if !has_one_processor() {
        for events in [Events::of(&again), Events::of(&rebuilt)] {
            assert!(events.before("step", 4) < events.before("step-done", 2));
            assert!(events.before("step-done", 2) < events.before("step", 3), "a COPY is not worth it");
            assert!([2, 4, 6, 7].iter().all(|line| events.count("step", *line) == 1));
        }
    }
    // What is in the image is not known from its digest alone.
    let blobs = bench.path("state/images/blobs/sha256");
    std::fs::remove_file(blobs.join(&digest["sha256:".len()..])).unwrap();
    let again = bench.replay(&commit, &digest, &[]).expect(0);
    assert_eq!(again.json()["digest"], digest.as_str());
    let events = Events::of(&again);
    assert!(events.before("step-done", 2) < events.before("step", 4));
    // Nor is a processor idle where there is one.
    let builder = program("countersign-builder").display().to_string();
    let words = bench.replay_words(&commit, &digest, &[]);
    let alone = run("taskset", ["-c".into(), "0".into(), builder].into_iter().chain(words)).expect(0);
    assert_eq!(alone.json()["digest"], digest.as_str());
    let events = Events::of(&alone);
    assert!(events.before("step-done", 2) < events.before("step", 4));
}

/// The first step comes to something else each time, and the second one tells what it stood on.
const DIFFERS: &str = "FROM base:1
RUN cat /proc/sys/kernel/random/uuid >/one && sleep 2
RUN wget -q -O - http://site.example/count >/two && wget -q -O - http://site.example/count >>/two && cat /one >>/two
RUN cat /two >/three
";

#[test]
fn what_stood_on_layers_that_nothing_came_to_is_done_again() {
    need!("runc", "unshare");
    let (bench, site) = (Bench::new(), Site::start());
    let first = format!("type=local,dest={}", bench.text("first"));
    let (commit, digest) = built(&bench, &site, DIFFERS, &["--output", &first]);
    let second = format!("type=local,dest={}", bench.text("second"));
    let again = bench.replay(&commit, &digest, &["--output", &second]).expect(0);
    assert_ne!(again.json()["digest"], digest.as_str());
    let read = |name: &str| std::fs::read_to_string(bench.path(name)).unwrap();
    let (one, two) = (read("second/one"), read("second/two"));
    assert_ne!(one, read("first/one"));
    // Asked again, it is answered from the beginning; and nothing of what was foretold is left.
    assert_eq!(two, format!("/count 0/count 1{one}"));
    assert_eq!(read("second/three"), two);
    let rebuilt = bench.rebuild_cut_off(&[]).expect(1);
    assert_eq!(rebuilt.json()["identical"], false);
    if !has_one_processor() {
        for events in [Events::of(&again), Events::of(&rebuilt)] {
            assert_eq!([events.count("step", 3), events.count("step-dropped", 3)], [2, 1]);
            assert_eq!(events.count("step-dropped", 2), 0);
        }
    }
}

const SECRET: &str = "FROM base:1
RUN sleep 2 && echo 1 >/one
RUN --mount=type=secret,id=token test -e /run/secrets/token && cat /one >/two
RUN echo 3 >/three
";

#[test]
fn a_secret_is_told_to_nothing_that_runs_ahead() {
    need!("runc");
    let (bench, site) = (Bench::new(), Site::start());
    std::fs::write(bench.path("token"), "a secret of some length").unwrap();
    let secret = format!("--secret=id=token,src={}", bench.text("token"));
    let (commit, digest) = built(&bench, &site, SECRET, &[&secret]);
    let again = bench.replay(&commit, &digest, &[&secret]).expect(0);
    assert_eq!(again.json()["digest"], digest.as_str());
    let events = Events::of(&again);
    assert!(events.before("step-done", 2) < events.before("step", 3));
    if !has_one_processor() {
        assert!(events.before("step", 4) < events.before("step-done", 2));
    }
}

/// What a command writes into the files that are mounted over the image's is in no layer.
const WRITES: &str = "FROM base:1
RUN cat /etc/resolv.conf /etc/hosts /etc/hostname >/before && sha256sum /dev/countersign-* && sleep 2
RUN for file in /etc/resolv.conf /etc/hosts /etc/hostname /dev/countersign-ca.pem /dev/countersign-ca.jks /dev/countersign-apt.conf; do echo '1.2.3.4 written' >>$file || exit 1; done; grep -c written /etc/hosts /etc/hostname && echo 1 >/wrote
RUN ! grep written /dev/countersign-* && cat /etc/resolv.conf /etc/hosts /etc/hostname >/after && cmp /before /after && sha256sum /dev/countersign-*
RUN ! head -c 4000000 /dev/zero >>/etc/hosts
";

#[test]
fn what_a_step_writes_into_mounted_files_reaches_no_other() {
    need!("runc");
    let (bench, site) = (Bench::new(), Site::start());
    let commit = bench.dockerfile(WRITES);
    let first = bench.build(&site.proxy(), &commit, &["--progress", "json"]).expect(0);
    let digest = first.json()["digest"].as_str().unwrap().to_owned();
    let ahead = bench.replay(&commit, &digest, &["--progress", "json"]).expect(0);
    assert_eq!(ahead.json()["digest"], digest.as_str());
    for built in [&first, &ahead] {
        let lines =
            built.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let sums: Vec<String> = lines
            .filter_map(|event| Some(event["text"].as_str()?.to_owned()))
            .filter(|text| text.contains("/dev/countersign-"))
            .collect();
        assert_eq!(sums.len(), 6, "{}", built.stderr);
        let (before, after) = sums.split_at(3);
        let sorted = |sums: &[String]| std::collections::BTreeSet::from_iter(sums.to_vec());
        // Steps that run at the same time may print in any order.
        assert_eq!(sorted(before), sorted(after), "{}", built.stderr);
    }
}

const FAILS: &str = "FROM base:1
RUN sleep 2 && echo 1 >/one
RUN wget -q -O - \"http://site.example/$(cat /proc/sys/kernel/random/uuid)\" >/dev/null; echo 2 >/two
RUN echo 3 >/three
";

#[test]
fn what_fails_ahead_fails_the_build_once_its_turn_has_come() {
    need!("runc");
    let (bench, site) = (Bench::new(), Site::start());
    let (commit, digest) = built(&bench, &site, FAILS, &[]);
    let failed = bench.replay(&commit, &digest, &[]).expect(5);
    assert!(
        failed.text().contains("line 3") && failed.text().contains("not in the record"),
        "{}",
        failed.text()
    );
    let events = Events::of(&failed);
    assert_eq!([events.count("step", 3), events.count("step-failed", 3)], [1, 1]);
    assert_eq!(events.count("step-done", 2), 1, "the step before it is done all the same");
}

/// The file `app` is the commit's; all else is as it was.
const LIKE: &str = "FROM base:1
RUN sleep 3 && echo 1 >/one
RUN wget -q -O - http://site.example/same >/two && cat /one >>/two
COPY app /app
RUN cat /two /app >/three && sleep 1
RUN cat /three >/four
";

#[test]
fn a_build_like_the_one_before_does_not_wait_for_what_stayed_the_same() {
    need!("runc");
    let (bench, site) = (Bench::new(), Site::start());
    bench.source.write("app", "old");
    let (_, before) = built(&bench, &site, LIKE, &[]);
    bench.source.write("app", "new");
    let commit = bench.source.commit_later("another app");
    let output = format!("type=local,dest={}", bench.text("root"));
    let again = bench.build(&site.proxy(), &commit, &["--like", &before, "--output", &output]).expect(0);
    assert_eq!(std::fs::read_to_string(bench.path("root/four")).unwrap(), "/same1\nnew");
    let plain = bench.build(&site.proxy(), &commit, &[]).expect(0);
    for field in ["digest", "exchanges"] {
        assert_eq!(again.json()[field], plain.json()[field]);
    }
    bench.rebuild_cut_off(&[]).expect(0);
    if !has_one_processor() {
        let events = Events::of(&again);
        assert!(events.before("step", 3) < events.before("step-done", 2));
        // It stands on the new file already, and what stands on what it makes of that cannot be known.
        assert!(events.before("step", 5) < events.before("step-done", 2));
        assert!(events.before("step-done", 5) < events.before("step", 6));
        assert!([2, 3, 5, 6].iter().all(|line| events.count("step", *line) == 1));
        assert_eq!(events.count("step-dropped", 6), 0, "it was not begun");
    }
    let missing = bench.build(&site.proxy(), &commit, &["--like", &format!("sha256:{}", "0".repeat(64))]);
    assert!(missing.expect(4).text().contains("--like takes the digest of an image"));
}

#[test]
fn a_locked_build_does_not_wait_for_what_its_record_was_kept_for() {
    need!("runc");
    let (bench, site) = (Bench::new(), Site::start());
    bench.source.write("app", "old");
    let dockerfile = "FROM base:1
RUN wget -q -O - http://site.example/count >/one && wget -q -O - http://site.example/count >>/one && sleep 3
RUN wget -q -O - http://site.example/same >/two && cat /one >>/two
COPY app /app
RUN cat /two /app >/three
";
    built(&bench, &site, dockerfile, &[]);
    let lock = bench.source.path().join("Dockerfile.lock").display().to_string();
    let bundle = bench.text("bundle.json");
    run(program("countersign-builder"), ["lock", "--provenance", &bundle, "--out", &lock]).expect(0);
    // All lines move down, the file is another, and the network is cut.
    bench.source.write("app", "new");
    bench.source.write("Dockerfile", &dockerfile.replacen("RUN", "# moved\nRUN", 1));
    let commit = bench.source.commit_later("another app, and a lock");
    drop(site);
    let output = format!("type=local,dest={}", bench.text("root"));
    let locked = bench.locked(&commit, &["--output", &output]).expect(0);
    let three = std::fs::read_to_string(bench.path("root/three")).unwrap();
    assert_eq!(three, "/same/count 0/count 1new");
    if !has_one_processor() {
        let events = Events::of(&locked);
        assert!(events.before("step", 4) < events.before("step-done", 3));
        assert!(events.before("step", 6) < events.before("step-done", 3));
        assert!([3, 4, 6].iter().all(|line| events.count("step", *line) == 1));
    }
}

#[test]
fn a_command_that_the_network_makes_another_takes_what_stood_on_it_along() {
    need!("runc");
    let (bench, site) = (Bench::new(), Site::start());
    let dockerfile = "FROM base:1
RUN wget -q -O - http://site.example/count >/one && sleep 2
RUN wget -q -O - http://site.example/same >/two && cat /one >>/two && sleep 3
";
    let (commit, before) = built(&bench, &site, dockerfile, &[]);
    let output = format!("type=local,dest={}", bench.text("root"));
    let again = bench.build(&site.proxy(), &commit, &["--like", &before, "--output", &output]).expect(0);
    let read = |name: &str| std::fs::read_to_string(bench.path(name)).unwrap();
    assert_eq!(read("root/two"), format!("/same{}", read("root/one")));
    // What was asked in vain is no material of the image.
    assert_eq!(again.json()["exchanges"], 2);
    bench.rebuild_cut_off(&[]).expect(0);
    if !has_one_processor() {
        let events = Events::of(&again);
        assert_eq!([events.count("step-dropped", 3), events.count("step-failed", 3)], [1, 0], "it went on");
    }
}

#[test]
fn a_failure_ends_what_runs_ahead() {
    need!("runc");
    let bench = Bench::new();
    let site = Site::answering(|asked: &SiteRequest| {
        (if asked.number == 0 { 200 } else { 404 }, Vec::new(), Vec::new())
    });
    let dockerfile = "FROM base:1
RUN sleep 2 && wget -q -O /one http://site.example/one
RUN sleep 6 && echo 2 >/two
";
    let (commit, before) = built(&bench, &site, dockerfile, &[]);
    let failed = bench.build(&site.proxy(), &commit, &["--like", &before]).expect(5);
    assert!(failed.text().contains("line 2"), "{}", failed.text());
    if !has_one_processor() {
        let events = Events::of(&failed);
        assert_eq!([events.count("step", 3), events.count("step-done", 3)], [1, 0]);
    }
}

#[test]
fn nothing_stands_on_a_layer_that_is_much_larger_than_its_blob_before_a_step_came_to_it() {
    need!("runc");
    let (bench, site) = (Bench::new(), Site::start());
    let dockerfile = "FROM base:1
RUN sleep 1 && dd if=/dev/zero of=/zeros bs=1048576 count=100
RUN stat -c %s /zeros >/two
";
    let (commit, digest) = built(&bench, &site, dockerfile, &[]);
    let again = bench.replay(&commit, &digest, &[]).expect(0);
    assert_eq!(again.json()["digest"], digest.as_str());
    let events = Events::of(&again);
    assert!(events.before("step-done", 2) < events.before("step", 3));
    let warned = events.0.iter().any(|event| {
        event["event"] == "warning" && event["message"].as_str().unwrap().contains("waits for its turn")
    });
    assert!(warned || has_one_processor(), "{}", again.stderr);
}
