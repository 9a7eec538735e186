//! What starts containers. The only start function takes the proof of admission and starts exactly the digest inside it.

mod docker;
mod oci;

use attestations::Admitted;
use images::{Image, Store};
use sandbox::Canceller;

use crate::config::{Config, EngineKind, Limits};
use crate::egress::Proxy;
use crate::error::{Error, Kind, Result};
use crate::task::Files;

/// Everything a start needs besides the proof.
pub struct Job<'a> {
    /// The image, pulled by the digest of the proof.
    pub image: &'a Image,
    /// The store that holds it.
    pub store: &'a Store,
    /// The run's files.
    pub files: &'a Files,
    /// The run's way out.
    pub proxy: Proxy,
    /// What it may use.
    pub limits: &'a Limits,
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

/// Something that starts containers.
pub enum Engine {
    /// The machine's OCI runtime.
    Oci(oci::Oci),
    /// Docker's engine.
    Docker(docker::Docker),
}

impl Engine {
    /// The engine that the configuration names.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(kind: EngineKind, config: &Config) -> Result<Self> {
        match kind {
            EngineKind::Oci => oci::Oci::open(config).map(Self::Oci),
            EngineKind::Docker => docker::Docker::open(config).map(Self::Docker),
        }
    }

    /// Starts the admitted image and waits for its end. What it prints goes to `output`.
    ///
    /// # Errors
    /// When the image is not the admitted one, or the engine fails.
    pub fn start(&self, admitted: &Admitted, job: Job<'_>, output: &mut dyn FnMut(&[u8])) -> Result<Ending> {
        check(admitted, job.image)?;
        match self {
            Self::Oci(oci) => oci.start(job, output),
            Self::Docker(docker) => docker.start(job, output),
        }
    }
}

/// The last look before the start: manifest and config are those that were admitted.
fn check(admitted: &Admitted, image: &Image) -> Result<()> {
    let wanted = (admitted.pinned().digest(), admitted.config_digest());
    let found = (&image.digest(), &image.config_descriptor().digest);
    if wanted == found {
        return Ok(());
    }
    let (manifest, config) = wanted;
    Err(Error::new(
        Kind::Refused,
        format!(
            "the image at hand is not the admitted one: {manifest} with config {config} was admitted, {} with {} is here",
            found.0, found.1
        ),
    ))
}

/// The environment of the container: the image's own, with the run's on top.
fn environment(job: &Job<'_>) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let own = job.image.config().config.env.iter().filter_map(|line| line.split_once('='));
    for (name, value) in
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(job.files.env().iter().cloned())
    {
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    env
}

/// What the image runs: its entrypoint and its command.
fn command(job: &Job<'_>) -> Result<Vec<String>> {
    let config = &job.image.config().config;
    let parts = [&config.entrypoint, &config.cmd];
    let command: Vec<String> = parts.into_iter().flatten().flatten().cloned().collect();
    if command.is_empty() {
        return Err(Error::new(Kind::Input, "the image says neither by ENTRYPOINT nor by CMD what to run"));
    }
    Ok(command)
}
