//! The lists that clients maintain under a tag, since the registry does not: reading one, and writing it anew.

use attestations::{Digest, Pinned};
use serde_json::json;

use super::super::client::Client;
use super::envelopes;
use super::fallback::{Tag, fallback_tag};
use crate::descriptor::{self, Descriptor};
use crate::error::Result;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// The index under `sha256-<hex>`.
    Referrers,
    /// The layers of the manifest under `sha256-<hex>.att`.
    Envelopes,
    /// Those under `sha256-<hex>.sig`.
    Signatures,
}

/// What came of writing a list.
pub(super) enum Written {
    Yes,
    /// The registry does not take it, for this reason.
    Refused(String),
}

impl List {
    /// The tag of an image's list.
    pub(super) fn tag(self, subject: &Pinned) -> String {
        match self {
            Self::Referrers => fallback_tag(subject),
            Self::Envelopes => envelopes::tag(subject, envelopes::ATTESTATIONS),
            Self::Signatures => envelopes::tag(subject, envelopes::SIGNATURES),
        }
    }
}

impl Client {
    /// Reads a list.
    pub(super) async fn read_list(&self, subject: &Pinned, list: List) -> Result<Tag> {
        let layers = match list {
            List::Referrers => return self.fallback(subject).await,
            List::Envelopes => self.envelopes(subject, envelopes::ATTESTATIONS).await?,
            List::Signatures => self.envelopes(subject, envelopes::SIGNATURES).await?,
        };
        Ok(if layers.is_empty() { Tag::Empty } else { Tag::Lists(layers) })
    }

    /// Writes a list anew, over whatever is under its tag.
    pub(super) async fn write_list(
        &self,
        subject: &Pinned,
        list: List,
        entries: Vec<Descriptor>,
    ) -> Result<Written> {
        let (kind, bytes) = match list {
            List::Referrers => (descriptor::INDEX, index(&entries)),
            List::Envelopes | List::Signatures => {
                let (manifest, config) = envelopes::manifest(entries);
                self.push_bytes(&config, subject.repository()).await?;
                (descriptor::MANIFEST, manifest.to_bytes()?)
            }
        };
        match self.try_manifest(subject.repository(), &list.tag(subject), kind, bytes).await? {
            Ok(_) => Ok(Written::Yes),
            Err(reason) => Ok(Written::Refused(reason)),
        }
    }

    /// Whether what a list names is still there.
    pub(super) async fn is_there(&self, subject: &Pinned, list: List, digest: &Digest) -> Result<bool> {
        let repository = subject.repository();
        match list {
            List::Referrers => Ok(self.manifest_if_any(repository, &digest.to_string()).await?.is_some()),
            List::Envelopes | List::Signatures => self.has_blob(repository, digest).await,
        }
    }
}

/// The index that lists these manifests.
pub(super) fn index(entries: &[Descriptor]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "mediaType": descriptor::INDEX, "manifests": entries });
    index.to_string().into_bytes()
}
