//! What the kernel itself says to system calls that are made in a sandbox: both filters together, whoever asks.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{ALGORITHM, Ground, ground, shell};
use sandbox::Profile;

const EPERM: i64 = -1;
const ENOSYS: i64 = -38;
/// What a shell says of a program that the filter killed.
const KILLED: i64 = 128 + 31;

const NEW_USER: u64 = 0x1000_0000;
const VSOCK: u64 = 40;
/// The flag of x32, `getpid` with it.
const X32: u64 = 0x4000_0000 + 39;

/// How a call is made, its number and arguments, and the answer. None of the refused ones would need a right that a build has not.
const OF_BOTH: &[(&str, u64, &[u64], i64)] = &[
    ("64", 272, &[0], EPERM),                   // unshare nothing
    ("64", 308, &[u32::MAX as u64], EPERM),     // setns
    ("64", 250, &[0, 0xFFFF_FFFD], EPERM),      // keyctl
    ("64", 165, &[], EPERM),                    // mount
    ("64", 166, &[], EPERM),                    // umount2
    ("64", 321, &[], EPERM),                    // bpf
    ("64", 56, &[NEW_USER + 17], EPERM),        // clone
    ("64", 425, &[], EPERM),                    // io_uring_setup
    ("64", 323, &[], EPERM),                    // userfaultfd
    ("64", 435, &[], ENOSYS),                   // clone3
    ("64", 428, &[], ENOSYS),                   // open_tree
    ("64", 430, &[], ENOSYS),                   // fsopen
    ("64", 442, &[], ENOSYS),                   // mount_setattr
    ("64", 600, &[], ENOSYS),                   // nobody's yet
    ("64", 41, &[VSOCK, 1], EPERM),             // socket
    ("64", 41, &[VSOCK + (1 << 32), 1], EPERM), // the kernel reads 32 bits of it
    ("64", 135, &[1], EPERM),                   // personality
    ("64", 135, &[0xFFFF_FFFF], 0),
    ("64", 41, &[1, 1], 3),
    ("64", X32, &[], KILLED),
];

/// The same in the numbers of 32-bit programs.
const OF_32_BITS: &[(&str, u64, &[u64], i64)] = &[
    ("32", 310, &[0], EPERM),
    ("32", 346, &[u32::MAX as u64], EPERM),
    ("32", 288, &[0, 0xFFFF_FFFD], EPERM),
    ("32", 22, &[], EPERM), // umount, which only they have
    ("32", 120, &[NEW_USER + 17], EPERM),
    ("32", 425, &[], EPERM),
    ("32", 435, &[], ENOSYS),
    ("32", 600, &[], ENOSYS),
    ("32", 359, &[VSOCK, 1], EPERM),
    ("32", 359, &[1, 1], 3),
    ("32", 199, &[], 0), // getuid32
];

/// A static program that makes a call of one's choice.
fn plant(ground: &Ground) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/probe.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc
        .arg(source)
        .args(["--crate-type", "bin", "--edition", "2024", "-o"])
        .arg(ground.base.join("bin/probe"));
    for option in ["panic=abort", "opt-level=1", "relocation-model=static"] {
        rustc.args(["-C", option]);
    }
    for option in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        rustc.args(["-C", &format!("link-arg={option}")]);
    }
    assert!(rustc.status().unwrap().success());
}

fn check(ground: &Ground, profile: Profile, calls: &[(&str, u64, &[u64], i64)]) {
    let line = |(way, number, arguments, _): &(&str, u64, &[u64], i64)| {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        format!("probe {way} {number} {} || echo $?\n", arguments.join(" "))
    };
    let ran = ground.run(&shell(profile, &calls.iter().map(line).collect::<String>()));
    let answers: Vec<i64> = ran.out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(answers.len(), calls.len(), "{ran:?}");
    for ((way, number, arguments, wanted), answer) in calls.iter().zip(answers) {
        assert_eq!(answer, *wanted, "{profile:?}: {way} bits, call {number} of {arguments:?}");
    }
}

#[test]
fn both_filters_together_refuse_what_the_lists_do_not_have() {
    let Some(ground) = ground() else { return };
    plant(&ground);
    check(&ground, Profile::Build, OF_BOTH);
    check(&ground, ALGORITHM, OF_BOTH);
    check(&ground, Profile::Build, OF_32_BITS);
    let killed = OF_32_BITS.iter().map(|(way, number, arguments, _)| (*way, *number, *arguments, KILLED));
    check(&ground, ALGORITHM, &killed.collect::<Vec<_>>());
}

#[test]
fn two_filters_lie_over_every_program() {
    let Some(ground) = ground() else { return };
    for profile in [Profile::Build, ALGORITHM] {
        let ran = ground.run(&shell(profile, "cat /proc/self/status"));
        for line in ["Seccomp:\t2", "Seccomp_filters:\t2"] {
            assert!(ran.out.lines().any(|found| found == line), "{line} in {}", ran.out);
        }
    }
}
