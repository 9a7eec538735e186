//! Steps that mean harm, with the real program: each ends in a clear error or in an image that says what was done, nothing outside is
//! touched, nothing is left, and the same state serves an honest build afterwards.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use images::layer::{LayerLimits, open_archive};
use images::{Image, Store};
use testing::files::{Root, Tree};
use testing::{Hostile, Outcome, need};

/// Fails unless a build ended so, with these words in what it said.
#[track_caller]
fn said(outcome: Outcome, code: i32, words: &[&str]) -> Outcome {
    let outcome = outcome.expect(code);
    for word in words {
        assert!(outcome.stdout.contains(word), "{word:?} in {}", outcome.stdout);
    }
    outcome
}

/// The files of the image that was written to a layout.
fn files(place: &Hostile, built: &Outcome) -> Tree {
    let store = Store::open_existing(place.path("layout")).unwrap();
    let image = Image::load(&store, &built.json()["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    let mut root = Root::default();
    for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()) {
        root.apply(open_archive(&store, layer, Some(diff_id), LayerLimits::default()).unwrap().reader());
    }
    root.finish()
}

#[test]
fn a_step_that_forks_without_bound_ends_and_says_why() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let few = ["--step-processes", "40", "--step-timeout", "5"];
    // One that minds that it cannot fork, and one that does not and goes on for as long as it may.
    let minds = "FROM base:1\nRUN while true; do busybox sleep 76501 & done\n";
    said(
        place.build(minds, &few),
        5,
        &["line 2: RUN while true", "exit code", "40 processes", "--step-processes"],
    );
    let bomb = "FROM base:1\nRUN b() { b | b & }; b 2>/dev/null; exec busybox sleep 76504\n";
    let begun = Instant::now();
    said(place.build(bomb, &few), 5, &["took too long", "5 seconds", "--step-timeout"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    place.expect_unharmed();
}

#[test]
fn a_daemon_dies_with_its_step() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let daemon = "FROM base:1
RUN touch /held && ( (busybox setsid busybox sleep 76502 </dev/null >>/held 2>&1 &) & ) && busybox sleep 0.3 && echo 1 >/done
RUN busybox ps | grep 7650[2] && echo ALIVE >/alive || true
";
    let layout = place.path("layout").display().to_string();
    let begun = Instant::now();
    let built = place.build(daemon, &["--oci", &layout]).expect(0);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let files = files(&place, &built);
    assert!(files.contains_key("done") && files.contains_key("held") && !files.contains_key("alive"));
    place.expect_unharmed();
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left_of_it() {
    need!("runc", "git", "skopeo");
    let place = Hostile::small(24, 4000);
    let hint = "--state-dir";
    // By one file, and by very many.
    let large = "FROM base:1\nRUN dd if=/dev/zero of=/large bs=1M count=100\n";
    said(place.build(large, &[]), 5, &["line 2: RUN dd", "No space left on device", hint]);
    let many = "FROM base:1\nRUN i=0; while echo >/f$i; do i=$((i+1)); done; false\n";
    said(place.build(many, &[]), 5, &["line 2: RUN i=0", "No space left on device", hint]);
    // What it wrote has room, and its layer has not.
    let random = "FROM base:1\nRUN dd if=/dev/urandom of=/random bs=1M count=14\n";
    said(place.build(random, &[]), 8, &["No space left on device", "the disk is full", hint]);
    place.expect_unharmed();
}

#[test]
fn what_could_never_be_a_layer_is_refused_at_its_line() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let table: [(&str, &[&str]); 4] = [
        // Reading the zeros of it would take minutes, and a petabyte's weeks.
        ("busybox truncate -s 1099511627776 /hole", &["more than 68719476736 bytes", "remove the rest"]),
        ("busybox mknod /sda b 8 0", &["/sda: a device node, which no image may bring"]),
        ("touch /.wh.etc", &["begins with `.wh.`", "it would delete something"]),
        (
            "n=$(busybox printf '%0200d' 0); p=$n/$n/$n/$n/$n; for i in 1 2 3 4 5; do mkdir -p $p && cd -P $p || exit 9; done",
            &["made a path longer than 4096 bytes"],
        ),
    ];
    for (command, words) in table {
        let refused = place.build(&format!("FROM base:1\n\nRUN {command}\n"), &[]);
        let refused = said(refused, 5, &[&["line 3: RUN "], words].concat());
        assert!(refused.stdout.contains("\"kind\":\"step\""), "{}", refused.stdout);
    }
    place.expect_unharmed();
}

#[test]
fn folders_nested_without_bound_are_refused_and_cleared_away() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    // Deeper than many a process may have files open, and than a path may be long. (Overlayfs makes more of them ever more slowly.)
    let p = ["d"; 100].join("/");
    let nested = format!(
        "FROM base:1\nRUN for i in $(busybox seq 30); do mkdir -p {p} && cd -P {p} || exit 9; done\n"
    );
    said(place.build(&nested, &[]), 5, &["line 2: RUN for i", "made a path longer than 4096 bytes"]);
    // In a cache they reach no layer; the next step finds an empty one all the same.
    let cached = format!(
        "FROM base:1\nRUN --mount=type=cache,target=/c cd /c && for i in $(busybox seq 30); do mkdir -p {p} && cd -P {p} || exit 9; done\nRUN --mount=type=cache,target=/c ls -A /c | busybox wc -l | grep '^0$'\n"
    );
    place.build(&cached, &[]).expect(0);
    place.expect_unharmed();
}

#[test]
fn a_step_cannot_change_mounts_or_reach_this_machine() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let outside = place.path("outside").display().to_string();
    let attempts = [
        "mount -t tmpfs none /tmp",
        "mount -t proc none /tmp",
        "mount --bind / /tmp",
        "mount -o remount,rw /sys",
        "mount -o remount,rw /proc/sys",
        "umount /proc/sys",
        "umount -l /proc",
        "umount -l /etc/resolv.conf",
        "pivot_root /tmp /tmp/old",
        "unshare -m true",
        "unshare -U true",
        "sh -c 'mknod /dev/own b 8 0 && cat /dev/own | head -c 1 | grep .'",
        "sh -c 'echo /evil >/proc/sys/kernel/core_pattern'",
        "sh -c 'echo h >/proc/sysrq-trigger'",
        "sh -c 'echo 1 >/sys/kernel/uevent_helper'",
        "cat /proc/kcore",
        "insmod /nothing",
        "swapon /dev/vda",
        "nsenter -t 1 -m true -n",
        "ls /proc/1/root/OUTSIDE",
        "ls /proc/self/cwd/../../../../../../OUTSIDE",
        "ls /proc/self/root/OUTSIDE",
        "chroot /proc/1/root ls OUTSIDE",
        "sh -c 'ln -s OUTSIDE /l && echo evil >/l/file'",
        "sh -c 'echo evil >/proc/1/root/OUTSIDE/file'",
        "sh -c 'for f in /proc/self/fd/*; do echo evil >$f/OUTSIDE/file; done; ls -d /proc/self/fd/*/OUTSIDE'",
        "dmesg -c",
        "hostname evil",
    ];
    let mut dockerfile = "FROM base:1\nRUN <<EOF\n".to_owned();
    for (number, attempt) in attempts.iter().enumerate() {
        let attempt = attempt.replace("OUTSIDE", outside.trim_start_matches('/'));
        dockerfile.push_str(&format!("busybox {attempt} >/dev/null 2>&1 && echo ESCAPED {number}\n"));
    }
    dockerfile.push_str("echo tried them all\nrm -rf /l /dev/own\nEOF\n");
    let built = place.build(&dockerfile, &["--progress=plain"]).expect(0);
    assert!(
        built.stderr.contains("tried them all") && !built.stderr.contains("\"text\":\"ESCAPED"),
        "{}",
        built.stderr
    );
    place.expect_unharmed();
}

#[test]
fn links_of_an_image_lead_nowhere_but_into_it() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let outside = place.path("outside").display().to_string();
    // Whatever this program itself does in an image's root: read users, add its authority to lists, make folders, copy, unpack, mount.
    let refused = format!(
        "FROM base:1\nRUN rm /etc/passwd && ln -s {outside}/passwd /etc/passwd\nUSER evil\nRUN true\n"
    );
    said(place.build(&refused, &[]), 3, &["line 4", "has no user evil"]);
    let dockerfile = format!(
        "FROM base:1 AS linked
RUN ln -s {outside} /w && ln -s ../../../../../../../../../../..{outside} /v \\
 && mkdir -p /etc/ssl/certs && ln -s {outside}/list /etc/ssl/certs/ca-certificates.crt \\
 && rm -f /etc/hosts && ln -s {outside}/file /etc/hosts || true
FROM linked
WORKDIR /w/made
COPY Dockerfile /w/copied/
COPY Dockerfile /v/file
ADD Dockerfile /v/passwd
RUN --mount=type=cache,target=/w/cache --mount=type=tmpfs,target=/v/tmpfs echo evil >/w/list; echo evil >>/etc/hosts; chmod 777 /w
"
    );
    place.build(&dockerfile, &[]).expect(0);
    let copied = dockerfile + "COPY --from=linked /w/ /from/\n";
    said(place.build(&copied, &[]), 3, &["/w/ is not in the stage"]);
    place.expect_unharmed();
}

#[test]
fn a_list_of_users_that_leads_to_the_root_is_refused() {
    need!("runc", "git");
    let place = Hostile::new();
    let steps =
        "FROM base:1\nRUN busybox mkdir -p /etc; busybox ln -sf / /etc/passwd\nUSER root\nWORKDIR /x\n";
    said(place.build(steps, &[]), 3, &["line 4: the image has no user root", "not a regular file"]);
    place.expect_unharmed();
}

#[test]
fn a_step_that_deletes_everything_deletes_its_own_layer_alone() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    place.build("FROM base:1\nRUN echo 1 >/one\nRUN echo 2 >/two\n", &[]).expect(0);
    let before = place.layers();
    // What is mounted cannot be deleted, so the command itself fails.
    let all = "FROM base:1\nRUN busybox rm -rf /*\n";
    said(place.build(all, &[]), 5, &["line 2: RUN busybox rm -rf", "exit code 1"]);
    let layout = place.path("layout").display().to_string();
    let forgiven = "FROM base:1\nRUN busybox rm -rf /* 2>/dev/null || true\n";
    let built = place.build(forgiven, &["--oci", &layout]).expect(0);
    let left = files(&place, &built);
    // A folder in which something is mounted stays, without anything in it.
    let mounted = ["dev", "etc", "proc", "sys"];
    assert!(left.keys().all(|path| mounted.contains(&path.as_str())), "{:?}", left.keys());
    let after = format!("{forgiven}RUN echo\n");
    said(place.build(&after, &[]), 5, &["line 3: RUN echo", "exit code 127"]);
    let kept = place.layers();
    assert!(before.len() > 20, "{:?}", before.keys());
    for (path, was) in &before {
        assert_eq!(kept.get(path), Some(was), "{} was changed", path.display());
    }
    place.expect_unharmed();
}

#[test]
fn a_step_that_waits_for_ever_or_eats_all_memory_is_ended() {
    need!("runc", "git", "skopeo");
    let place = Hostile::new();
    let waits = "FROM base:1\nRUN busybox sleep 76503\n";
    said(place.build(waits, &["--step-timeout", "1"]), 5, &["took too long", "1 seconds"]);
    let eats = "FROM base:1\nRUN dd if=/dev/zero of=/dev/null bs=400M count=1\n";
    said(place.build(eats, &["--step-memory", "64m"]), 5, &["ran out of memory", "--step-memory"]);
    let endless = "FROM base:1\nRUN busybox yes | busybox head -c 30000000\n";
    place.build(endless, &["--quiet"]).expect(0);
    place.expect_unharmed();
}
