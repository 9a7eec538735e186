use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result};

const ROOT: &str = "/sys/fs/cgroup";
/// Below each hierarchy's root: the parent of all our containers' groups.
const PARENT: &str = "countersign";
/// How long killed processes may take to leave their group.
const PATIENCE: Duration = Duration::from_secs(10);

/// The group of a container, as the runtime's configuration names it.
pub(crate) fn path_of(id: &str) -> String {
    format!("/{PARENT}/{id}")
}

/// Whether the kernel counts swap, without which a limit on it is refused.
pub(crate) fn counts_swap() -> bool {
    unified() || Path::new(ROOT).join("memory/memory.memsw.limit_in_bytes").exists()
}

/// How many processes of the container the kernel has killed for memory. Its group must still be there.
pub(crate) fn killed_for_memory(id: &str) -> Result<u64> {
    let file = match unified() {
        true => Path::new(ROOT).join(PARENT).join(id).join("memory.events"),
        false => Path::new(ROOT).join("memory").join(PARENT).join(id).join("memory.oom_control"),
    };
    let text = fs::read_to_string(&file).map_err(Error::path("read", &file))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.ok_or_else(|| Error::path("read", &file)(io::Error::other("no line `oom_kill`")))
}

/// Kills what is in the groups whose name begins with `prefix`, and removes them.
pub(crate) fn clear(prefix: &str) -> Result<()> {
    for parent in hierarchies()?.into_iter().map(|root| root.join(PARENT)) {
        let Ok(entries) = fs::read_dir(&parent) else { continue };
        for entry in entries {
            let group = entry.map_err(Error::path("list", &parent))?;
            if group.file_name().to_string_lossy().starts_with(prefix) {
                remove(&group.path())?;
            }
        }
    }
    Ok(())
}

fn remove(group: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        for line in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Ok(pid) = line.parse::<i32>()
                && pid > 0
            {
                // Gone in the meantime is as good.
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > end => return Err(Error::path("remove the cgroup", group)(error)),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether there is but the one hierarchy of cgroup v2.
fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if unified() {
        return Ok(vec![root.to_path_buf()]);
    }
    let entries = fs::read_dir(root).map_err(Error::path("list", root))?;
    entries.map(|entry| Ok(entry.map_err(Error::path("list", root))?.path())).collect()
}
