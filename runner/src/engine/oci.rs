//! On the machine's OCI runtime, without a daemon.

use std::net::{Ipv4Addr, SocketAddr};

use images::LayerCache;
use sandbox::{Exit, Host, Mount, MountPoint, Process, Profile, Tmpfs, resolve_user};

use super::{Ended, Ending, Job, check_readable, command, environment};
use crate::config::Config;
use crate::error::{self, Error, Kind, Result};
use crate::vantage6::{PROXY_PORT, temporary_folders};

/// The OCI runtime with its unpacked layers.
pub(crate) struct Oci {
    host: Host,
    layers: LayerCache,
    version: String,
}

impl Oci {
    pub(super) fn open(config: &Config) -> Result<Self> {
        let host = Host::open(&config.state_dir.join("sandbox"))
            .map_err(|cause| error::sandbox("preparing the sandbox", cause))?;
        let version = host
            .runtime_version()
            .map_err(|cause| error::sandbox("asking the runtime its version", cause))?;
        let layers = LayerCache::open(config.state_dir.join("layers"))
            .map_err(|cause| cause.during("opening the unpacked layers"))?;
        Ok(Self { host, layers, version })
    }

    /// What the runtime says that it is.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn start(&self, job: Job<'_>, output: &mut dyn FnMut(&[u8])) -> Result<Ended> {
        let failed = |cause| error::sandbox("confining the algorithm", cause);
        let lowers = self
            .layers
            .lower_dirs(job.call.store(), job.call.image())
            .map_err(|cause| cause.during("unpacking the image"))?;
        let mut process = process(&job)?;
        let points = MountPoint::of(&process);
        let root = if job.limits.writable_root {
            self.host.overlay_with(&lowers, &points)
        } else {
            self.host.overlay_readonly_with(&lowers, &points)
        };
        let root = root.map_err(failed)?;
        let user = &job.call.image().config().config.user;
        process.user = resolve_user(root.merged(), user).map_err(|cause| {
            Error::new(Kind::Input, format!("the image's USER `{user}` is not usable")).because(cause)
        })?;
        check_readable(&job, &process.user)?;
        let network = self.host.network().map_err(failed)?;
        // The way out is there before anything of the image runs.
        let listener = network.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, PROXY_PORT))).map_err(failed)?;
        let serving = {
            let _runtime = job.runtime.enter();
            job.proxy.serve(listener).map_err(super::proxy_failed)?
        };
        let exit = self
            .host
            .run_until(&process, root.merged(), &network, &mut |_, bytes| output(bytes), job.canceller)
            .map_err(failed)?;
        let ending = match exit {
            Exit::Code(code) => Ending::Exited(code),
            Exit::Signal(signal) => Ending::Signal(signal),
            Exit::TimedOut => Ending::TimedOut,
            Exit::OutOfMemory => Ending::OutOfMemory,
            Exit::Cancelled => Ending::Cancelled,
        };
        Ok(Ended { ending, egress: serving.log() })
    }
}

fn process(job: &Job<'_>) -> Result<Process> {
    let config = &job.call.image().config().config;
    let mut process =
        Process::new(Profile::Algorithm { writable_root: job.limits.writable_root }, command(job)?);
    process.env = environment(job);
    process.cwd = if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() };
    process.hostname = "algorithm".to_owned();
    let mounts = job.files.mounts().iter();
    process.mounts = mounts
        .map(|it| Mount { source: it.source.clone(), target: it.target.clone(), readonly: it.readonly })
        .collect();
    process.tmpfs = temporary_folders()
        .map(|target| Tmpfs { target, size: job.limits.temporary(), readonly: false })
        .into();
    process.limits = sandbox::ProcessLimits {
        memory: Some(job.limits.memory()),
        pids: Some(job.limits.pids),
        cpus: Some(job.limits.cpus),
        wall: Some(job.limits.wall()),
        file_size: Some(job.limits.temporary()),
        ..Default::default()
    };
    Ok(process)
}
