//! The tag `sha256-<hex>`, whose index lists an image's attachments if the registry has no referrers API
//! (distribution-spec, "Referrers Tag Schema"). Clients maintain it.

use attestations::Pinned;
use serde_json::json;

use super::super::client::Client;
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, RegistryFailure, Result};
use crate::index::Index;

/// Clients race to update the tag; each attempt reads the others' changes.
const TRIES: usize = 8;

impl Client {
    pub(super) async fn fallback(&self, subject: &Pinned) -> Result<Vec<Descriptor>> {
        let place = self.lists_of(subject.repository())?;
        let Some(raw) = self.manifest_if_any(&place, &fallback_tag(subject)).await? else {
            return Ok(Vec::new());
        };
        let index = Index::parse(&raw.bytes)?.ok_or_else(|| {
            Error::refused(
                format!("the tag {}", fallback_tag(subject)),
                format!("not an index but {}", raw.media_type),
            )
        })?;
        Ok(index.manifests().to_vec())
    }

    pub(super) async fn list_in_fallback_tag(&self, subject: &Pinned, entry: Descriptor) -> Result<()> {
        for _ in 0..TRIES {
            let mut listed = self.fallback(subject).await?;
            if listed.iter().any(|found| found.digest == entry.digest) {
                return Ok(());
            }
            listed.push(entry.clone());
            let index = json!({ "schemaVersion": 2, "mediaType": descriptor::INDEX, "manifests": listed });
            self.put_manifest(
                subject.repository(),
                &fallback_tag(subject),
                descriptor::INDEX,
                index.to_string().into_bytes(),
            )
            .await?;
        }
        let reason = format!("the tag {} kept losing what was written to it", fallback_tag(subject));
        Err(Error::registry(subject.repository().registry(), RegistryFailure::Answer, reason))
    }
}

fn fallback_tag(subject: &Pinned) -> String {
    format!("sha256-{}", subject.digest().hex())
}
