//! The gate, in a root that holds nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Instant;

use common::{ALGORITHM, ground, process, wait_until_alive};
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
        let later = scope.spawn(|| {
            wait_until_alive("argument-76544");
            let opened = Instant::now();
            (opened, ground.network.listen((Ipv4Addr::LOCALHOST, 8080).into()).unwrap())
        });
        let ran =
            run(&["gate", "8080", "20", "busybox", "sh", "-c", "echo $KEPT $0; exit 5", "argument-76544"]);
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Code(5), "yes argument-76544\n"), "{ran:?}");
        let ended = Instant::now();
        let (opened, planted) = later.join().unwrap();
        assert!(opened < ended, "it did not wait for the port");
        planted
    });
    assert_eq!(run(&["gate", "8080", "5", "nothing"]).exit, Exit::Code(127));
    assert_eq!(run(&["gate", "8080", "5", "/etc"]).exit, Exit::Code(126));
    assert_eq!(run(&["gate", "8080", "5", "/nothing"]).exit, Exit::Code(127));
    drop(planted);
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
