//! What starts containers. The only start function takes an admitted call, and starts the image inside it.

mod archive;
mod docker;
mod oci;
mod owned;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use attestations::Foreign;
use sandbox::{Canceller, User};

use crate::config::{Config, EngineKind, LimitSettings};
use crate::egress::{self, Proxy};
use crate::error::{Error, Kind, Result};
use crate::vantage6::{AdmittedCall, Files};

/// Docker's own value for an image that sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything a start needs.
pub(crate) struct Job<'a> {
    /// What was admitted: the image at hand, and the function that may be called.
    pub call: &'a AdmittedCall,
    /// The run's files.
    pub files: &'a Files,
    /// The run's way out.
    pub proxy: Proxy,
    /// What it may use.
    pub limits: &'a LimitSettings,
    /// Ends it early.
    pub canceller: &'a Canceller,
    /// The runtime on which the proxy serves.
    pub runtime: &'a tokio::runtime::Handle,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal.
    Signal(i32),
    /// Its time was over.
    TimedOut,
    /// It wanted more memory than it may have.
    OutOfMemory,
    /// It was told to.
    Cancelled,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal} ended it"),
            Self::TimedOut => f.write_str("its time was over"),
            Self::OutOfMemory => f.write_str("it wanted more memory than it may have"),
            Self::Cancelled => f.write_str("it was cancelled"),
        }
    }
}

/// How a container ended, and what it asked of the outside before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How.
    pub ending: Ending,
    /// What its proxy passed and refused.
    pub egress: egress::EgressLog,
}

/// Something that starts containers.
pub(crate) enum Engine {
    /// The machine's OCI runtime.
    Oci(oci::Oci),
    /// Docker's engine.
    Docker(docker::Docker),
}

impl Engine {
    /// The engine that the configuration names, cleared of what killed programs left. Nothing of an image is touched.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn open(kind: EngineKind, config: &Config, runtime: &tokio::runtime::Handle) -> Result<Self> {
        match kind {
            EngineKind::Oci => oci::Oci::open(config).map(Self::Oci),
            EngineKind::Docker => docker::Docker::open(config, runtime).map(Self::Docker),
        }
    }

    /// What is written down about it.
    pub(crate) fn told(&self) -> attestations::run::Engine {
        let (name, version) = match self {
            Self::Oci(oci) => ("oci", oci.version()),
            Self::Docker(docker) => ("docker", docker.version()),
        };
        let runner = env!("CARGO_PKG_VERSION").to_owned();
        attestations::run::Engine {
            name: name.to_owned(),
            version: Foreign::new(version).to_string(),
            runner,
        }
    }

    /// Starts the admitted image and waits for its end. What it prints goes to `output`.
    ///
    /// # Errors
    /// When the engine fails.
    pub(crate) fn start(&self, job: Job<'_>, output: &mut dyn FnMut(&[u8])) -> Result<Ended> {
        match self {
            Self::Oci(oci) => oci.start(job, output),
            Self::Docker(docker) => docker.start(job, output),
        }
    }
}

/// A failure of the proxy.
fn proxy_failed(cause: egress::Error) -> Error {
    Error::new(Kind::Machine, "serving the algorithm's way out").because(cause)
}

/// The environment of the container: the image's own, with the run's on top.
fn environment(job: &Job<'_>) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let own = job.call.image().config().config.env.iter().filter_map(|line| line.split_once('='));
    for (name, value) in
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(job.files.env().iter().cloned())
    {
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    }
    env
}

/// That the algorithm can read its data. It holds no capability, so for it, as for root, the permission bits alone count.
///
/// Where access control lists decide instead, the algorithm has to find out.
fn check_readable(job: &Job<'_>, user: &User) -> Result<()> {
    for mounted in job.files.mounts() {
        let source = &mounted.source;
        let found = std::fs::metadata(source).map_err(|cause| Error::io("finding", source, cause))?;
        let wanted = if found.is_dir() { 0o5 } else { 0o4 };
        let class = if found.uid() == user.uid {
            6
        } else if found.gid() == user.gid || user.groups.contains(&found.gid()) {
            3
        } else {
            0
        };
        if found.mode() >> class & wanted != wanted && !has_access_list(source) {
            return Err(Error::new(
                Kind::Input,
                format!(
                    "the algorithm, which runs as user {} and group {}, may not read {} (mode {:03o}, user {}, group {})",
                    user.uid, user.gid, source.display(), found.mode() & 0o777, found.uid(), found.gid()
                ),
            )
            .hint("let that user read it (chmod, chown or setfacl): algorithms hold no capability that would open it"));
        }
    }
    Ok(())
}

fn has_access_list(path: &Path) -> bool {
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0_u8; 0][..]).is_ok_and(|size| size > 0)
}

/// What the image runs: its entrypoint and its command.
fn command(job: &Job<'_>) -> Result<Vec<String>> {
    let config = &job.call.image().config().config;
    let parts = [&config.entrypoint, &config.cmd];
    let command: Vec<String> = parts.into_iter().flatten().flatten().cloned().collect();
    if command.is_empty() {
        return Err(Error::new(Kind::Input, "the image says neither by ENTRYPOINT nor by CMD what to run"));
    }
    Ok(command)
}
