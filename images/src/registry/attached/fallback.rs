//! The tag `sha256-<hex>`, whose index lists an image's attachments if the registry has no referrers API
//! (distribution-spec, "Referrers Tag Schema"). Clients maintain it.

use attestations::{Digest, Pinned};
use reqwest::StatusCode;

use super::super::client::{Client, Fetched, Request};
use super::referrers::says_index;
use crate::descriptor::{self, Descriptor};
use crate::error::Result;
use crate::image::MAX_MANIFEST;
use crate::index::Index;

/// How registries say that a tag is not there: also that no tag can have such a name, and that what is there is none of
/// the types that were asked for.
const ABSENT: &[StatusCode] = &[StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::NOT_ACCEPTABLE];

/// What is under the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tag {
    /// Nothing.
    Empty,
    /// An index of attachments.
    Lists(Vec<Descriptor>),
    /// The image itself: `cosign copy` puts it there, and some registries read the tag as the digest.
    Subject,
    /// Something else that is no index.
    Other,
}

impl Client {
    /// Reads the tag. What is no index lists nothing (distribution-spec, "Listing Referrers"): whoever may put it there
    /// may put an empty index there. An index that is damaged is an error.
    pub(super) async fn fallback(&self, subject: &Pinned) -> Result<Tag> {
        // Asked for an index alone: a registry that chooses by what is accepted would otherwise send an image of it.
        let Some(Fetched { headers, bytes }) =
            self.tagged(subject, &fallback_tag(subject), descriptor::INDEX).await?
        else {
            return Ok(Tag::Empty);
        };
        if Digest::of(&bytes) == *subject.digest() {
            return Ok(Tag::Subject);
        }
        match Index::parse(&bytes) {
            Ok(Some(index)) => Ok(Tag::Lists(index.manifests().to_vec())),
            Err(cause) if says_index(&headers) => Err(cause),
            Ok(None) | Err(_) => Ok(Tag::Other),
        }
    }

    /// What is under a tag of this image's repository, if there is anything.
    pub(super) async fn tagged(&self, subject: &Pinned, tag: &str, accept: &str) -> Result<Option<Fetched>> {
        let place = self.lists_of(subject.repository())?;
        let request = Request { accept: Some(accept.to_owned()), ..Request::get(format!("manifests/{tag}")) };
        self.fetch_unless(&place, &request, MAX_MANIFEST, &format!("manifest {tag}"), ABSENT).await
    }
}

pub(super) fn fallback_tag(subject: &Pinned) -> String {
    format!("sha256-{}", subject.digest().hex())
}
