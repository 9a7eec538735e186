//! A program of this machine that sees the sandbox's network instead of the machine's own.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Network;
use crate::{Canceller, Error, Result};

/// How often a canceller is looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// Most bytes of each output stream; a program that writes more finds it closed.
const MAX_OUTPUT: u64 = 1 << 20;

/// What came of a program.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// The beginning of its standard output.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
    /// Whether it was ended because somebody had enough.
    pub cancelled: bool,
}

impl Network {
    /// Runs a program of this machine that we trust, with its own root and rights, in this network: nothing but the planted
    /// listeners answers it. `over` are files of ours that it sees in place of the machine's, such as `/etc/resolv.conf`;
    /// where the machine has no such file, there is none. Nobody else sees them.
    ///
    /// It is in a process group of its own, which is killed with the canceller. When we are killed ourselves, so are the
    /// listeners, and what it waits for breaks off.
    ///
    /// # Errors
    /// When the namespaces cannot be entered or the program cannot be started.
    pub fn run_program(
        &self,
        mut command: Command,
        over: &[(PathBuf, PathBuf)],
        canceller: &Canceller,
    ) -> Result<Ran> {
        let program = PathBuf::from(command.get_program());
        self.enter(|_| {
            cover(over).map_err(Error::system("enter the sandbox's network"))?;
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
            let child = command.spawn().map_err(Error::path("start", &program))?;
            attend(child, canceller).map_err(Error::path("wait for", &program))
        })
    }
}

/// Gives the thread a view of the mounts of its own, which the program inherits and which ends with both.
fn cover(over: &[(PathBuf, PathBuf)]) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for (ours, theirs) in over.iter().filter(|(_, theirs)| theirs.exists()) {
        mount(Some(ours), theirs, none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}

fn attend(mut child: Child, canceller: &Canceller) -> io::Result<Ran> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let group = Pid::from_child(&child);
    thread::scope(|scope| {
        let stdout = scope.spawn(|| beginning(stdout));
        let stderr = scope.spawn(|| beginning(stderr));
        let mut cancelled = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if !cancelled && canceller.is_cancelled() {
                cancelled = true;
                // It may have ended just now.
                let _ = kill_process_group(group, Signal::KILL);
            }
            thread::sleep(GLANCE);
        };
        let text = |taken: thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            taken.join().unwrap_or_else(|_| Err(io::Error::other("the helper thread ended early")))
        };
        Ok(Ran { status, stdout: text(stdout)?, stderr: text(stderr)?, cancelled })
    })
}

fn beginning(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
