//! The gate, in a root that holds nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{ALGORITHM, ground, process};
use sandbox::{Exit, Mount};

#[test]
fn in_an_empty_root_it_waits_for_the_port_and_becomes_the_program() {
    let Some(ground) = ground() else { return };
    let empty = ground.directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let gate = ground.directory.path().join("gate");
    fs::write(&gate, sandbox::gate::binary()).unwrap();
    fs::set_permissions(&gate, PermissionsExt::from_mode(0o755)).unwrap();
    let run = |args: &[&str]| {
        let mut gated = process(ALGORITHM, args);
        gated.env = vec![("PATH".into(), "/none:/dev".into()), ("KEPT".into(), "yes".into())];
        gated.mounts = vec![
            Mount { source: gate.clone(), target: "/dev/gate".into(), readonly: true },
            Mount { source: ground.base.join("bin/busybox"), target: "/dev/busybox".into(), readonly: true },
        ];
        let root = ground.host.overlay(std::slice::from_ref(&empty)).unwrap();
        ground.run_in(&root, &gated)
    };
    assert_eq!(run(&["/dev/gate", "8080", "1", "busybox", "true"]).exit, Exit::Code(125));
    let planted = thread::scope(|scope| {
        // Nothing listens before it is seen waiting.
        let later = scope.spawn(|| {
            wait_for_process(b"gate\x008080\x0020\0busybox\0");
            ground.network.listen((Ipv4Addr::LOCALHOST, 8080).into()).unwrap()
        });
        let ran = run(&["gate", "8080", "20", "busybox", "sh", "-c", "echo $KEPT $0; exit 5", "argument"]);
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Code(5), "yes argument\n"), "{ran:?}");
        later.join().unwrap()
    });
    assert_eq!(run(&["gate", "8080", "5", "nothing"]).exit, Exit::Code(127));
    assert_eq!(run(&["gate", "8080", "5", "/etc"]).exit, Exit::Code(126));
    assert_eq!(run(&["gate", "8080", "5", "/nothing"]).exit, Exit::Code(127));
    drop(planted);
}

/// Returns when a process of this machine has a command line that begins so.
fn wait_for_process(beginning: &[u8]) {
    let end = Instant::now() + Duration::from_secs(20);
    let is_wanted = |entry: std::io::Result<fs::DirEntry>| {
        let line = entry.and_then(|entry| fs::read(entry.path().join("cmdline")));
        line.is_ok_and(|line| line.starts_with(beginning))
    };
    while !fs::read_dir("/proc").unwrap().any(is_wanted) {
        assert!(Instant::now() < end, "it never starts");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn wrong_arguments_start_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    fs::write(&gate, sandbox::gate::binary()).unwrap();
    fs::set_permissions(&gate, PermissionsExt::from_mode(0o755)).unwrap();
    for arguments in
        [&["80", "1"][..], &["0", "1", "true"], &["65536", "1", "true"], &["x", "1", "true"], &[]]
    {
        let ended = Command::new(&gate).args(arguments).output().unwrap();
        assert_eq!(ended.status.code(), Some(125), "{arguments:?}");
    }
}
