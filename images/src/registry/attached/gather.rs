//! Reading what is attached: every list that may hold something, each manifest of them, and the bundles.

use attestations::Pinned;
use futures_util::{StreamExt, TryStreamExt, future, stream};

use super::super::client::Client;
use super::fallback::Tag;
use super::referrers::Api;
use super::{
    Attached, Attachment, Budget, Gone, MAX_BUNDLE, MAX_BUNDLES, Passed, Unused, check_listed, envelopes,
    is_bundle, join, only_bundle, too_many,
};
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Result};
use crate::image::{MAX_MANIFEST, Manifest};
use crate::store::Store;

/// The most bytes of all attachments of one image, if the caller sets no budget.
const MAX_SUM: u64 = 64 << 20;
/// Requests at once.
const AT_ONCE: usize = 8;
/// A signature of Notary (notaryproject `signature-specification.md`).
const NOTARY: &str = "application/vnd.cncf.notary.signature";

impl Client {
    /// What is attached to an image. It may be nothing, but an error of the registry is never taken for that.
    ///
    /// # Errors
    /// When the registry fails, sends something malformed, or lists more than [`MAX_BUNDLES`] bundles or
    /// [`MAX_LISTED`](super::MAX_LISTED) manifests.
    pub async fn attachments(&self, subject: &Pinned) -> Result<Attached> {
        self.attachments_within(subject, &Budget::new(MAX_SUM), None, &|_| false).await
    }

    /// As [`Client::attachments`], with a byte budget and a store as cache. The lists are fetched each time, but
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
    ) -> Result<Attached> {
        let gathering = Gathering { client: self, subject, budget, kept, is_kept };
        let (listed, attestations, signature) = future::try_join3(
            self.listed(subject),
            self.envelopes(subject, envelopes::ATTESTATIONS),
            self.envelopes(subject, envelopes::SIGNATURES),
        )
        .await?;
        // Indexes of older writers have wrong artifactTypes, so each manifest is fetched.
        let looked = stream::iter(listed.into_iter().map(|entry| gathering.look(entry))).buffered(AT_ONCE);
        let mut looked: Vec<Looked> = looked.try_collect().await?;
        looked.extend(gathering.of_cosign_2(attestations, signature));
        let count = looked.iter().filter(|one| matches!(one, Looked::Bundle(_))).count();
        if count > MAX_BUNDLES {
            return Err(too_many(&format!("bundles of {subject}"), count, MAX_BUNDLES));
        }
        let found = looked.into_iter().map(|one| gathering.fetch(one));
        let found: Vec<Looked> = stream::iter(found).buffered(AT_ONCE).try_collect().await?;
        let mut attached = Attached::default();
        for one in found {
            match one {
                Looked::Fetched(bundle) => attached.bundles.push(bundle),
                Looked::Gone(gone) => attached.gone.push(gone),
                Looked::Unused(unused) => attached.unused.push(unused),
                Looked::Nothing | Looked::Bundle(_) => {}
            }
        }
        Ok(attached)
    }

    /// What the referrers API and the fallback tag list, each once. A registry that has gained the API still has
    /// earlier attachments under the tag, and one of them may be a veto.
    pub(super) async fn listed(&self, subject: &Pinned) -> Result<Vec<Descriptor>> {
        let (api, tag) = future::try_join(self.referrers(subject), self.fallback(subject)).await?;
        let mut found = match api {
            Api::Lists(found) => found,
            Api::Absent => Vec::new(),
        };
        if let Tag::Lists(more) = tag {
            join(&mut found, more);
        }
        check_listed(subject, found.len())?;
        Ok(found)
    }
}

/// One thing that is listed, as far as it is known.
enum Looked {
    /// Of no interest.
    Nothing,
    /// A bundle that is to be fetched.
    Bundle(AttachedLayer),
    Fetched(Attachment),
    Gone(Gone),
    Unused(Unused),
}

/// A bundle that is to be fetched.
struct AttachedLayer {
    layer: Descriptor,
    origin: String,
    form: Form,
    /// The manifest around it, where the store does not have it.
    manifest: Option<Vec<u8>>,
}

/// How a bundle lies in its registry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Bundle,
    /// The envelope alone, as cosign 2 attaches it.
    Envelope,
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
    /// Reads one manifest that is listed.
    async fn look(&self, entry: Descriptor) -> Result<Looked> {
        let repository = self.subject.repository();
        let origin = format!("{repository}@{}", entry.digest);
        let (bytes, is_new) = match self.stored(&entry, MAX_MANIFEST) {
            Some(bytes) => (bytes, false),
            None => match self.client.manifest(repository, &entry.digest).await {
                Ok(found) => (found.bytes, true),
                Err(Error::NotFound { .. }) => {
                    let kind = entry.artifact_type.unwrap_or(entry.media_type);
                    return Ok(Looked::Gone(Gone { origin, kind }));
                }
                Err(cause) => return Err(cause),
            },
        };
        self.budget.take(bytes.len() as u64)?;
        let passed = |why| Ok(Looked::Unused(Unused { origin: origin.clone(), why }));
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(Looked::Nothing) };
        if manifest.subject.as_ref().is_none_or(|found| found.digest != *self.subject.digest()) {
            return Ok(Looked::Nothing);
        }
        if let Some(layer) = only_bundle(&manifest).cloned() {
            let manifest = is_new.then_some(bytes);
            return Ok(Looked::Bundle(AttachedLayer { layer, origin, form: Form::Bundle, manifest }));
        }
        let says_bundle = manifest.artifact_type.as_deref().is_some_and(is_bundle);
        match &manifest.layers[..] {
            [_] if says_bundle => passed(Passed::LayerType),
            layers if layers.iter().any(|layer| is_bundle(&layer.media_type)) => {
                passed(Passed::SeveralLayers)
            }
            _ if manifest.artifact_type.as_deref() == Some(NOTARY) => passed(Passed::Notary),
            _ => Ok(Looked::Nothing),
        }
    }

    /// What cosign 2 attached: attestations, and a signature, which is only told of.
    fn of_cosign_2(&self, attestations: Vec<Descriptor>, signatures: Vec<Descriptor>) -> Vec<Looked> {
        let repository = self.subject.repository();
        let origin = |layer: &Descriptor| format!("{repository}@{}", layer.digest);
        let attestations = attestations.into_iter().map(|layer| {
            let origin = origin(&layer);
            match envelopes::is_attestation(&layer) {
                Ok(()) => {
                    Looked::Bundle(AttachedLayer { layer, origin, form: Form::Envelope, manifest: None })
                }
                Err(why) => Looked::Unused(Unused { origin, why }),
            }
        });
        let signatures = signatures
            .iter()
            .map(|layer| Looked::Unused(Unused { origin: origin(layer), why: Passed::Signature }));
        attestations.chain(signatures).collect()
    }

    /// Fetches what is a bundle.
    async fn fetch(&self, looked: Looked) -> Result<Looked> {
        let Looked::Bundle(AttachedLayer { layer, origin, form, manifest }) = looked else {
            return Ok(looked);
        };
        if layer.size > MAX_BUNDLE {
            return Err(Error::TooLarge { what: format!("bundle {}", layer.digest), limit: MAX_BUNDLE });
        }
        // Before it is fetched, so that concurrent fetches count as well.
        self.budget.take(layer.size)?;
        let read = |bytes: Vec<u8>| match form {
            Form::Bundle => bytes,
            Form::Envelope => envelopes::to_bundle(bytes),
        };
        if let Some(bytes) = self.stored(&layer, MAX_BUNDLE) {
            return Ok(Looked::Fetched(Attachment { bytes: read(bytes), origin }));
        }
        let repository = self.subject.repository();
        let bytes = match self.client.small_blob(repository, &layer.digest, layer.size).await {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => {
                return Ok(Looked::Gone(Gone { origin, kind: layer.media_type }));
            }
            Err(cause) => return Err(cause),
        };
        let bundle = read(bytes.clone());
        if let Some(store) = self.kept.filter(|_| (self.is_kept)(&bundle)) {
            if let Some(manifest) = manifest {
                store.put(descriptor::MANIFEST, &manifest)?;
            }
            store.put(&layer.media_type, &bytes)?;
        }
        Ok(Looked::Fetched(Attachment { bytes: bundle, origin }))
    }

    fn stored(&self, wanted: &Descriptor, limit: u64) -> Option<Vec<u8>> {
        self.kept.and_then(|store| store.read(wanted, limit).ok())
    }
}
