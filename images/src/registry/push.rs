//! From a store into a registry: blobs first, the manifest last, so that what breaks off halfway is never an image.

use attestations::{Digest, Repository};
use bytes::Bytes;
use futures_util::stream;
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use reqwest::{Method, Response, StatusCode};

use super::http::{Request, expect};
use super::{Client, oci, registry_error};
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::image::{Image, MAX_MANIFEST};
use crate::index::Index;
use crate::store::Store;

const CHUNK: usize = 1 << 20;

impl Client {
    /// Pushes an image under its digest, and under `tag` if one is given. Blobs that are there already are not sent again.
    ///
    /// # Errors
    /// When the registry refuses or breaks off; then the manifest has not been sent.
    pub async fn push(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Digest> {
        let blobs = self.log_in(repository, RegistryOperation::Push).await?;
        for blob in image.layers().iter().chain([image.config_descriptor()]) {
            self.push_blob(&blobs, store, blob, repository).await?;
        }
        let bytes = store.read(image.manifest(), MAX_MANIFEST)?;
        let version = tag.map_or_else(|| image.digest().to_string(), str::to_owned);
        self.put_manifest(repository, &version, &image.manifest().media_type, bytes).await?;
        Ok(image.digest())
    }

    /// Pushes an index under its digest, or under `tag` if one is given, once its images are there.
    ///
    /// # Errors
    /// When the registry refuses, as it does for an index whose images it lacks.
    pub async fn push_index(
        &self,
        store: &Store,
        index: &Index,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Digest> {
        let bytes = store.read(index.descriptor(), MAX_MANIFEST)?;
        let version = tag.map_or_else(|| index.digest().to_string(), str::to_owned);
        self.put_manifest(repository, &version, &index.descriptor().media_type, bytes).await?;
        Ok(index.digest())
    }

    pub(super) async fn put_manifest(
        &self,
        repository: &Repository,
        version: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<Response> {
        let body = Some((media_type.to_owned(), bytes));
        let request =
            Request { method: Method::PUT, path: format!("manifests/{version}"), accept: None, body };
        let response = self.send(repository, RegistryOperation::Push, request).await?;
        expect(repository, response, &[StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED]).await
    }

    pub(super) async fn push_blob(
        &self,
        blobs: &oci_client::Client,
        store: &Store,
        blob: &Descriptor,
        repository: &Repository,
    ) -> Result<()> {
        if self.has_blob(repository, &blob.digest).await? {
            return Ok(());
        }
        let reader = store.open_blob(blob)?;
        let chunks = stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            // Small enough to read in place: a mebibyte from the page cache or the disk.
            match read_chunk(&mut reader) {
                Ok(chunk) if chunk.is_empty() => None,
                Ok(chunk) => Some((Ok(Bytes::from(chunk)), Some(reader))),
                Err(cause) => Some((Err(OciDistributionError::IoError(cause)), None)),
            }
        });
        let image = oci(repository, &blob.digest);
        let pushed = blobs.push_blob_stream(&image, chunks, &blob.digest.to_string(), Some(blob.size)).await;
        pushed.map(drop).map_err(|cause| registry_error(repository, cause))
    }

    /// Pushes a small blob that is in memory.
    pub(super) async fn push_bytes(
        &self,
        blobs: &oci_client::Client,
        bytes: &[u8],
        repository: &Repository,
    ) -> Result<()> {
        let digest = Digest::of(bytes);
        if self.has_blob(repository, &digest).await? {
            return Ok(());
        }
        let image = oci(repository, &digest);
        let pushed = blobs.push_blob(&image, bytes.to_vec(), &digest.to_string()).await;
        pushed.map(drop).map_err(|cause| registry_error(repository, cause))
    }

    async fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let request =
            Request { method: Method::HEAD, path: format!("blobs/{digest}"), accept: None, body: None };
        let response = self.send(repository, RegistryOperation::Push, request).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            other => Err(Error::Registry {
                registry: repository.registry().to_owned(),
                reason: format!("asked for blob {digest}, it answered {other}"),
            }),
        }
    }
}

fn read_chunk(reader: &mut impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK];
    let mut filled = 0;
    while filled < CHUNK {
        match reader.read(&mut chunk[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    chunk.truncate(filled);
    Ok(chunk)
}
