//! How much a run costs beside a bare `runc run` of the same configuration: `overhead <root> [rounds [algorithm]]`, as root.
//!
//! `<root>` is a root file system with `/bin/true`. Reported are medians; the aim is 1.5 times at most.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a measurement, not a program")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::{Host, Process, Profile};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let base = PathBuf::from(arguments.next().unwrap());
    let rounds: usize = arguments.next().map_or(30, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let host = Host::open(&directory.path().join("state")).unwrap();
    let algorithm = std::env::args().any(|argument| argument == "algorithm");
    let profile = if algorithm { Profile::Algorithm { writable_root: true } } else { Profile::Build };
    let process = Process::new(profile, ["/bin/true"]);

    let ours = median(rounds, || {
        let network = host.network().unwrap();
        let root = host.overlay(std::slice::from_ref(&base)).unwrap();
        assert!(host.run(&process, root.merged(), &network, &mut |_, _| {}).unwrap().is_success());
    });
    let (network, root) = (host.network().unwrap(), host.overlay(&[base]).unwrap());
    let run_only = median(rounds, || {
        assert!(host.run(&process, root.merged(), &network, &mut |_, _| {}).unwrap().is_success());
    });
    let bundle = directory.path().join("bundle");
    let bare = bare_bundle(&bundle, root.merged());
    let bare = median(rounds, || assert!(bare(&bundle)));
    let times = |time: Duration| time.as_secs_f64() / bare.as_secs_f64();
    println!("bare runc run                 {bare:>8.1?}");
    println!("host.run                      {run_only:>8.1?}  {:.2} times", times(run_only));
    println!("network + overlay + host.run  {ours:>8.1?}  {:.2} times", times(ours));
}

/// The runtime's own default configuration, which has neither a filter of system calls nor pipes.
fn bare_bundle(bundle: &std::path::Path, root: &std::path::Path) -> impl Fn(&PathBuf) -> bool + use<> {
    std::fs::create_dir(bundle).unwrap();
    assert!(Command::new("runc").args(["spec", "--bundle"]).arg(bundle).status().unwrap().success());
    let file = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = vec!["/bin/true"].into();
    config["root"]["path"] = root.to_str().unwrap().into();
    std::fs::write(file, config.to_string()).unwrap();
    |bundle| {
        let mut command = Command::new("runc");
        command.args(["run", "--bundle"]).arg(bundle).arg(format!("bare-{}", std::process::id()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success()
    }
}

fn median(rounds: usize, mut act: impl FnMut()) -> Duration {
    act();
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            act();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}
