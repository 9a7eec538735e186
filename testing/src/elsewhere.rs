//! What looks like another machine, as far as a process can tell, a day later and without any network.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::kept;
use crate::programs::{Outcome, run};

/// How many seconds its clock is ahead: a day, and so much that no part of a date is the same.
pub const AHEAD: u64 = 93_784;

/// Stands where `runc` is looked for first.
const RUNC: &str = include_str!("later-runc.py");
/// `$1` holds the programs that stand before the machine's own, `$2` is the number of the one processor.
const SCRIPT: &str = "set -e; mount --bind \"$1\" /usr/local/sbin; shift; umask 077; hostname elsewhere; cpu=$1; shift; exec taskset --cpu-list \"$cpu\" \"$@\"";

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Runs a program there: no network, not even a loopback that is up; one processor; another locale, time zone, umask, host name,
/// home and user. What it starts by `runc` sees a clock that is [`AHEAD`].
pub fn elsewhere(program_and_arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    // Not the one that is hidden by what stands before it.
    let places = ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .map(|place| Path::new(place).join("runc"));
    let real = places.into_iter().find(|place| place.is_file()).expect("runc is installed");
    let text = [("@RUNC@", real.display()), ("@CLOCK@", clock().display())]
        .iter()
        .fold(RUNC.replace("@AHEAD@", &AHEAD.to_string()), |text, (mark, path)| {
            text.replace(mark, &path.to_string())
        });
    let wrapper = folder.path().join("runc");
    std::fs::write(&wrapper, text).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let namespaces = ["--net", "--uts", "--mount", "--"];
    let environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nowhere", "USER=somebody"];
    let locale = ["LC_ALL=tr_TR.UTF-8", "TZ=Pacific/Kiritimati"];
    // Not the same one each time: tests that run side by side would all wait for it.
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = (CALLS.fetch_add(1, Ordering::Relaxed) % count).to_string();
    let script = ["sh", "-c", SCRIPT, "sh", folder.path().to_str().unwrap(), &processor];
    run("unshare", [&namespaces[..], &environment, &locale, &script, program_and_arguments].concat())
}

/// Debian's library that moves the clock of the program that loads it: its form for programs with threads, and of the release
/// whose C library the bases have. Fetched at its first use and kept beside them.
fn clock() -> PathBuf {
    kept("libfaketimeMT.so.1", |tree| {
        let status = std::process::Command::new("mmdebstrap")
            .args(["--quiet", "--variant=extract", "--include=libfaketime", "bookworm"])
            .arg(tree)
            .status()
            .unwrap();
        assert!(status.success(), "mmdebstrap could not fetch libfaketime");
        let found = std::fs::read_dir(tree.join("usr/lib")).unwrap().map(|entry| entry.unwrap().path());
        let library = |folder: PathBuf| folder.join("faketime/libfaketimeMT.so.1");
        found.map(library).find(|path| Path::new(path).exists()).expect("libfaketimeMT.so.1")
    })
}
