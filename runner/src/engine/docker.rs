//! On Docker's engine. The image comes from our own verified store and is started by its id, which is the digest of its
//! config; names and tags of the local engine are never asked.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::ClientVersion;
use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountBindOptions, MountType, ResourcesUlimits,
};
use bollard::query_parameters::{AttachContainerOptions, ImportImageOptions, WaitContainerOptions};
use errors::files::{self, Existing};
use futures_util::{Stream, StreamExt};
use sandbox::{Canceller, Network, User};

use super::owned::{self, Volumes};
use super::{Ended, Ending, Job, archive, check_readable, command, environment};
use crate::config::Config;
use crate::error::{self, Error, Kind, Result};
use crate::vantage6::{PROXY_PORT, temporary_folders};

/// Seconds that the gate waits for the proxy.
const GATE_SECONDS: &str = "30";
/// Bytes of a core dump. Not 0: that would not keep the kernel from handing the memory, with the data in it, to a program
/// of this machine where /proc/sys/kernel/core_pattern names one; 1 does.
const CORE: i64 = 1;
const GATE: &str = "/countersign-gate";

/// Docker's engine.
pub(crate) struct Docker {
    client: bollard::Docker,
    gate: PathBuf,
    version: String,
}

impl Docker {
    pub(super) fn open(config: &Config, runtime: &tokio::runtime::Handle) -> Result<Self> {
        if !config.docker_socket.exists() {
            return Err(Error::new(Kind::Machine, format!("no Docker engine listens on {}", config.docker_socket.display()))
                .hint("start it, name its socket as docker_socket in runner.toml, or use the engine \"oci\", which needs no daemon"));
        }
        let gate = config.state_dir.join("gate");
        place_gate(&gate)?;
        let told = ping(&config.docker_socket).and_then(|told| Ok((version_of(&told)?, server_of(&told))));
        let (version, server) =
            told.map_err(|cause| Error::new(Kind::Machine, "reaching Docker's engine").because(cause))?;
        let socket = config.docker_socket.to_string_lossy();
        let _entered = runtime.enter();
        let client = bollard::Docker::connect_with_unix(&socket, 120, &version)
            .map_err(failed("reaching Docker's engine"))?;
        runtime.block_on(owned::clear_leftovers(&client))?;
        Ok(Self { client, gate, version: server })
    }

    /// What the engine says that it is.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn start(&self, job: Job<'_>, output: &mut dyn FnMut(&[u8])) -> Result<Ended> {
        let runtime = job.runtime.clone();
        runtime.block_on(self.run(job, output))
    }

    async fn run(&self, job: Job<'_>, output: &mut dyn FnMut(&[u8])) -> Result<Ended> {
        let docker = &self.client;
        if let Some(user) = plain_user(&job.call.image().config().config.user) {
            check_readable(&job, &user)?;
        }
        let id = ensure_image(docker, &job).await?;
        let volumes = volumes(&job);
        let body = self.container(&job, &id, &volumes)?;
        let ending = run_once(docker, body, job, output).await;
        let removed = volumes.remove(docker).await;
        let ending = ending?;
        removed?;
        Ok(ending)
    }

    fn container(&self, job: &Job<'_>, image: &str, volumes: &Volumes) -> Result<ContainerCreateBody> {
        let limits = job.limits;
        let mut mounts: Vec<Mount> =
            job.files.mounts().iter().map(|it| bind(&it.source, &it.target, it.readonly)).collect();
        mounts.push(bind(&self.gate, GATE, true));
        mounts.extend(volumes.mounts.iter().cloned());
        let size = limits.temporary();
        let tmpfs =
            temporary_folders().map(|target| (target, format!("rw,exec,nosuid,nodev,size={size},mode=1777")));
        let entrypoint = [GATE.to_owned(), PROXY_PORT.to_string(), GATE_SECONDS.to_owned()];
        let file_size = i64::try_from(size).unwrap_or(i64::MAX);
        let host = HostConfig {
            network_mode: Some("none".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(!limits.writable_root),
            memory: Some(limits.memory() as i64),
            memory_swap: Some(limits.memory() as i64),
            pids_limit: Some(limits.pids as i64),
            nano_cpus: Some((limits.cpus * 1e9) as i64),
            ulimits: Some(vec![ulimit("fsize", file_size), ulimit("core", CORE)]),
            tmpfs: Some(HashMap::from(tmpfs)),
            mounts: Some(mounts),
            ipc_mode: Some("private".to_owned()),
            log_config: Some(bollard::models::HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ..Default::default()
        };
        Ok(ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(entrypoint.into()),
            cmd: Some(command(job)?),
            env: Some(environment(job).into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
            hostname: Some("algorithm".to_owned()),
            labels: Some(owned::labels()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            // A health check of the image would be a second program, started without the gate.
            healthcheck: Some(bollard::models::HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..Default::default()
            }),
            host_config: Some(host),
            ..Default::default()
        })
    }
}

/// What the engine tells of itself in the headers of `/_ping`; `/version`, which `bollard` would ask, starts the engine's
/// other programs to ask them for theirs.
fn ping(socket: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(16 << 10).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.split("\r\n\r\n").next().unwrap_or_default().to_owned())
}

/// The value of a header.
fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}

/// What the engine calls itself, such as `Docker/27.1 (linux)`.
fn server_of(head: &str) -> String {
    header(head, "server").unwrap_or("unknown").to_owned()
}

/// The API's version to speak: the engine's own, or the newest known here.
fn version_of(head: &str) -> std::io::Result<ClientVersion> {
    let named = header(head, "api-version")
        .and_then(|value| value.split_once('.'))
        .and_then(|(major, minor)| Some((major.parse::<usize>().ok()?, minor.parse::<usize>().ok()?)));
    let unknown = "what listens there does not say which API it speaks";
    let (major, minor) = named.ok_or_else(|| std::io::Error::other(unknown))?;
    let newest = bollard::API_DEFAULT_VERSION;
    let (major_version, minor_version) = (major, minor).min((newest.major_version, newest.minor_version));
    Ok(ClientVersion { major_version, minor_version })
}

fn volumes(job: &Job<'_>) -> Volumes {
    let targets = job.call.image().config().config.volumes.keys();
    let targets = targets.filter(|target| !temporary_folders().contains(target));
    Volumes::new(targets, &job.files.name(), !job.limits.writable_root)
}

/// Makes the container, and removes it however its run ends.
async fn run_once(
    docker: &bollard::Docker,
    body: ContainerCreateBody,
    job: Job<'_>,
    output: &mut dyn FnMut(&[u8]),
) -> Result<Ended> {
    let created = docker
        .create_container(None::<bollard::query_parameters::CreateContainerOptions>, body)
        .await
        .map_err(failed("making the container"))?;
    let ending = watch(docker, &created.id, job, output).await;
    let removed = owned::remove_container(docker, &created.id).await;
    let ending = ending?;
    removed?;
    Ok(ending)
}

/// Starts the container, plants the proxy behind whose gate it waits, and waits for its end.
async fn watch(
    docker: &bollard::Docker,
    id: &str,
    job: Job<'_>,
    output: &mut dyn FnMut(&[u8]),
) -> Result<Ended> {
    let attach = AttachContainerOptions {
        stdout: true,
        stderr: true,
        stream: true,
        logs: false,
        ..Default::default()
    };
    let mut attached =
        docker.attach_container(id, Some(attach)).await.map_err(failed("attaching to the container"))?;
    docker
        .start_container(id, None::<bollard::query_parameters::StartContainerOptions>)
        .await
        .map_err(failed("starting the container"))?;
    let state = docker
        .inspect_container(id, None::<bollard::query_parameters::InspectContainerOptions>)
        .await
        .map_err(failed("asking for the container"))?
        .state;
    let pid =
        state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let serving = match pid {
        Some(pid) => {
            let planted = Network::of_process(pid)
                .and_then(|network| network.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, PROXY_PORT))));
            let listener = planted.map_err(|cause| error::sandbox("planting the proxy", cause))?;
            Some(job.proxy.serve(listener).map_err(super::proxy_failed)?)
        }
        // The gate itself has failed already; its exit code says why.
        None => None,
    };
    let ending =
        until_end(docker, id, &mut attached.output, job.limits.wall(), job.canceller, output).await?;
    Ok(Ended { ending, egress: serving.map(|serving| serving.log()).unwrap_or_default() })
}

/// Hands on what the container prints until it ends, its time is over, or somebody cancels.
async fn until_end(
    docker: &bollard::Docker,
    id: &str,
    printed: &mut (impl Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>> + Unpin),
    wall: Duration,
    canceller: &Canceller,
    output: &mut dyn FnMut(&[u8]),
) -> Result<Ending> {
    let end = Instant::now() + wall;
    let mut waiting = Box::pin(docker.wait_container(id, None::<WaitContainerOptions>).into_future());
    let mut streaming = true;
    let ending = loop {
        tokio::select! {
            item = printed.next(), if streaming => match item {
                Some(Ok(item)) => output(&item.into_bytes()),
                _ => streaming = false,
            },
            (ended, _) = &mut waiting => break exit_code(ended)?,
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                if canceller.is_cancelled() {
                    return Ok(Ending::Cancelled);
                }
                if Instant::now() > end {
                    return Ok(Ending::TimedOut);
                }
            }
        }
    };
    while streaming {
        match tokio::time::timeout(Duration::from_secs(2), printed.next()).await {
            Ok(Some(Ok(item))) => output(&item.into_bytes()),
            _ => streaming = false,
        }
    }
    if ending == 0 {
        return Ok(Ending::Exited(0));
    }
    let state = docker
        .inspect_container(id, None::<bollard::query_parameters::InspectContainerOptions>)
        .await
        .map_err(failed("asking for the container"))?
        .state;
    if state.and_then(|state| state.oom_killed) == Some(true) {
        return Ok(Ending::OutOfMemory);
    }
    Ok(if (129..=192).contains(&ending) { Ending::Signal(ending - 128) } else { Ending::Exited(ending) })
}

/// `bollard` gives an exit code that is not zero as an error.
fn exit_code(
    ended: Option<std::result::Result<bollard::models::ContainerWaitResponse, bollard::errors::Error>>,
) -> Result<i32> {
    let code = match ended {
        Some(Ok(response)) => response.status_code,
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(cause)) => return Err(failed("waiting for the container")(cause)),
        None => return Err(Error::new(Kind::Machine, "Docker's engine lost the container")),
    };
    i32::try_from(code).map_err(|cause| error::bug("an exit code beyond all bounds").because(cause))
}

/// The image's id in the engine: loaded from our store unless it is there already, and in either case the config's digest.
async fn ensure_image(docker: &bollard::Docker, job: &Job<'_>) -> Result<String> {
    let wanted = job.call.image().config_descriptor().digest.to_string();
    if inspect(docker, &wanted).await?.as_deref() == Some(&wanted) {
        return Ok(wanted);
    }
    let archive = bollard::body_try_stream(archive::stream(job)?);
    let mut loading = docker.import_image(ImportImageOptions::default(), archive, None);
    while let Some(step) = loading.next().await {
        step.map_err(failed("loading the image into Docker's engine"))?;
    }
    match inspect(docker, &wanted).await? {
        Some(found) if found == wanted => Ok(wanted),
        _ => Err(Error::new(
            Kind::Machine,
            "Docker's engine does not know the image by the digest of its config",
        )
        .hint("its containerd image store names images otherwise: switch it off, or use the engine \"oci\"")),
    }
}

async fn inspect(docker: &bollard::Docker, id: &str) -> Result<Option<String>> {
    match docker.inspect_image(id).await {
        Ok(found) => Ok(found.id),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(cause) => Err(failed("asking Docker's engine for the image")(cause)),
    }
}

fn place_gate(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if std::fs::read(path).is_ok_and(|found| found == sandbox::gate::binary()) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|cause| Error::io("making", folder, cause))?;
    }
    files::write_with(path, Existing::Replaced, 0o755, |out| {
        // Whatever the umask: users of the container start it.
        let everybody = std::fs::Permissions::from_mode(0o755);
        let written = out.write_all(sandbox::gate::binary());
        written
            .and_then(|()| out.get_ref().set_permissions(everybody))
            .map_err(|cause| Error::io("writing", path, cause))
    })
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

fn bind(source: &Path, target: &str, readonly: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(readonly),
        // Read-only holds for this mount alone, so what is mounted beneath it must not come along.
        bind_options: Some(MountBindOptions { non_recursive: Some(true), ..Default::default() }),
        ..Default::default()
    }
}

/// Whom the image runs as, where that can be told without its own list of users.
fn plain_user(spec: &str) -> Option<User> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    match (user, group) {
        ("" | "0" | "root", "" | "0" | "root") => Some(User::default()),
        _ => {
            let (uid, gid) = (user.parse().ok()?, group.parse().ok()?);
            Some(User { uid, gid, groups: vec![gid] })
        }
    }
}

pub(super) fn failed(doing: &'static str) -> impl Fn(bollard::errors::Error) -> Error {
    move |cause| Error::new(Kind::Machine, doing).because(cause)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn answered(answer: &'static str) -> std::io::Result<(usize, usize)> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 64];
            let _ = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let version = ping(&socket).and_then(|head| version_of(&head));
        server.join().unwrap();
        version.map(|version| (version.major_version, version.minor_version))
    }

    #[test]
    fn the_older_of_both_versions_is_spoken() {
        assert_eq!(answered("HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\n\r\nOK").unwrap(), (1, 41));
        let newest = bollard::API_DEFAULT_VERSION;
        let known = (newest.major_version, newest.minor_version);
        assert_eq!(answered("HTTP/1.0 200 OK\r\nAPI-VERSION: 1.999\r\n\r\nOK").unwrap(), known);
        assert!(answered("HTTP/1.0 200 OK\r\n\r\nApi-Version: 1.41").is_err());
        assert!(answered("").is_err());
    }
}
