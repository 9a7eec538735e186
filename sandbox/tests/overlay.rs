//! Roots made of layers: what a step wrote, and nothing that we did.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use common::{ground, shell};
use sandbox::{Mount, Profile};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn mounting_leaves_no_trace_in_what_a_step_wrote() {
    let Some(ground) = ground() else { return };
    let source = ground.directory.path().join("resolv.conf");
    fs::write(&source, "nameserver 127.0.0.1\n").unwrap();
    let mut step = shell(Profile::Build, "cat /etc/resolv.conf");
    for target in ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev/ca.pem"] {
        step.mounts.push(Mount { source: source.clone(), target: target.into(), readonly: true });
    }
    let root = ground.root();
    let ran = ground.run_in(&root, &step);
    assert_eq!(ran.out, "nameserver 127.0.0.1\n", "{ran:?}");
    assert_eq!(names(root.upper()), Vec::<String>::new());
    assert!(!root.merged().join("etc/mtab").exists());
}

#[test]
fn what_a_step_wrote_is_in_upper_alone() {
    let Some(ground) = ground() else { return };
    let root = ground.root();
    let ran = ground.run_in(&root, &shell(Profile::Build, "echo new > /new; busybox rm /etc/group"));
    assert!(ran.exit.is_success(), "{ran:?}");
    assert_eq!(names(root.upper()), ["etc", "new"]);
    assert!(fs::symlink_metadata(root.upper().join("etc/group")).unwrap().file_type().is_char_device());
    assert!(ground.base.join("etc/group").exists());
    let upper = root.upper().to_path_buf();
    drop(root);
    assert!(!upper.exists());
}

#[test]
fn what_was_written_can_lie_below_the_next() {
    let Some(ground) = ground() else { return };
    let root = ground.root();
    ground.run_in(&root, &shell(Profile::Build, "echo new > /new; busybox rm /etc/group"));
    let merged = root.merged().to_path_buf();
    let upper = root.into_upper().unwrap();
    assert_eq!(names(&merged), Vec::<String>::new(), "nothing is mounted there");
    let next = ground.host.overlay(&[upper.path().to_path_buf(), ground.base.clone()]).unwrap();
    let ran = ground.run_in(&next, &shell(Profile::Build, "cat /new; busybox test ! -e /etc/group"));
    assert!(ran.exit.is_success() && ran.out == "new\n", "{ran:?}");
    drop(next);
    let place = upper.path().to_path_buf();
    drop(upper);
    assert!(!place.exists());
}

#[test]
fn hundreds_of_layers_with_long_names_are_stacked_topmost_first() {
    let Some(ground) = ground() else { return };
    let long = "a:b,c\\".to_owned() + &"x".repeat(200);
    let mut lowers: Vec<PathBuf> = (0..300)
        .map(|number| {
            let layer = ground.directory.path().join(format!("{long}{number}"));
            fs::create_dir_all(layer.join("etc")).unwrap();
            fs::write(layer.join("etc/top"), format!("{number}\n")).unwrap();
            fs::write(layer.join(format!("etc/{number}")), "").unwrap();
            layer
        })
        .collect();
    lowers.push(ground.base.clone());
    let root = ground.host.overlay(&lowers).unwrap();
    let ran = ground.run_in(&root, &shell(Profile::Build, "cat /etc/top; ls /etc/0 /etc/299"));
    assert_eq!(ran.out, "0\n/etc/0\n/etc/299\n", "{ran:?}");
}

#[test]
fn a_read_only_root_refuses_us_as_well() {
    let Some(ground) = ground() else { return };
    let root = ground.host.overlay_readonly(std::slice::from_ref(&ground.base)).unwrap();
    assert!(fs::write(root.merged().join("x"), "").is_err());
    assert!(root.merged().join("etc/hosts").exists());
}

#[test]
fn a_view_holds_what_the_layers_hold_and_nothing_else() {
    let Some(ground) = ground() else { return };
    let layer = ground.base.parent().unwrap().join("only");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.join("file"), "x").unwrap();
    let names = |lowers: &[std::path::PathBuf]| {
        let view = ground.host.view(lowers).unwrap();
        assert!(fs::write(view.merged().join("y"), "").is_err());
        let names = fs::read_dir(view.merged()).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&[layer]), ["file"]);
    assert!(names(&[]).is_empty());
}
