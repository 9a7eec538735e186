//! Artifacts with many blobs that are attached to an image, such as its recorded responses.

use attestations::{Digest, Pinned, Repository};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::client::Client;
use super::Listed;
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::image::{MAX_MANIFEST, Manifest};
use crate::store::Store;

/// The number of concurrent transfers.
const AT_ONCE: usize = 4;

impl Client {
    /// Attaches an artifact, whose manifest and blobs are in `store`, to the image `subject`. Blobs that the registry
    /// has are not sent again; the manifest comes last.
    ///
    /// # Errors
    /// When the manifest names another subject, the registry refuses it or loses it again, a blob is missing or
    /// damaged, and [`Error::CannotAttach`] when it cannot be listed.
    pub async fn attach_stored(
        &self,
        subject: &Pinned,
        store: &Store,
        manifest: &Descriptor,
    ) -> Result<Listed> {
        let repository = subject.repository();
        let bytes = store.read(manifest, MAX_MANIFEST)?;
        let parsed: Manifest = serde_json::from_slice(&bytes)
            .map_err(|cause| Error::refused("the artifact's manifest", cause.to_string()))?;
        if parsed.subject.as_ref().map(|found| found.digest) != Some(*subject.digest()) {
            return Err(Error::refused("the artifact's manifest", "it is attached to another image"));
        }
        let all = parsed.layers.iter().chain([&parsed.config]);
        let sent = stream::iter(all.map(|blob| self.push_blob(store, blob, repository)));
        sent.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let entry = Descriptor {
            artifact_type: parsed.artifact_type,
            annotations: parsed.annotations,
            ..manifest.clone()
        };
        let sent = self.send_attached(subject, entry, bytes).await?;
        self.list(subject, &[sent])
            .await?
            .map_err(|reason| Error::CannotAttach { repository: repository.to_string(), reason })
    }

    /// Fetches the blobs that are not in the store yet, each verified against its digest and size.
    ///
    /// # Errors
    /// When the registry does not have one or sends something else, or the disk refuses.
    pub async fn pull_blobs(
        &self,
        repository: &Repository,
        blobs: &[Descriptor],
        store: &Store,
    ) -> Result<()> {
        let fetched = stream::iter(blobs.iter().map(|blob| self.pull_blob(repository, blob, store)));
        fetched.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The descriptor of a manifest in the registry.
    ///
    /// # Errors
    /// When there is none, or the registry sends something else.
    pub async fn describe(&self, image: &Pinned) -> Result<Descriptor> {
        let raw = self.manifest(image.repository(), image.digest()).await?;
        Ok(Descriptor::of(&raw.media_type, &raw.bytes))
    }

    /// Reads one blob of at most `max` bytes.
    ///
    /// # Errors
    /// When the registry does not have it, or sends something else or too much.
    pub async fn blob(&self, repository: &Repository, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        self.small_blob(repository, digest, max).await
    }
}
