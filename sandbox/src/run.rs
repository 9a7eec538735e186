use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use libc::sock_filter;

use crate::owned::Owned;
use crate::{Canceller, Error, Exit, Process, Result, Stream, cgroup, config, filter, memory, mounts};

/// How often a canceller is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a killed tree may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long output may still come after everybody who could write it is dead.
const DRAIN: Duration = Duration::from_secs(5);
/// Bytes of output handed on at one time.
const CHUNK: usize = 16 * 1024;
/// Bytes of the runtime's log that are read, from its end: what stopped it stands there.
const MAX_LOG: u64 = 1 << 20;

enum Event {
    Output(Stream, Vec<u8>),
    Closed,
    Ended(std::io::Result<ExitStatus>),
}

/// One container, from its configuration to its removal.
struct OwnedRun<'a> {
    owned: &'a Owned,
    id: String,
    bundle: PathBuf,
    /// Whether the container is kept until we have read its memory accounting.
    keep: bool,
}

impl Drop for OwnedRun<'_> {
    fn drop(&mut self) {
        if let Err(error) = mounts::remove_tree(&self.bundle) {
            tracing::warn!(%error, "left behind, to be cleared later");
        }
    }
}

pub(crate) fn run(
    owned: &Owned,
    process: &Process,
    root: &Path,
    network: &Path,
    output: &mut dyn FnMut(Stream, &[u8]),
    canceller: &Canceller,
) -> Result<Exit> {
    if canceller.is_cancelled() {
        return Ok(Exit::Cancelled);
    }
    let id = owned.fresh_id();
    let configuration = config::of(process, &id, root, network)?;
    let run = OwnedRun { owned, id, bundle: owned.fresh("run"), keep: process.limits.memory.is_some() };
    fs::create_dir(&run.bundle).map_err(Error::path("create", &run.bundle))?;
    if process.confidential {
        memory::cover(&run.bundle)?;
    }
    let file = run.bundle.join("config.json");
    fs::write(&file, configuration.to_string()).map_err(Error::path("write", &file))?;
    let filter = filter::of(process.profile)?;
    let ended = run.start(filter).and_then(|events| {
        let attend = || run.attend(&events, process.limits.wall, output, canceller);
        // When the caller's `output` panics, nothing runs on behind the caller's back.
        panic::catch_unwind(AssertUnwindSafe(attend)).unwrap_or_else(|caught| {
            if let Err(error) = run.kill(&events).and_then(|()| owned.runtime.delete_force(&run.id)) {
                tracing::warn!(%error, id = run.id, "a container is left, to be cleared later");
            }
            panic::resume_unwind(caught)
        })
    });
    run.finish(ended)
}

/// Why attending came to its end.
enum End {
    Itself(ExitStatus),
    Stopped(Exit),
}

impl OwnedRun<'_> {
    /// Starts the runtime in the foreground, and a thread for each thing it can tell us.
    fn start(&self, filter: &'static [sock_filter]) -> Result<Receiver<Event>> {
        let mut child = self.spawn(filter)?;
        // Bounded: a program that writes faster than we read waits.
        let (sender, receiver) = mpsc::sync_channel(32);
        let pipes: [(Stream, Option<Box<dyn Read + Send>>); 2] = [
            (Stream::Stdout, child.stdout.take().map(|pipe| Box::new(pipe) as _)),
            (Stream::Stderr, child.stderr.take().map(|pipe| Box::new(pipe) as _)),
        ];
        for (stream, pipe) in pipes {
            if let Some(pipe) = pipe {
                let sender = sender.clone();
                self.in_background(move || read(stream, pipe, &sender))?;
            }
        }
        self.in_background(move || drop(sender.send(Event::Ended(child.wait()))))?;
        Ok(receiver)
    }

    fn spawn(&self, filter: &'static [sock_filter]) -> Result<Child> {
        let mut command = self.owned.runtime.command();
        command.arg("--log").arg(self.bundle.join("log")).args(["--log-format", "json", "run"]);
        command.arg("--bundle").arg(&self.bundle).arg("--pid-file").arg(self.pid_file());
        if self.keep {
            command.arg("--keep");
        }
        command.arg(&self.id).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that Ctrl-C reaches us alone and we end the container in order.
        command.process_group(0);
        #[expect(unsafe_code, reason = "the standard library has no safe way to act between fork and exec")]
        // SAFETY: between fork and exec only `prctl`, `getppid` and `seccomp` are called, which are async-signal-safe and
        // allocate nothing. The effect of the first two: when we are killed while the runtime is still setting up, or were killed
        // before it could ask for that, it dies too, and cannot start a container after the next program has already
        // cleared our things.
        unsafe {
            let us = std::process::id();
            command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 if u32::try_from(libc::getppid()) == Ok(us) => filter::install(filter),
                0 => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        command.spawn().map_err(Error::system("start runc"))
    }

    fn in_background(&self, act: impl FnOnce() + Send + 'static) -> Result<()> {
        let spawned = thread::Builder::new().name("sandbox".into()).spawn(act);
        spawned.map(drop).map_err(Error::system("start a thread"))
    }

    /// Hands on output until the process ends, or its time is over, or somebody cancels.
    fn attend(
        &self,
        events: &Receiver<Event>,
        wall: Option<Duration>,
        output: &mut dyn FnMut(Stream, &[u8]),
        canceller: &Canceller,
    ) -> Result<End> {
        let deadline = wall.and_then(|wall| Instant::now().checked_add(wall));
        let mut open = 2;
        loop {
            let now = Instant::now();
            let stop = if canceller.is_cancelled() {
                Some(Exit::Cancelled)
            } else {
                deadline.filter(|deadline| *deadline <= now).map(|_| Exit::TimedOut)
            };
            if let Some(exit) = stop {
                self.kill(events)?;
                return Ok(End::Stopped(exit));
            }
            let left = deadline.map_or(GLANCE, |deadline| (deadline - now).min(GLANCE));
            match events.recv_timeout(left) {
                Ok(Event::Output(stream, bytes)) => output(stream, &bytes),
                Ok(Event::Closed) => open -= 1,
                Ok(Event::Ended(status)) => {
                    drain(events, open, output);
                    return status.map(End::Itself).map_err(Error::system("wait for runc"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::system("wait for runc")(std::io::Error::other("its watcher is gone")));
                }
            }
        }
    }

    /// Kills every process of the container and waits until the runtime has seen it. A container that is only just
    /// being made cannot be killed yet, so it is tried again.
    fn kill(&self, events: &Receiver<Event>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Err(error) = self.owned.runtime.delete_force(&self.id) {
                tracing::debug!(%error, id = self.id, "not killed yet");
            }
            let next = Instant::now() + Duration::from_millis(300);
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                match events.recv_timeout(left) {
                    Ok(Event::Ended(_)) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    // What a killed tree still had to say is of no use, but it must not block the pipe.
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                }
            }
        }
        Err(Error::Stuck { id: self.id.clone(), seconds: PATIENCE.as_secs() })
    }

    /// Reads what the runtime left, and makes it forget the container.
    fn finish(&self, ended: Result<End>) -> Result<Exit> {
        let status = match ended {
            Ok(End::Itself(status)) => status,
            Ok(End::Stopped(exit)) => {
                self.owned.runtime.delete_force(&self.id)?;
                return Ok(exit);
            }
            Err(error) => {
                self.owned.runtime.delete_force(&self.id)?;
                return Err(error);
            }
        };
        if !self.pid_file().exists() {
            self.owned.runtime.delete_force(&self.id)?;
            return self.never_started();
        }
        let mut exit = meaning(status);
        if self.keep {
            if !exit.is_success() && cgroup::killed_for_memory(&self.id)? > 0 {
                exit = Exit::OutOfMemory;
            }
            self.owned.runtime.delete(&self.id)?;
        }
        Ok(exit)
    }

    /// The runtime writes the file of process ids once the container is there: without it, it failed by itself.
    fn never_started(&self) -> Result<Exit> {
        let log = read_end(&self.bundle.join("log"), MAX_LOG).unwrap_or_default();
        let entries = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut messages =
            entries.filter(|entry| entry["level"] == "error").map(|entry| entry["msg"].clone());
        let message = messages.next_back().and_then(|value| value.as_str().map(str::to_owned));
        let message = message.unwrap_or_else(|| "it ended without a word".into());
        let about_program = message.contains("exec: \"");
        if about_program && (message.contains("not found") || message.contains("no such file")) {
            return Ok(Exit::Code(127));
        }
        if about_program && (message.contains("permission denied") || message.contains("is a directory")) {
            return Ok(Exit::Code(126));
        }
        Err(Error::Runtime { message })
    }

    fn pid_file(&self) -> PathBuf {
        self.bundle.join("pid")
    }
}

/// The last `most` bytes of a file, as text.
fn read_end(path: &Path, most: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read(stream: Stream, mut pipe: Box<dyn Read + Send>, sender: &SyncSender<Event>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if sender.send(Event::Output(stream, buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, ?stream, "output of a container ends early");
                break;
            }
        }
    }
    // Nobody listens any more when the run was stopped.
    sender.send(Event::Closed).ok();
}

/// Takes what is still in the pipes. Whoever could write to them is dead, so their end is near.
fn drain(events: &Receiver<Event>, mut open: u8, output: &mut dyn FnMut(Stream, &[u8])) {
    let end = Instant::now() + DRAIN;
    while open > 0 {
        match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::Output(stream, bytes)) => output(stream, &bytes),
            Ok(Event::Closed) => open -= 1,
            Ok(Event::Ended(_)) => {}
            Err(_) => {
                tracing::warn!("the output of a container that has ended stays open: the rest is dropped");
                return;
            }
        }
    }
}

/// The runtime passes on a code as it is, and a signal as 128 and its number.
fn meaning(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code @ 129..=192), _) => Exit::Signal(code - 128),
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_a_long_log_the_end_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "first\nlast\n").unwrap();
        assert_eq!(read_end(file.path(), 5).unwrap(), "last\n");
        assert_eq!(read_end(file.path(), 500).unwrap(), "first\nlast\n");
        assert!(read_end(&file.path().join("none"), 5).is_err());
    }
}
