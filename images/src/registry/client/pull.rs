//! Pulls from a registry into a store: manifest, config, layers, each verified against the digest it was requested
//! by.

use std::io::Write;

use attestations::{Pinned, Repository};
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{Response, StatusCode};

use super::super::auth::Operation;
use super::super::response::expect;
use super::super::retry::Failed;
use super::request::{Passed, Request};
use super::{Client, Traffic};
use crate::descriptor::{self, Descriptor};
use crate::error::{At, Error, RegistryFailure, Result};
use crate::image::{Image, MAX_CONFIG, parse_manifest};
use crate::store::{BlobWriter, Store};

/// The most bytes of one compressed layer.
const MAX_LAYER: u64 = 32 << 30;
/// An attempt that brings this many bytes resets the count of attempts, since a large blob over a bad line may break
/// off often.
const PROGRESS: u64 = 1 << 20;

impl Client {
    /// Pulls an image. Blobs in the store are not fetched again.
    ///
    /// # Errors
    /// When the registry does not have it, sends content that does not match a digest, or the disk refuses.
    pub async fn pull(&self, pinned: &Pinned, store: &Store) -> Result<Image> {
        let repository = pinned.repository();
        if let Ok(image) = Image::load(store, pinned.digest())
            && image.layers().iter().all(|layer| store.contains(&layer.digest))
        {
            return Ok(image);
        }
        let raw = self.manifest(repository, pinned.digest()).await?;
        let manifest = parse_manifest(&raw.bytes)?;
        if manifest.config.size > MAX_CONFIG {
            return Err(Error::TooLarge { what: format!("config of {pinned}"), limit: MAX_CONFIG });
        }
        let blobs = || std::iter::once(&manifest.config).chain(&manifest.layers);
        let missing = blobs().filter(|blob| !store.contains(&blob.digest)).map(|blob| blob.size);
        self.saw(Traffic::Expected(missing.fold(0, u64::saturating_add)));
        for blob in blobs() {
            self.pull_blob(repository, blob, store).await?;
        }
        // The manifest comes last: an image in the store is complete.
        store.put(manifest.media_type.as_deref().unwrap_or(descriptor::MANIFEST), &raw.bytes)?;
        Image::load(store, pinned.digest())
    }

    pub(in crate::registry) async fn pull_blob(
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
        let places = self.places(repository)?;
        let mut passed = Passed::new(self, &places);
        for place in &places {
            match self.pull_blob_at(&place.repository, blob, store).await {
                Ok(()) => return Ok(()),
                Err(error) => passed.over(place, error)?,
            }
        }
        Err(passed.none())
    }

    async fn pull_blob_at(&self, repository: &Repository, blob: &Descriptor, store: &Store) -> Result<()> {
        let mut coming = Coming { blob, store, writer: store.writer()?, furthest: 0, by_ranges: true };
        let mut tries = self.tries(repository);
        loop {
            match self.pull_rest(repository, &mut coming).await {
                Ok(()) => return coming.writer.commit_as(blob).map(drop),
                Err(failed) => {
                    if coming.has_progressed() {
                        tries.start_again();
                    }
                    tries.after(failed, |text| self.report(text)).await?;
                }
            }
        }
    }

    /// Fetches the missing part of a blob. The registry may send the whole blob instead.
    async fn pull_rest(&self, repository: &Repository, coming: &mut Coming<'_>) -> Result<(), Failed> {
        let blob = coming.blob;
        let request = Request { range: coming.rest(), ..Request::get(format!("blobs/{}", blob.digest)) };
        let response = self.send_once(repository, Operation::Pull, &request).await?;
        let mut response = match (request.range, response.status()) {
            (Some((first, _)), StatusCode::PARTIAL_CONTENT)
                if goes_on(response.headers(), first, blob.size) =>
            {
                response
            }
            (Some(_), StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) => {
                coming.by_ranges = false;
                coming.start_over()?;
                let reason = "it sends another part of the blob than was asked for";
                let error = Error::registry(repository.registry(), RegistryFailure::Answer, reason);
                return Err(Failed::Passing(error, None));
            }
            (Some(_), StatusCode::OK) => {
                coming.start_over()?;
                response
            }
            _ => found(repository, blob, response).await?,
        };
        while let Some(chunk) = response.chunk().await.map_err(|cause| Failed::of(repository, cause))? {
            coming.take(&chunk)?;
            self.saw(Traffic::Moved(chunk.len() as u64));
        }
        match coming.writer.size() {
            size if size < blob.size => Err(Failed::Passing(coming.wrong_size(size), None)),
            _ => Ok(()),
        }
    }
}

async fn found(repository: &Repository, blob: &Descriptor, response: Response) -> Result<Response> {
    match response.status() {
        StatusCode::NOT_FOUND => {
            Err(Error::NotFound { what: format!("blob {} in {repository}", blob.digest) })
        }
        _ => expect(repository, response, &[StatusCode::OK]).await,
    }
}

/// A partially received blob.
struct Coming<'a> {
    blob: &'a Descriptor,
    store: &'a Store,
    writer: BlobWriter,
    /// The most bytes received so far; bytes that are sent again are no progress.
    furthest: u64,
    /// Whether range requests are still used.
    by_ranges: bool,
}

impl Coming<'_> {
    /// The first and the last byte that is missing, where that is a part.
    fn rest(&self) -> Option<(u64, u64)> {
        let size = self.writer.size();
        let last = self.blob.size.checked_sub(1)?;
        (self.by_ranges && size > 0 && size <= last).then_some((size, last))
    }

    fn start_over(&mut self) -> Result<()> {
        self.writer = self.store.writer()?;
        Ok(())
    }

    fn take(&mut self, chunk: &[u8]) -> Result<()> {
        let size = self.writer.size() + chunk.len() as u64;
        if size > self.blob.size {
            return Err(self.wrong_size(size));
        }
        self.writer.write_all(chunk).at("writing", self.store.path_of(&self.blob.digest))
    }

    fn has_progressed(&mut self) -> bool {
        let size = self.writer.size();
        let has = size >= self.furthest + PROGRESS;
        self.furthest = self.furthest.max(size);
        has
    }

    fn wrong_size(&self, found: u64) -> Error {
        Error::Size { what: format!("blob {}", self.blob.digest), wanted: self.blob.size, found }
    }
}

/// Whether a partial response (RFC 9110, section 14.4) is the rest of `size` bytes from `first` on.
fn goes_on(headers: &HeaderMap, first: u64, size: u64) -> bool {
    let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let Some((range, whole)) = value.and_then(|value| value.strip_prefix("bytes ")?.split_once('/')) else {
        return false;
    };
    let wanted = size.checked_sub(1).map(|last| format!("{first}-{last}"));
    wanted.as_deref() == Some(range) && (whole == "*" || whole == size.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_rest_is_the_rest() {
        let goes_on = |value: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, value.parse().unwrap())]);
            goes_on(&headers, 10, 100)
        };
        assert!(goes_on("bytes 10-99/100") && goes_on("bytes 10-99/*"));
        for value in
            ["bytes 0-99/100", "bytes 10-98/100", "bytes 10-99/101", "bytes 11-99/100", "10-99/100", ""]
        {
            assert!(!goes_on(value), "{value}");
        }
        assert!(!super::goes_on(&HeaderMap::new(), 10, 100));
    }
}
