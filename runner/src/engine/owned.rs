//! What a run makes in Docker's engine, marked with the process it belongs to, so that what a killed one left is removed
//! by the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{Mount, MountType, MountVolumeOptions};
use bollard::query_parameters::{
    ListContainersOptions, ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions,
};

use super::docker::failed;
use crate::error::Result;

const LABEL: &str = "dev.countersign.run";
/// How long a removal by somebody else may take, and how often it is looked.
const REMOVED_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// The mark of what belongs to this process.
pub(super) fn labels() -> HashMap<String, String> {
    let owner = identity(&std::process::id().to_string()).unwrap_or_default();
    HashMap::from([(LABEL.to_owned(), owner)])
}

/// The folders that an image declares volumes. As the engine makes them they are writable, each a hole in a read-only
/// root, so they are volumes of ours: filled from the image alike, but read-only as the root is.
pub(super) struct Volumes {
    pub(super) mounts: Vec<Mount>,
}

impl Volumes {
    /// Describes a volume for each of `targets`; `run` tells this run from all others.
    pub(super) fn new<'a>(targets: impl Iterator<Item = &'a String>, run: &str, readonly: bool) -> Self {
        let volume = |(number, target): (usize, &String)| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(format!("countersign-{run}-{number}")),
            target: Some(target.to_owned()),
            read_only: Some(readonly),
            volume_options: Some(MountVolumeOptions { labels: Some(labels()), ..Default::default() }),
            ..Default::default()
        };
        Self { mounts: targets.enumerate().map(volume).collect() }
    }

    /// Removes them; nothing uses them any more.
    pub(super) async fn remove(&self, docker: &Docker) -> Result<()> {
        for name in self.mounts.iter().filter_map(|mount| mount.source.as_deref()) {
            remove_volume(docker, name).await?;
        }
        Ok(())
    }
}

/// Removes the containers and volumes of processes that are no more.
pub(super) async fn clear_leftovers(docker: &Docker) -> Result<()> {
    let filters = Some(HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]));
    let options = ListContainersOptions { all: true, filters: filters.clone(), ..Default::default() };
    let containers = docker.list_containers(Some(options)).await.map_err(failed("listing containers"))?;
    for container in containers {
        let (Some(id), true) = (&container.id, container.labels.as_ref().is_some_and(is_left)) else {
            continue;
        };
        remove_container(docker, id).await?;
    }
    let options = ListVolumesOptions { filters };
    let volumes = docker.list_volumes(Some(options)).await.map_err(failed("listing volumes"))?;
    for volume in volumes.volumes.unwrap_or_default().iter().filter(|volume| is_left(&volume.labels)) {
        remove_volume(docker, &volume.name).await?;
    }
    Ok(())
}

/// Ends and removes a container. Where somebody else removes it at the same time, it waits until that is done: a removal
/// that has begun may fail.
pub(super) async fn remove_container(docker: &Docker, id: &str) -> Result<()> {
    let end = Instant::now() + REMOVED_WITHIN;
    loop {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match docker.remove_container(id, Some(options)).await {
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. })
                if Instant::now() < end =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            other => return other.map_err(failed("removing a container")),
        }
    }
}

/// Removes a volume, unless it was never made or somebody else was faster.
async fn remove_volume(docker: &Docker, name: &str) -> Result<()> {
    match docker.remove_volume(name, None::<RemoveVolumeOptions>).await {
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        other => other.map_err(failed("removing a volume")),
    }
}

fn is_left(labels: &HashMap<String, String>) -> bool {
    labels.get(LABEL).is_some_and(|owner| {
        let pid = owner.split('-').next().unwrap_or_default();
        identity(pid).as_ref() != Some(owner)
    })
}

/// A process's number with the time of its start, since numbers come again.
fn identity(pid: &str) -> Option<String> {
    pid.parse::<u32>().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, in parentheses, may hold anything; the start is the twentieth field behind it.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid}-{started}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An engine that gives these statuses, one a request.
    async fn removed(statuses: &'static [&'static str]) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let engine = tokio::spawn(async move {
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 4096];
                let length = stream.read(&mut asked).await.unwrap();
                assert!(asked[..length].starts_with(b"DELETE "), "{}", String::from_utf8_lossy(&asked));
                let body = if status.starts_with('2') { "" } else { "{\"message\":\"no\"}" };
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
                let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let version = bollard::API_DEFAULT_VERSION;
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), 10, version).unwrap();
        let ended = remove_container(&docker, "abc").await;
        engine.await.unwrap();
        ended
    }

    #[tokio::test]
    async fn a_removal_that_is_under_way_is_waited_for_and_not_believed() {
        removed(&["204 No Content"]).await.unwrap();
        removed(&["404 Not Found"]).await.unwrap();
        removed(&["409 Conflict", "409 Conflict", "404 Not Found"]).await.unwrap();
        let failed = removed(&["409 Conflict", "500 Internal Server Error"]).await.unwrap_err();
        assert!(failed.to_string().contains("removing a container"), "{failed}");
    }

    #[test]
    fn what_belongs_to_us_is_not_left_and_what_belongs_to_nobody_is() {
        assert!(!is_left(&labels()));
        let owned_by = |owner: &str| HashMap::from([(LABEL.to_owned(), owner.to_owned())]);
        let ours = std::process::id();
        for owner in ["", "0-0", "../1", &format!("{ours}"), &format!("{ours}-1")] {
            assert!(is_left(&owned_by(owner)), "{owner}");
        }
        assert!(!is_left(&HashMap::new()), "what bears no mark is somebody else's");
    }
}
