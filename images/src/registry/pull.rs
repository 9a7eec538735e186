//! From a registry into a store: manifest, config, layers, each held against the digest it was asked for by.

use std::io::Write;

use attestations::{Pinned, Repository};
use oci_client::RegistryOperation;
use reqwest::{Method, StatusCode};

use super::http::{Request, expect};
use super::{Client, registry_error};
use crate::descriptor::{self, Descriptor};
use crate::error::{At, Error, Result};
use crate::image::{Image, MAX_CONFIG, parse_manifest};
use crate::store::Store;

/// The most bytes of one compressed layer.
const MAX_LAYER: u64 = 32 << 30;

impl Client {
    /// Pulls an image. What the store has already is not fetched again.
    ///
    /// # Errors
    /// When the registry does not have it, sends anything else than what the digests say, or the disk refuses.
    pub async fn pull(&self, pinned: &Pinned, store: &Store) -> Result<Image> {
        let repository = pinned.repository();
        if let Ok(image) = Image::load(store, pinned.digest())
            && image.layers().iter().all(|layer| store.contains(&layer.digest))
        {
            return Ok(image);
        }
        let raw = self.manifest(repository, &pinned.digest().to_string()).await?;
        let manifest = parse_manifest(&raw.bytes)?;
        if manifest.config.size > MAX_CONFIG {
            return Err(Error::TooLarge { what: format!("config of {pinned}"), limit: MAX_CONFIG });
        }
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            self.pull_blob(repository, blob, store).await?;
        }
        // The manifest comes last: an image that is here is whole.
        store.put(manifest.media_type.as_deref().unwrap_or(descriptor::MANIFEST), &raw.bytes)?;
        Image::load(store, pinned.digest())
    }

    pub(super) async fn pull_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        store: &Store,
    ) -> Result<()> {
        if store.contains(&blob.digest) {
            return Ok(());
        }
        if blob.size > MAX_LAYER {
            return Err(Error::TooLarge { what: format!("blob {}", blob.digest), limit: MAX_LAYER });
        }
        let request =
            Request { method: Method::GET, path: format!("blobs/{}", blob.digest), accept: None, body: None };
        let response = self.send(repository, RegistryOperation::Pull, request).await?;
        let mut response = expect(repository, response, &[StatusCode::OK]).await?;
        let mut writer = store.writer()?;
        while let Some(chunk) = response.chunk().await.map_err(|cause| registry_error(repository, cause))? {
            if writer.size() + chunk.len() as u64 > blob.size {
                return Err(Error::Size {
                    what: format!("blob {}", blob.digest),
                    wanted: blob.size,
                    found: writer.size() + chunk.len() as u64,
                });
            }
            writer.write_all(&chunk).at("writing", store.path_of(&blob.digest))?;
        }
        writer.commit_as(blob).map(drop)
    }
}
