//! Real processes in real containers: how they end, and what bounds them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{ALGORITHM, alive, ground, process, shell, wait_until_alive};
use sandbox::{Canceller, Exit, Mount, MountPoint, Profile, Stream, Tmpfs, resolve_user};

#[test]
fn codes_streams_and_signals_come_out_as_they_are() {
    let Some(ground) = ground() else { return };
    let ran = ground.run(&shell(Profile::Build, "echo out; echo err >&2; exit 3"));
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Code(3), "out\n", "err\n"));
    assert_eq!(ground.run(&process(Profile::Build, &["true"])).exit, Exit::Code(0));
    let missing = ground.run(&process(Profile::Build, &["no-such-program"]));
    assert_eq!(missing.exit, Exit::Code(127));
    assert!(missing.err.contains("no-such-program"), "{missing:?}");
    assert_eq!(ground.run(&process(Profile::Build, &["/etc/passwd"])).exit, Exit::Code(126));
    assert_eq!(ground.run(&shell(Profile::Build, "sh -c 'kill -9 $$'; exit $?")).exit, Exit::Signal(9));
}

#[test]
fn much_output_is_streamed_whole() {
    let Some(ground) = ground() else { return };
    let ran = ground.run(&shell(Profile::Build, "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2"));
    assert_eq!((ran.exit, ran.out.len(), ran.err.len()), (Exit::Code(0), 3_000_000, 1_000_000));
}

#[test]
fn the_wall_kills_what_went_into_the_background_too() {
    let Some(ground) = ground() else { return };
    // A tell-tale argument, to be looked for on this machine.
    let mut long = shell(Profile::Build, "(sleep 98765 &) ; sleep 98765");
    long.limits.wall = Some(Duration::from_millis(800));
    let start = Instant::now();
    assert_eq!(ground.run(&long).exit, Exit::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(alive("98765"), 0);
    // The same when the first process ends by itself and leaves a daemon that holds the pipes.
    let start = Instant::now();
    assert_eq!(ground.run(&shell(Profile::Build, "(sleep 87654 &) ; exit 0")).exit, Exit::Code(0));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(alive("87654"), 0);
}

#[test]
fn no_file_grows_beyond_its_bound_not_even_one_of_this_machine() {
    let Some(ground) = ground() else { return };
    let output = ground.directory.path().join("output");
    fs::write(&output, "").unwrap();
    let mut process = shell(ALGORITHM, "head -c 3000000 /dev/zero > /output");
    process.mounts = vec![Mount { source: output.clone(), target: "/output".into(), readonly: false }];
    process.limits.file_size = Some(1 << 20);
    let points = MountPoint::of(&process);
    let root = ground.host.overlay_readonly_with(std::slice::from_ref(&ground.base), &points).unwrap();
    assert_ne!(ground.run_in(&root, &process).exit, Exit::Code(0));
    assert_eq!(fs::metadata(&output).unwrap().len(), 1 << 20);
}

#[test]
fn a_canceller_ends_it_from_another_thread() {
    let Some(ground) = ground() else { return };
    let canceller = Canceller::new();
    let other = canceller.clone();
    let waiting = thread::spawn(move || {
        wait_until_alive("76543");
        other.cancel();
    });
    let root = ground.root();
    let sleep = process(Profile::Build, &["sleep", "76543"]);
    let exit =
        ground.host.run_until(&sleep, root.merged(), &ground.network, &mut |_, _| {}, &canceller).unwrap();
    waiting.join().unwrap();
    assert_eq!(exit, Exit::Cancelled);
    assert_eq!(alive("76543"), 0);
}

#[test]
fn a_fork_bomb_meets_its_limit() {
    let Some(ground) = ground() else { return };
    let mut bomb =
        shell(ALGORITHM, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 30 & done; exit 0");
    bomb.limits.pids = Some(10);
    let ran = ground.run(&bomb);
    assert_ne!(ran.exit, Exit::Code(0), "{ran:?}");
    assert!(ran.err.contains("fork"), "{ran:?}");
}

#[test]
fn too_much_memory_says_so() {
    let Some(ground) = ground() else { return };
    let mut hungry = process(ALGORITHM, &["dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1"]);
    hungry.limits.memory = Some(64 << 20);
    assert_eq!(ground.run(&hungry).exit, Exit::OutOfMemory);
    let mut modest = process(ALGORITHM, &["true"]);
    modest.limits.memory = Some(64 << 20);
    assert_eq!(ground.run(&modest).exit, Exit::Code(0));
    let mut other_failure = shell(ALGORITHM, "exit 137");
    other_failure.limits.memory = Some(64 << 20);
    assert_eq!(ground.run(&other_failure).exit, Exit::Signal(9));
}

#[test]
fn an_algorithm_has_no_capability_and_cannot_gain_one() {
    let Some(ground) = ground() else { return };
    let ran = ground.run(&shell(ALGORITHM, "cat /proc/self/status; unshare -m true && echo ESCAPED"));
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(ran.out.lines().any(|found| found == line), "{line} in {}", ran.out);
    }
    assert!(!ran.out.contains("ESCAPED"));
    let build = ground.run(&shell(Profile::Build, "cat /proc/self/status"));
    assert!(build.out.contains("CapEff:\t00000000a80425fb"), "Docker's default set: {}", build.out);
}

#[test]
fn namespaces_and_mounts_are_refused_to_a_build_as_well() {
    let Some(ground) = ground() else { return };
    for script in ["unshare -U true", "unshare -m true", "mount -t tmpfs none /tmp"] {
        let ran = ground.run(&shell(Profile::Build, script));
        assert!(!ran.exit.is_success(), "{script}: {ran:?}");
    }
}

#[test]
fn a_read_only_root_takes_only_its_mounts() {
    let Some(ground) = ground() else { return };
    let data = ground.directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "secret").unwrap();
    let mut algorithm = shell(
        ALGORITHM,
        "cat /mnt/data/in; touch /x; touch /mnt/data/x; touch /full/x; touch /scratch/x && echo ok",
    );
    algorithm.mounts = vec![Mount { source: data.clone(), target: "/mnt/data".into(), readonly: true }];
    let folder = |target: &str, readonly| Tmpfs { target: target.into(), size: 1 << 20, readonly };
    algorithm.tmpfs = vec![folder("/scratch", false), folder("/full", true)];
    let points = MountPoint::of(&algorithm);
    let root = ground.host.overlay_readonly_with(std::slice::from_ref(&ground.base), &points).unwrap();
    let ran = ground.run_in(&root, &algorithm);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Code(0), "secretok\n"), "{ran:?}");
    assert_eq!(ran.err.matches("Read-only file system").count(), 3, "{ran:?}");
    // A writable overlay does not help: the profile says so.
    assert!(!ground.run(&shell(ALGORITHM, "touch /x")).exit.is_success());
    let writable = Profile::Algorithm { writable_root: true };
    assert!(ground.run(&shell(writable, "touch /x")).exit.is_success());
}

#[test]
fn users_are_those_of_the_image() {
    let Some(ground) = ground() else { return };
    let mut who = process(Profile::Build, &["id"]);
    who.user = resolve_user(&ground.base, "ann").unwrap();
    let ran = ground.run(&who);
    assert_eq!(ran.out, "uid=1000(ann) gid=1001(ann) groups=1001(ann),2000(lab)\n", "{ran:?}");
}

#[test]
fn many_at_once_do_not_meet() {
    let Some(ground) = ground() else { return };
    thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|code| {
                let ground = &ground;
                scope.spawn(move || ground.run(&shell(Profile::Build, &format!("exit {code}"))).exit)
            })
            .collect();
        for (code, run) in (0..8).zip(runs) {
            assert_eq!(run.join().unwrap(), Exit::Code(code));
        }
    });
}

#[test]
fn a_caller_that_panics_leaves_no_container() {
    let Some(ground) = ground() else { return };
    let root = ground.root();
    let run = std::panic::AssertUnwindSafe(|| {
        let long = shell(Profile::Build, "echo out; sleep 32109");
        ground.host.run(&long, root.merged(), &ground.network, &mut |_, _| panic!("on purpose"))
    });
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(alive("32109"), 0);
    assert_eq!(ground.run(&shell(Profile::Build, "true")).exit, Exit::Code(0));
}

#[test]
fn what_is_confidential_lies_in_memory_and_is_gone_afterwards() {
    let Some(ground) = ground() else { return };
    let memory = ground.host.memory().unwrap();
    let (folder, secret) = (memory.path().to_owned(), memory.path().join("secret"));
    std::fs::write(&secret, "told in confidence").unwrap();
    let state = ground.directory.path().join("state");
    let kind = |path: &std::path::Path| rustix::fs::statfs(path).unwrap().f_type;
    const RAMFS: i64 = 0x8584_58f6;
    assert_eq!((kind(&folder), kind(&state) == RAMFS), (RAMFS, false));
    let script = "cat /etc/secret; echo \" $WORD\"; touch /etc/secret || echo no; sleep 300";
    let mut process = shell(Profile::Build, script);
    process.mounts.push(Mount { source: secret, target: "/etc/secret".into(), readonly: true });
    process.env.push(("WORD".into(), "in the environment".into()));
    process.confidential = true;
    // What lies on the disk while it runs, which it does for as long as it sleeps: all that is not behind a mount.
    let (canceller, root, mut out, mut found) = (Canceller::new(), ground.root(), String::new(), None);
    let mut look = |stream, bytes: &[u8]| {
        if stream == Stream::Stdout {
            out.push_str(std::str::from_utf8(bytes).unwrap());
        }
        if found.is_none() && out.ends_with("no\n") {
            let grep = std::process::Command::new("grep")
                .args(["-r", "-l", "in the environment"])
                .arg(&state)
                .output()
                .unwrap();
            let paths = String::from_utf8(grep.stdout).unwrap();
            found =
                Some(paths.lines().map(|path| (kind_of(path) == RAMFS, path.to_owned())).collect::<Vec<_>>());
            canceller.cancel();
        }
    };
    let exit =
        ground.host.run_until(&process, root.merged(), &ground.network, &mut look, &canceller).unwrap();
    assert_eq!(exit, Exit::Cancelled);
    assert_eq!(out, "told in confidence in the environment\nno\n");
    let found = found.unwrap();
    assert!(!found.is_empty() && found.iter().all(|(in_memory, _)| *in_memory), "{found:?}");
    drop(memory);
    assert!(!folder.exists());
}

fn kind_of(path: &str) -> i64 {
    rustix::fs::statfs(path).map_or(0, |found| found.f_type)
}

/// 0 would not keep the machine's own handler of core dumps from being started: see `config.rs`.
#[test]
fn no_core_dump_leaves_either_profile() {
    let Some(ground) = ground() else { return };
    for profile in [Profile::Build, ALGORITHM] {
        let ran = ground.run(&process(profile, &["cat", "/proc/self/limits"]));
        let line = ran.out.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<_> = line.split_whitespace().skip(4).take(2).collect();
        assert_eq!(words, ["1", "1"], "{line}");
    }
}
