//! An image as `docker load` takes it: `manifest.json`, the config, and the layers as they are in the store. It streams, so
//! that an image of any size needs little memory, and breaks off where a blob is not what its digest says.

use std::io::{self, Write};

use bytes::Bytes;
use futures_util::{Stream, stream};
use images::{Descriptor, Image, Store, descriptor};
use tokio::sync::mpsc;

use super::Job;
use crate::error::{Error, Kind, Result};

/// Bytes handed on at one time, and how many of these may wait.
const CHUNK: usize = 256 << 10;
const WAITING: usize = 4;

type Part = io::Result<Bytes>;

/// The archive of the job's image.
///
/// # Errors
/// When a layer is in a form that `docker load` does not read. What fails later fails in the stream.
pub(super) fn stream(job: &Job<'_>) -> Result<impl Stream<Item = Part> + Send + use<>> {
    if job.call.image().layers().iter().any(|layer| layer.media_type == descriptor::LAYER_ZSTD) {
        return Err(Error::new(
            Kind::Input,
            "a layer is compressed by zstd, which `docker load` does not read",
        )
        .hint("use the engine \"oci\""));
    }
    let (store, image) = (job.call.store().clone(), job.call.image().clone());
    let (parts, receiver) = mpsc::channel(WAITING);
    job.runtime.spawn_blocking(move || {
        let sink = Sink { parts: parts.clone(), buffer: Vec::with_capacity(CHUNK) };
        if let Err(cause) = write(&store, &image, sink) {
            // When nobody listens any more, whoever listened knows why.
            parts.blocking_send(Err(cause)).ok();
        }
    });
    Ok(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
}

fn write(store: &Store, image: &Image, sink: Sink) -> io::Result<()> {
    let config = image.config_descriptor();
    let config_name = format!("{}.json", config.digest.hex());
    let layer_name = |layer: &Descriptor| format!("{}.tar", layer.digest.hex());
    let names: Vec<String> = image.layers().iter().map(layer_name).collect();
    let manifest =
        serde_json::json!([{ "Config": config_name, "Layers": names, "RepoTags": null }]).to_string();
    let mut tar = tar::Builder::new(sink);
    append(&mut tar, "manifest.json", manifest.len() as u64, manifest.as_bytes())?;
    append(&mut tar, &config_name, config.size, store.open_blob(config).map_err(io::Error::other)?)?;
    for (layer, name) in image.layers().iter().zip(&names) {
        append(&mut tar, name, layer.size, store.open_blob(layer).map_err(io::Error::other)?)?;
    }
    tar.into_inner()?.flush()
}

fn append(tar: &mut tar::Builder<Sink>, name: &str, size: u64, content: impl io::Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, name, content)
}

/// Hands on what is written, in parts.
struct Sink {
    parts: mpsc::Sender<Part>,
    buffer: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.parts.blocking_send(Ok(part.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
