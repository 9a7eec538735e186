use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The `runc` program, with a directory of its own for what it remembers.
#[derive(Debug)]
pub(crate) struct Runtime {
    program: PathBuf,
    root: PathBuf,
}

/// How long `runc` may take to forget a container; it waits ten seconds for the container's processes itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(1);
/// The most bytes of its complaint that are read.
const COMPLAINT: u64 = 1 << 16;

/// Not the caller's `PATH`: what is run as root is looked for where only root installs.
const SEARCHED: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

impl Runtime {
    pub(crate) fn find() -> Result<PathBuf> {
        let places = SEARCHED.iter().map(|directory| Path::new(directory).join("runc"));
        places
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| Error::NoRuntime { searched: SEARCHED.join(", ") })
    }

    pub(crate) fn new(program: &Path, root: &Path) -> Self {
        Self { program: program.into(), root: root.into() }
    }

    /// The program with an environment that owes nothing to ours.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", SEARCHED.join(":")).arg("--root").arg(&self.root);
        command.stdin(Stdio::null());
        command
    }

    /// The first line of what it says to `--version`, such as `runc version 1.1.15`.
    pub(crate) fn version(program: &Path) -> Result<String> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().map_err(Error::path("run", program))?;
        wait(&mut child, PATIENCE).map_err(Error::path("wait for", program))?;
        let mut told = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(COMPLAINT).read_to_end(&mut told).map_err(Error::path("read from", program))?;
        }
        Ok(String::from_utf8_lossy(&told).lines().next().unwrap_or_default().to_owned())
    }

    /// Forgets a container that has ended.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        self.call(&["delete", id])
    }

    /// Kills a container's every process and forgets it. One that is not there is fine.
    pub(crate) fn delete_force(&self, id: &str) -> Result<()> {
        self.call(&["delete", "--force", id])
    }

    fn call(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::path("run", &self.program))?;
        match wait(&mut child, PATIENCE).map_err(Error::path("wait for", &self.program))? {
            Some(status) if status.success() => Ok(()),
            Some(_) => {
                let mut message = Vec::new();
                if let Some(stderr) = child.stderr.take() {
                    stderr
                        .take(COMPLAINT)
                        .read_to_end(&mut message)
                        .map_err(Error::path("read from", &self.program))?;
                }
                Err(Error::Runtime { message: String::from_utf8_lossy(&message).trim().to_owned() })
            }
            None => Err(Error::Runtime {
                message: format!("`{}` did not end within {} s", arguments.join(" "), PATIENCE.as_secs()),
            }),
        }
    }
}

/// How a child ended; none, and the child is killed, when it does not end in time.
fn wait(child: &mut Child, time: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nobody_waits_for_ever() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let begun = Instant::now();
        assert_eq!(wait(&mut child, Duration::from_millis(20)).unwrap(), None);
        assert!(begun.elapsed() < Duration::from_secs(30));
        let mut child = Command::new("true").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_secs(30)).unwrap().unwrap().success());
    }
}
