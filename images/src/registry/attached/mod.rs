//! Attachments of an image: signed bundles in the form of cosign v3 (a manifest with a `subject`).
//!
//! Registries with the referrers API list them. For others the index under the tag `sha256-<hex>` does, which the
//! client itself has to maintain (distribution-spec, "Referrers Tag Schema").

mod artifact;
mod budget;
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
pub use budget::Budget;

/// The most attachments of one image. More are an error, since choosing some could miss a veto.
pub const MAX_ATTACHMENTS: usize = 256;
/// The most bytes of a bundle.
const MAX_BUNDLE: u64 = attestations::bundle::MAX_BUNDLE as u64;
/// The most bytes of all attachments of one image, if the caller sets no budget.
const MAX_SUM: u64 = 64 << 20;

/// A bundle as received, which is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where it was found, for people.
    pub origin: String,
}

impl Client {
    /// Attaches a signed bundle to the image `subject`, whose manifest has the descriptor `described`. `created` is
    /// an RFC 3339 time.
    ///
    /// # Errors
    /// When the registry refuses it, or the fallback tag could not be updated.
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

    /// Sends a manifest with a `subject`, and lists it under the fallback tag if the registry does not list it
    /// itself.
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

    /// The bundles attached to an image. There may be none, but an error of the registry is never taken for that.
    ///
    /// # Errors
    /// When the registry fails, sends something malformed, or has more than [`MAX_ATTACHMENTS`].
    pub async fn attachments(&self, subject: &Pinned) -> Result<Vec<Attachment>> {
        self.attachments_within(subject, &Budget::new(MAX_SUM), None, &|_| false).await
    }

    /// As [`Client::attachments`], with a byte budget and a store as cache. The list is fetched each time, but
    /// attachments only if they are not in the store, which is read by digest as well. Only attachments that
    /// `is_kept` accepts are stored: anybody may attach something, and must not be able to fill a node's disk.
    ///
    /// # Errors
    /// As [`Client::attachments`], when the store cannot write them, and when the budget is too small, which [it
    /// reports](Budget::exceeded).
    pub async fn attachments_within(
        &self,
        subject: &Pinned,
        budget: &Budget,
        kept: Option<&Store>,
        is_kept: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Result<Vec<Attachment>> {
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
        let gathering = Gathering { client: self, subject, budget, kept, is_kept };
        // Indexes of older writers have wrong artifactTypes, so each manifest is fetched.
        let found = stream::iter(listed.into_iter().map(|entry| gathering.attachment(entry))).buffered(8);
        let found: Vec<Option<Attachment>> = found.try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The attachments that the referrers API and the fallback tag list, each once. A registry that has gained the
    /// API still has earlier attachments under the tag, and one of them may be a veto.
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

/// Fetches the attachments of an image.
struct Gathering<'a> {
    client: &'a Client,
    subject: &'a Pinned,
    budget: &'a Budget,
    kept: Option<&'a Store>,
    is_kept: &'a (dyn Fn(&[u8]) -> bool + Sync),
}

impl Gathering<'_> {
    async fn attachment(&self, entry: Descriptor) -> Result<Option<Attachment>> {
        let (repository, client) = (self.subject.repository(), self.client);
        let (bytes, is_new) = match self.stored(&entry, MAX_MANIFEST) {
            Some(bytes) => (bytes, false),
            None => (client.manifest(repository, &entry.digest).await?.bytes, true),
        };
        self.budget.take(bytes.len() as u64)?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
        let ours = manifest.subject.as_ref().is_some_and(|found| found.digest == *self.subject.digest());
        let [layer] = &manifest.layers[..] else { return Ok(None) };
        if !ours || !layer.media_type.starts_with("application/vnd.dev.sigstore.bundle") {
            return Ok(None);
        }
        if layer.size > MAX_BUNDLE {
            return Err(Error::TooLarge { what: format!("bundle {}", layer.digest), limit: MAX_BUNDLE });
        }
        // Before it is fetched, so that concurrent fetches count as well.
        self.budget.take(layer.size)?;
        let origin = format!("{repository}@{}", entry.digest);
        if let Some(bytes) = self.stored(layer, MAX_BUNDLE) {
            return Ok(Some(Attachment { bytes, origin }));
        }
        let bundle = client.small_blob(repository, &layer.digest, layer.size).await?;
        if let Some(store) = self.kept.filter(|_| (self.is_kept)(&bundle)) {
            if is_new {
                store.put(descriptor::MANIFEST, &bytes)?;
            }
            store.put(&layer.media_type, &bundle)?;
        }
        Ok(Some(Attachment { bytes: bundle, origin }))
    }

    fn stored(&self, wanted: &Descriptor, limit: u64) -> Option<Vec<u8>> {
        self.kept.and_then(|store| store.read(wanted, limit).ok())
    }
}
