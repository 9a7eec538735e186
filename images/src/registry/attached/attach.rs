//! Attaching signed statements to an image.

use std::collections::BTreeMap;

use attestations::{BUNDLE_MEDIA_TYPE, Digest, Pinned, Repository};

use super::super::client::Client;
use super::lists::List;
use super::referrers::Api;
use super::settle::{Sent, Settled};
use super::{Listed, envelopes};
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Result};
use crate::image::{Image, Manifest};
use crate::store::Store;

/// A signed statement that is to be attached.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// The bundle.
    pub bundle: &'a [u8],
    /// The URI that names the kind of statement in it.
    pub predicate_type: &'a str,
    /// When it is attached, an RFC 3339 time.
    pub created: &'a str,
}

impl Client {
    /// Pushes an image with statements about it. They are attached first, so that the image never is there without
    /// them, and is not pushed at all where nothing can be attached. Some registries only take what is attached to an
    /// image that they have: for them the image comes first, without a tag.
    ///
    /// # Errors
    /// When the registry refuses something, or the connection breaks.
    pub async fn publish(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
        tag: Option<&str>,
        statements: &[Statement<'_>],
    ) -> Result<(Digest, Option<Listed>)> {
        self.push_blobs_of(store, image, repository).await?;
        let subject = repository.clone().pin(image.digest());
        let listed = match statements {
            [] => None,
            _ => Some(match self.attach(&subject, image.manifest(), statements).await {
                Err(Error::NoSubject { .. }) => {
                    self.put_image(store, image, repository, None).await?;
                    self.attach(&subject, image.manifest(), statements).await?
                }
                other => other?,
            }),
        };
        self.put_image(store, image, repository, tag).await?;
        Ok((image.digest(), listed))
    }

    /// Attaches statements to the image `subject`, whose manifest has the descriptor `described`, and says where they
    /// are listed.
    ///
    /// # Errors
    /// When the registry refuses them or loses them again, [`Error::NoSubject`] when it wants the image first, and
    /// [`Error::CannotAttach`] when they cannot be listed anywhere.
    pub async fn attach(
        &self,
        subject: &Pinned,
        described: &Descriptor,
        statements: &[Statement<'_>],
    ) -> Result<Listed> {
        let repository = subject.repository();
        self.push_bytes(b"{}", repository).await?;
        let mut sent = Vec::new();
        for statement in statements {
            self.push_bytes(statement.bundle, repository).await?;
            let (entry, bytes) = manifest_of(described, statement)?;
            sent.push(self.send_attached(subject, entry, bytes).await?);
        }
        match self.list(subject, &sent).await? {
            Ok(listed) => Ok(listed),
            Err(reason) => self.attach_envelopes(subject, statements, &reason).await,
        }
    }

    /// Sends a manifest with a `subject`.
    pub(super) async fn send_attached(
        &self,
        subject: &Pinned,
        entry: Descriptor,
        bytes: Vec<u8>,
    ) -> Result<Sent> {
        let version = entry.digest.to_string();
        let answer =
            self.try_manifest(subject.repository(), &version, descriptor::MANIFEST, bytes.clone()).await?;
        let answer = answer.map_err(|reason| Error::NoSubject { what: subject.to_string(), reason })?;
        let is_promised = answer.headers().contains_key("OCI-Subject");
        Ok(Sent { entry, bytes, is_promised })
    }

    /// Sees to it that what was sent is listed: by the registry, whatever it promised, or under the tag. The reason
    /// where neither is possible.
    pub(super) async fn list(
        &self,
        subject: &Pinned,
        sent: &[Sent],
    ) -> Result<std::result::Result<Listed, String>> {
        if let Api::Lists(listed) = self.referrers(subject).await? {
            let is_listed = |it: &Sent| listed.iter().any(|entry| entry.digest == it.entry.digest);
            if sent.iter().all(|it| it.is_promised || is_listed(it)) {
                self.settle_by_registry(subject, sent).await?;
                return Ok(Ok(Listed::ByRegistry));
            }
        }
        let own: Vec<Descriptor> = sent.iter().map(|it| it.entry.clone()).collect();
        Ok(match self.settle(subject, List::Referrers, &own).await? {
            Settled::Yes => Ok(Listed::UnderTag),
            Settled::Refused(reason) => Err(reason),
        })
    }

    /// Attaches statements as cosign 2 did, since the list of referrers cannot be written for this reason.
    async fn attach_envelopes(
        &self,
        subject: &Pinned,
        statements: &[Statement<'_>],
        reason: &str,
    ) -> Result<Listed> {
        let mut layers = Vec::new();
        for statement in statements {
            let (layer, bytes) = envelopes::of_bundle(statement.bundle, statement.predicate_type)?;
            self.push_bytes(&bytes, subject.repository()).await?;
            layers.push(layer);
        }
        match self.settle(subject, List::Envelopes, &layers).await? {
            Settled::Yes => Ok(Listed::Envelopes),
            Settled::Refused(also) => Err(Error::CannotAttach {
                repository: subject.repository().to_string(),
                reason: format!("{reason}; nor as cosign 2 does: {also}"),
            }),
        }
    }
}

/// The manifest of a statement, and its entry in a list.
fn manifest_of(described: &Descriptor, statement: &Statement<'_>) -> Result<(Descriptor, Vec<u8>)> {
    let annotations = [
        ("dev.sigstore.bundle.content", "dsse-envelope"),
        (super::PREDICATE_TYPE, statement.predicate_type),
        ("org.opencontainers.image.created", statement.created),
    ];
    let annotations: BTreeMap<_, _> =
        annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let manifest = Manifest {
        artifact_type: Some(BUNDLE_MEDIA_TYPE.to_owned()),
        subject: Some(Descriptor::new(described.media_type.clone(), described.digest, described.size)),
        annotations: annotations.clone(),
        ..Manifest::image(
            Descriptor::of(descriptor::EMPTY, b"{}"),
            vec![Descriptor::of(BUNDLE_MEDIA_TYPE, statement.bundle)],
        )
    };
    let bytes = manifest.to_bytes()?;
    let entry = Descriptor {
        artifact_type: Some(BUNDLE_MEDIA_TYPE.to_owned()),
        annotations,
        ..Descriptor::of(descriptor::MANIFEST, &bytes)
    };
    Ok((entry, bytes))
}
