use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// The `runc` program, with a directory of its own for what it remembers.
#[derive(Debug)]
pub(crate) struct Runtime {
    program: PathBuf,
    root: PathBuf,
}

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

    /// Forgets a container that has ended.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        self.call(&["delete", id])
    }

    /// Kills a container's every process and forgets it. One that is not there is fine.
    pub(crate) fn delete_force(&self, id: &str) -> Result<()> {
        self.call(&["delete", "--force", id])
    }

    fn call(&self, arguments: &[&str]) -> Result<()> {
        let ended = self.command().args(arguments).output().map_err(Error::path("run", &self.program))?;
        match ended.status.success() {
            true => Ok(()),
            false => {
                Err(Error::Runtime { message: String::from_utf8_lossy(&ended.stderr).trim().to_owned() })
            }
        }
    }
}
