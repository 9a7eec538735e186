//! What a killed program left is cleared by the next; what a living one holds is not touched.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{ground, process};
use sandbox::{Exit, Host, Profile};

/// Where a child of this test finds its state directory and base; unset in ordinary runs.
const STATE: &str = "SANDBOX_TEST_STATE";

/// Not a test by itself: the program that the others kill. It holds a container open until it is killed.
#[test]
fn held_open() {
    let Some(state) = std::env::var_os(STATE) else { return };
    let state = PathBuf::from(state);
    let host = Host::open(&state.join("state")).unwrap();
    let network = host.network().unwrap();
    let root = host.overlay(&[state.join("base")]).unwrap();
    let mut sleep = process(Profile::Build, &["sleep", &fs::read_to_string(state.join("mark")).unwrap()]);
    sleep.limits.memory = Some(64 << 20);
    let exit = host.run(&sleep, root.merged(), &network, &mut |_, _| {}).unwrap();
    assert_eq!(exit, Exit::Code(0));
}

/// A program that holds a container open, killed when the test ends in whatever way: it would keep the test's output open.
struct Held(Child);

impl Held {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hold(directory: &Path, mark: &str) -> Held {
    fs::write(directory.join("mark"), mark).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "held_open"]).env(STATE, directory).stdout(Stdio::null());
    let held = Held(command.spawn().unwrap());
    for _ in 0..200 {
        if running(mark) == 1 {
            return held;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the container did not come up");
}

/// Processes whose last argument is `mark`.
fn running(mark: &str) -> usize {
    let lines =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines
        .filter(|line| line.starts_with(b"sleep\0") && line.ends_with(format!("\0{mark}\0").as_bytes()))
        .count()
}

fn mounts_in(directory: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(directory.to_str().unwrap())).count()
}

fn owners(state: &Path) -> usize {
    fs::read_dir(state).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count()
}

#[test]
fn a_killed_owner_is_cleared_and_a_living_one_stays() {
    let Some(ground) = ground() else { return };
    let (directory, state) = (ground.directory.path(), ground.directory.path().join("state"));
    let (dead_mark, live_mark) = ("65431", "65432");
    let mut dead = hold(directory, dead_mark);
    let mut live = hold(directory, live_mark);
    assert_eq!(
        (owners(&state), mounts_in(&state)),
        (3, 8),
        "each has its memory, ours a network, theirs a network and a root each"
    );
    dead.kill();
    // Killing the owner does not end its container: that is what clearing is for.
    assert_eq!(running(dead_mark), 1);
    let next = Host::open(&state).unwrap();
    assert_eq!((running(dead_mark), running(live_mark)), (0, 1));
    assert_eq!((owners(&state), mounts_in(&state)), (3, 6));
    live.kill();
    drop(Host::open(&state).unwrap());
    drop(next);
    assert_eq!((running(live_mark), owners(&state), mounts_in(&state)), (0, 1, 2));
    let network = ground.host.network().unwrap();
    assert!(network.path().exists());
}

#[test]
fn whoever_ends_in_order_leaves_nothing() {
    let Some(ground) = ground() else { return };
    let state = ground.directory.path().join("other");
    let host = Host::open(&state).unwrap();
    let (network, root) =
        (host.network().unwrap(), host.overlay(std::slice::from_ref(&ground.base)).unwrap());
    let done = process(Profile::Build, &["true"]);
    assert!(host.run(&done, root.merged(), &network, &mut |_, _| {}).unwrap().is_success());
    drop(host);
    assert!(root.merged().join("bin/true").symlink_metadata().is_ok(), "a root outlives its host");
    drop((network, root));
    assert_eq!((owners(&state), mounts_in(&state)), (0, 0));
}
