//! What is attached to an image: signed bundles, as cosign v3 stores them (a manifest with a `subject`).
//!
//! Registries with the referrers API list them; for the others the index under the tag `sha256-<hex>` does, which the
//! client itself has to keep (distribution-spec, "Referrers Tag Schema").

mod artifact;
mod fallback;
mod referrers;

use std::collections::BTreeMap;

use attestations::{BUNDLE_MEDIA_TYPE, Digest, Pinned};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::client::Client;
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Result};
use crate::image::{MAX_MANIFEST, Manifest};
use crate::store::Store;

/// The most attachments of one image that are looked at. More are an error, not a choice among them.
pub const MAX_ATTACHMENTS: usize = 256;
/// The most bytes of a bundle.
const MAX_BUNDLE: u64 = attestations::bundle::MAX_BUNDLE as u64;

/// A bundle as it came, which nobody has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where it was found, for people.
    pub origin: String,
}

impl Client {
    /// Attaches a signed bundle to the image `subject`, whose manifest is `described`. `created` is an RFC 3339 time.
    ///
    /// # Errors
    /// When the registry refuses, or the fallback tag could not be kept.
    pub async fn attach(
        &self,
        subject: &Pinned,
        described: &Descriptor,
        bundle: &[u8],
        predicate_type: &str,
        created: &str,
    ) -> Result<Digest> {
        let repository = subject.repository();
        let annotations = [
            ("dev.sigstore.bundle.content", "dsse-envelope"),
            ("dev.sigstore.bundle.predicateType", predicate_type),
            ("org.opencontainers.image.created", created),
        ];
        let annotations: BTreeMap<_, _> =
            annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let subject_descriptor =
            Descriptor::new(described.media_type.clone(), *subject.digest(), described.size);
        let manifest = Manifest {
            artifact_type: Some(BUNDLE_MEDIA_TYPE.to_owned()),
            subject: Some(subject_descriptor),
            annotations: annotations.clone(),
            ..Manifest::image(
                Descriptor::of(descriptor::EMPTY, b"{}"),
                vec![Descriptor::of(BUNDLE_MEDIA_TYPE, bundle)],
            )
        };
        self.push_bytes(b"{}", repository).await?;
        self.push_bytes(bundle, repository).await?;
        let bytes = manifest.to_bytes()?;
        let entry = Descriptor {
            artifact_type: Some(BUNDLE_MEDIA_TYPE.to_owned()),
            annotations,
            ..Descriptor::of(descriptor::MANIFEST, &bytes)
        };
        self.put_attached(subject, entry, bytes).await
    }

    /// Sends a manifest with a `subject`, and lists it where the registry does not do so itself.
    pub(super) async fn put_attached(
        &self,
        subject: &Pinned,
        entry: Descriptor,
        bytes: Vec<u8>,
    ) -> Result<Digest> {
        let (repository, digest) = (subject.repository(), entry.digest);
        let answer = self.put_manifest(repository, &digest.to_string(), descriptor::MANIFEST, bytes).await?;
        if !answer.headers().contains_key("OCI-Subject") {
            self.list_in_fallback_tag(subject, entry).await?;
        }
        Ok(digest)
    }

    /// The bundles attached to an image. None is an answer; an error of the registry never is one.
    ///
    /// # Errors
    /// When the registry fails, sends something malformed, or has more than [`MAX_ATTACHMENTS`].
    pub async fn attachments(&self, subject: &Pinned) -> Result<Vec<Attachment>> {
        self.attachments_kept(subject, None).await
    }

    /// As [`Client::attachments`], with a store that keeps them: the list is asked for each time, and only what is not in
    /// the store is fetched. What it holds is read by its digest like everything else.
    ///
    /// # Errors
    /// As [`Client::attachments`], and when the store cannot keep what was fetched.
    pub async fn attachments_kept(&self, subject: &Pinned, kept: Option<&Store>) -> Result<Vec<Attachment>> {
        let listed = self.listed(subject).await?;
        if listed.len() > MAX_ATTACHMENTS {
            return Err(Error::refused(
                subject.to_string(),
                format!(
                    "it has {} attachments: {MAX_ATTACHMENTS} are the most that are looked at",
                    listed.len()
                ),
            ));
        }
        // Indexes of older writers hold a wrong artifactType: each manifest is asked itself.
        let found =
            stream::iter(listed.into_iter().map(|entry| self.attachment(subject, entry, kept))).buffered(8);
        let found: Vec<Option<Attachment>> = found.try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn attachment(
        &self,
        subject: &Pinned,
        entry: Descriptor,
        kept: Option<&Store>,
    ) -> Result<Option<Attachment>> {
        let repository = subject.repository();
        let bytes = match kept.and_then(|store| store.read(&entry, MAX_MANIFEST).ok()) {
            Some(bytes) => bytes,
            None => {
                let bytes = self.manifest(repository, &entry.digest).await?.bytes;
                keep(kept, descriptor::MANIFEST, &bytes)?;
                bytes
            }
        };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
        let ours = manifest.subject.as_ref().is_some_and(|found| found.digest == *subject.digest());
        let [layer] = &manifest.layers[..] else { return Ok(None) };
        if !ours || !layer.media_type.starts_with("application/vnd.dev.sigstore.bundle") {
            return Ok(None);
        }
        if layer.size > MAX_BUNDLE {
            return Err(Error::TooLarge { what: format!("bundle {}", layer.digest), limit: MAX_BUNDLE });
        }
        let bytes = match kept.and_then(|store| store.read(layer, MAX_BUNDLE).ok()) {
            Some(bytes) => bytes,
            None => {
                let bytes = self.small_blob(repository, &layer.digest, MAX_BUNDLE).await?;
                keep(kept, &layer.media_type, &bytes)?;
                bytes
            }
        };
        Ok(Some(Attachment { bytes, origin: format!("{repository}@{}", entry.digest) }))
    }

    /// What the referrers API lists and what the fallback tag does, each once: a registry that has learnt the API still
    /// holds what was attached before, and that may be a veto.
    async fn listed(&self, subject: &Pinned) -> Result<Vec<Descriptor>> {
        let (mut found, fallback) =
            futures_util::future::try_join(self.referrers(subject), self.fallback(subject)).await?;
        for entry in fallback {
            if found.iter().all(|known| known.digest != entry.digest) {
                found.push(entry);
            }
        }
        Ok(found)
    }
}

fn keep(store: Option<&Store>, media_type: &str, bytes: &[u8]) -> Result<()> {
    store.map_or(Ok(()), |store| store.put(media_type, bytes).map(drop))
}
