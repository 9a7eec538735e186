//! Pushes from a store into a registry: blobs first, the manifest last, so that an interrupted push never leaves an
//! image.

use attestations::{Digest, Repository};
use reqwest::header::LOCATION;
use reqwest::{Method, Response, StatusCode, Url};

use super::super::auth::Operation;
use super::super::hosts::is_plain;
use super::super::response::{expect, failure_of};
use super::super::retry::Failed;
use super::body::Body;
use super::request::{Request, To};
use super::{Client, Traffic};
use crate::descriptor::Descriptor;
use crate::error::{Error, RegistryFailure, Result};
use crate::image::{Image, MAX_MANIFEST};
use crate::index::Index;
use crate::store::Store;

/// Statuses of a manifest that was stored.
const STORED: &[StatusCode] = &[StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
/// Statuses of a registry that does not take such a manifest, or none under this name.
const NOT_TAKEN: &[StatusCode] = &[
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::CONFLICT,
    StatusCode::PRECONDITION_FAILED,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::NOT_IMPLEMENTED,
];

impl Client {
    /// Pushes an image under its digest, and under `tag` if one is given. Blobs that the registry has are not sent
    /// again.
    ///
    /// # Errors
    /// When the registry refuses it or the connection breaks; the manifest has not been sent then.
    pub async fn push(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Digest> {
        self.push_blobs_of(store, image, repository).await?;
        self.put_image(store, image, repository, tag).await?;
        Ok(image.digest())
    }

    /// Pushes what an image's manifest names, and not the manifest.
    pub(in crate::registry) async fn push_blobs_of(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
    ) -> Result<()> {
        self.check_writable(repository)?;
        let mut missing: Vec<&Descriptor> = Vec::new();
        for blob in image.layers().iter().chain([image.config_descriptor()]) {
            let is_new = missing.iter().all(|other| other.digest != blob.digest);
            if is_new && !self.has_blob(repository, &blob.digest).await? {
                missing.push(blob);
            }
        }
        self.saw(Traffic::Expected(missing.iter().map(|blob| blob.size).sum()));
        for blob in missing {
            self.upload_blob(store, blob, repository).await?;
        }
        Ok(())
    }

    /// Pushes an image's manifest, whose blobs are there.
    pub(in crate::registry) async fn put_image(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<()> {
        let bytes = store.read(image.manifest(), MAX_MANIFEST)?;
        let version = tag.map_or_else(|| image.digest().to_string(), str::to_owned);
        self.put_manifest(repository, &version, &image.manifest().media_type, bytes).await.map(drop)
    }

    /// Pushes an index under its digest, or under `tag` if one is given. Its images must have been pushed before.
    ///
    /// # Errors
    /// When the registry refuses it, as it does for an index whose images it does not have.
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

    pub(in crate::registry) async fn put_manifest(
        &self,
        repository: &Repository,
        version: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<Response> {
        let response = self.send_manifest(repository, version, media_type, bytes).await?;
        expect(repository, response, STORED).await
    }

    /// As [`Client::put_manifest`]; the registry may say that it does not take such a manifest, and why.
    pub(in crate::registry) async fn try_manifest(
        &self,
        repository: &Repository,
        version: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<std::result::Result<Response, String>> {
        let response = self.send_manifest(repository, version, media_type, bytes).await?;
        let is_refused = NOT_TAKEN.contains(&response.status());
        match expect(repository, response, STORED).await {
            Ok(response) => Ok(Ok(response)),
            Err(cause) if is_refused => Ok(Err(cause.to_string())),
            Err(cause) => Err(cause),
        }
    }

    async fn send_manifest(
        &self,
        repository: &Repository,
        version: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<Response> {
        let body = Body::Bytes(media_type.to_owned(), bytes);
        let to = To::Path(format!("manifests/{version}"));
        let request = Request { body, ..Request::new(Method::PUT, to) };
        self.send(repository, Operation::Push, &request).await
    }

    pub(in crate::registry) async fn push_blob(
        &self,
        store: &Store,
        blob: &Descriptor,
        repository: &Repository,
    ) -> Result<()> {
        self.check_writable(repository)?;
        if self.has_blob(repository, &blob.digest).await? {
            return Ok(());
        }
        self.saw(Traffic::Expected(blob.size));
        self.upload_blob(store, blob, repository).await
    }

    async fn upload_blob(&self, store: &Store, blob: &Descriptor, repository: &Repository) -> Result<()> {
        let body = || Body::Blob(store.clone(), blob.clone());
        self.upload(repository, &blob.digest, body).await
    }

    /// Pushes a small blob from memory.
    pub(in crate::registry) async fn push_bytes(&self, bytes: &[u8], repository: &Repository) -> Result<()> {
        self.check_writable(repository)?;
        let digest = Digest::of(bytes);
        if self.has_blob(repository, &digest).await? {
            return Ok(());
        }
        let body = || Body::Bytes("application/octet-stream".to_owned(), bytes.to_vec());
        self.upload(repository, &digest, body).await
    }

    /// Sends a blob that the registry does not have. Each attempt starts from the beginning; the registry discards
    /// interrupted uploads.
    async fn upload(
        &self,
        repository: &Repository,
        digest: &Digest,
        body: impl Fn() -> Body + Send + Sync,
    ) -> Result<()> {
        let mut tries = self.tries(repository);
        loop {
            match self.upload_once(repository, digest, body()).await {
                Ok(()) => return Ok(()),
                Err(failed) => tries.after(failed, |text| self.report(text)).await?,
            }
        }
    }

    /// Opens an upload, and sends the whole blob in one request (distribution-spec, "Pushing a blob monolithically").
    async fn upload_once(&self, repository: &Repository, digest: &Digest, body: Body) -> Result<(), Failed> {
        let open = Request::new(Method::POST, To::Path("blobs/uploads/".to_owned()));
        let opened = self.send_once(repository, Operation::Push, &open).await?;
        let opened = expect(repository, opened, &[StatusCode::ACCEPTED]).await?;
        let mut place = self.upload_place(repository, &opened)?;
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let request = Request { body, ..Request::new(Method::PUT, To::Upload(place)) };
        let answer = self.send_once(repository, Operation::Push, &request).await?;
        expect(repository, answer, &[StatusCode::CREATED]).await?;
        Ok(())
    }

    /// The upload URL that the registry gives. If it is on another server, that gets no credentials, and plain HTTP
    /// is only used if the server is configured for it.
    fn upload_place(&self, repository: &Repository, opened: &Response) -> Result<Url> {
        let refused = |reason: &str| {
            let reason = format!("it opened an upload {reason}");
            Error::registry(repository.registry(), RegistryFailure::Answer, reason)
        };
        let location = opened.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| refused("without saying where"))?;
        let place = opened.url().join(location).map_err(|_| refused("at what is no URL"))?;
        let host = place.host_str().ok_or_else(|| refused("at no host"))?;
        let named = place.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        match place.scheme() {
            "https" => Ok(place),
            "http" if is_plain(&self.registries.plain, &named) && opened.url().scheme() == "http" => {
                Ok(place)
            }
            _ => Err(refused("by plain HTTP on a host that was not named for it")),
        }
    }

    pub(in crate::registry) async fn has_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool> {
        let request = Request::new(Method::HEAD, To::Path(format!("blobs/{digest}")));
        let response = self.send(repository, Operation::Push, &request).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            other => {
                let reason = format!("asked for blob {digest}, it answered {other}");
                Err(Error::registry(repository.registry(), failure_of(other), reason))
            }
        }
    }
}
