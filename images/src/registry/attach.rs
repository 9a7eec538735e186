//! What is attached to an image: signed bundles, as cosign v3 stores them (a manifest with a `subject`).
//!
//! Registries with the referrers API list them; for the others the index under the tag `sha256-<hex>` does, which the
//! client itself has to keep (distribution-spec, "Referrers Tag Schema").

use std::collections::BTreeMap;

use attestations::{BUNDLE_MEDIA_TYPE, Digest, Pinned, Repository};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde_json::json;

use super::Client;
use super::http::Request;
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Result};
use crate::image::{MAX_MANIFEST, Manifest};
use crate::index::Index;
use crate::store::Store;

/// The most attachments of one image that are looked at. More are an error, not a choice among them.
pub const MAX_ATTACHMENTS: usize = 256;
/// The most bytes of a bundle.
const MAX_BUNDLE: u64 = attestations::bundle::MAX_BUNDLE as u64;
const MAX_PAGES: usize = 32;
/// Updates of the fallback tag race; each try reads what the others wrote.
const TRIES: usize = 8;

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

    async fn referrers(&self, subject: &Pinned) -> Result<Vec<Descriptor>> {
        let place = self.lists_of(subject.repository())?;
        let mut found = Vec::new();
        let mut path = format!("referrers/{}", subject.digest());
        for page in 0..MAX_PAGES {
            let asked = self.url(&place, &path)?;
            let request =
                Request { accept: Some(descriptor::INDEX.to_owned()), ..Request::get(path.clone()) };
            let Some(answer) = self.fetch(&place, &request, MAX_MANIFEST, "referrers").await? else {
                return match page {
                    0 => Ok(Vec::new()),
                    _ => Err(Error::NotFound { what: format!("a page of the referrers of {subject}") }),
                };
            };
            let next = next_page(&answer.headers, &asked, &place)?;
            let bytes = answer.bytes;
            let index = Index::parse(&bytes)?.ok_or_else(|| Error::refused("referrers", "not an index"))?;
            found.extend(index.manifests().iter().cloned());
            match next {
                Some(next) if found.len() <= MAX_ATTACHMENTS => path = next,
                _ => return Ok(found),
            }
        }
        Err(Error::refused(
            subject.to_string(),
            format!("its referrers go on for more than {MAX_PAGES} pages"),
        ))
    }

    async fn fallback(&self, subject: &Pinned) -> Result<Vec<Descriptor>> {
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

    async fn list_in_fallback_tag(&self, subject: &Pinned, entry: Descriptor) -> Result<()> {
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
        Err(Error::Registry { registry: subject.repository().registry().to_owned(), reason })
    }
}

fn keep(store: Option<&Store>, media_type: &str, bytes: &[u8]) -> Result<()> {
    store.map_or(Ok(()), |store| store.put(media_type, bytes).map(drop))
}

fn fallback_tag(subject: &Pinned) -> String {
    format!("sha256-{}", subject.digest().hex())
}

/// The path of the next page, below the same repository of the same server. A next page that lies elsewhere may hold a
/// veto, so it is an error and never the end.
fn next_page(headers: &HeaderMap, asked: &Url, repository: &Repository) -> Result<Option<String>> {
    let refused = |reason: String| Error::refused(format!("the list of referrers of {repository}"), reason);
    for value in headers.get_all(LINK) {
        let mut rest = value.to_str().map_err(|_| refused("its Link header is no text".to_owned()))?;
        while let Some((_, opened)) = rest.split_once('<') {
            let (target, after) =
                opened.split_once('>').ok_or_else(|| refused(format!("its Link header `{rest}`")))?;
            let end = after.find('<').unwrap_or(after.len());
            if is_next(&after[..end]) {
                let found = asked.join(target).ok().and_then(|url| below(&url, asked, repository));
                return found
                    .map(Some)
                    .ok_or_else(|| refused(format!("its next page `{target}` is not of this repository")));
            }
            rest = &after[end..];
        }
        if value.as_bytes().iter().all(|byte| *byte != b'<') && !value.is_empty() {
            return Err(refused("its Link header names no page".to_owned()));
        }
    }
    Ok(None)
}

fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

fn below(url: &Url, asked: &Url, repository: &Repository) -> Option<String> {
    let path = url.path().strip_prefix(&format!("/v2/{}/", repository.path()))?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    (url.origin() == asked.origin()).then(|| format!("{path}{query}"))
}
