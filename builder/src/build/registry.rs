//! Registries, from code that is not asynchronous.

use attestations::{Bundle, Digest, Pinned, Reference, Repository};
use images::registry::{Attachment, Client};
use images::{Descriptor, Image, Store};
use tokio::runtime::Handle;

use super::bases;
use crate::error::{Result, Told};

/// A client and the runtime its requests run on. Not to be used from asynchronous code.
pub struct Registry {
    client: Client,
    runtime: Handle,
}

impl Registry {
    /// Speaks plain HTTP to loopback and to the hosts in `plain`, TLS to all others.
    pub fn new(plain: &[String], runtime: Handle) -> Self {
        Self { client: Client::new(plain.iter().cloned()), runtime }
    }

    /// Pushes an image, its blobs before its manifest.
    ///
    /// # Errors
    /// When the registry refuses or breaks off.
    pub fn push(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Digest> {
        self.runtime.block_on(self.client.push(store, image, repository, tag)).told()
    }

    /// Attaches a signed statement to an image.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn attach(&self, subject: &Pinned, image: &Image, bundle: &Bundle) -> Result<Digest> {
        let predicate = bundle.statement_unverified().map_err(|cause| {
            crate::error::Error::new(crate::error::Kind::Input, "the statement to attach is malformed")
                .because(cause)
        })?;
        let kind = predicate.predicate.predicate_type().to_owned();
        let created = now_in_seconds();
        let attached = self.client.attach(subject, image.manifest(), bundle.to_bytes(), &kind, &created);
        self.runtime.block_on(attached).told()
    }

    /// Attaches an artifact that is in a store.
    ///
    /// # Errors
    /// When the registry refuses, or a blob is missing or damaged.
    pub fn attach_stored(&self, subject: &Pinned, store: &Store, manifest: &Descriptor) -> Result<()> {
        self.runtime.block_on(self.client.attach_stored(subject, store, manifest)).told()
    }

    /// Fetches blobs into a store.
    ///
    /// # Errors
    /// When the registry lacks one or sends something else.
    pub fn pull_blobs(&self, repository: &Repository, blobs: &[Descriptor], store: &Store) -> Result<()> {
        self.runtime.block_on(self.client.pull_blobs(repository, blobs, store)).told()
    }

    /// Reads one blob of at most `max` bytes.
    ///
    /// # Errors
    /// When the registry lacks it, or sends something else or too much.
    pub fn blob(&self, repository: &Repository, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        self.runtime.block_on(self.client.blob(repository, digest, max)).told()
    }

    /// The descriptor of an image's manifest.
    ///
    /// # Errors
    /// When the registry does not have it.
    pub fn describe(&self, image: &Pinned) -> Result<Descriptor> {
        self.runtime.block_on(self.client.describe(image)).told()
    }

    /// Everything attached to an image.
    ///
    /// # Errors
    /// When the registry fails; that there is nothing is no error.
    pub fn attachments(&self, subject: &Pinned) -> Result<Vec<Attachment>> {
        self.runtime.block_on(self.client.attachments(subject)).told()
    }
}

fn now_in_seconds() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl bases::Registry for Registry {
    fn resolve(&self, reference: &Reference) -> Result<Digest> {
        self.runtime.block_on(self.client.resolve(reference)).told()
    }

    fn pull(&self, pinned: &Pinned, store: &Store) -> Result<Image> {
        self.runtime.block_on(self.client.pull(pinned, store)).told()
    }
}
