//! Registries for synchronous code.

use attestations::{Digest, Pinned, Reference, Repository, SignedBundle};
use images::registry::{Attachment, Client, Named, Registries};
use images::{Descriptor, Image, Index, Platform, Store};
use tokio::runtime::Handle;

use crate::bases;
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::workspace::Workspace;

/// A client and the runtime that its requests run on. Must not be used from asynchronous code, which it would block.
pub(crate) struct Registry {
    client: Client,
    runtime: Handle,
}

impl Registry {
    /// A client for `registries`. Transferred bytes and retries are reported to the user.
    pub(crate) fn new(registries: Registries, workspace: &Workspace, runtime: Handle) -> Self {
        let (progress, teller) = (workspace.progress().clone(), workspace.clone());
        let tell = move |text: &str| {
            teller.report(&Event::Warning { message: &format!("registry: {text}"), path: None });
        };
        let client = Client::with(registries).telling(tell).observed(move |traffic| progress.moved(traffic));
        Self { client, runtime }
    }

    /// Pushes an image, its blobs before its manifest.
    ///
    /// # Errors
    /// When the registry refuses it or the connection breaks.
    pub(crate) fn push(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Digest> {
        self.runtime.block_on(self.client.push(store, image, repository, tag)).map_err(Error::from)
    }

    /// Pushes an index. Its images must have been pushed before.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub(crate) fn push_index(
        &self,
        store: &Store,
        index: &Index,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Digest> {
        self.runtime.block_on(self.client.push_index(store, index, repository, tag)).map_err(Error::from)
    }

    /// What a reference names now: an image, or an index of several.
    ///
    /// # Errors
    /// When the registry does not know it or cannot be reached.
    pub(crate) fn look(&self, reference: &Reference) -> Result<Named> {
        self.runtime.block_on(self.client.look(reference)).map_err(Error::from)
    }

    /// The images that a reference names: the image itself, or the images of an index for `platforms`, all if that is
    /// empty.
    ///
    /// # Errors
    /// When there is none, or none for one of the platforms.
    pub(crate) fn images(&self, reference: &Reference, platforms: &[Platform]) -> Result<Vec<Pinned>> {
        let index = match self.look(reference)? {
            Named::Image(digest) => return Ok(vec![reference.repository().clone().pin(digest)]),
            Named::Index(index) => index,
        };
        let chosen: Vec<Digest> = match platforms {
            [] => index.images().map(|(_, entry)| entry.digest).collect(),
            some => {
                let one = |platform| index.choose(platform, &reference.to_string()).map_err(Error::from);
                some.iter().map(one).collect::<Result<_>>()?
            }
        };
        match chosen.is_empty() {
            true => Err(Error::new(Kind::NotFound, format!("the index {reference} lists no image"))),
            false => {
                Ok(chosen.into_iter().map(|digest| reference.repository().clone().pin(digest)).collect())
            }
        }
    }

    /// Attaches a signed statement to an image.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub(crate) fn attach(&self, subject: &Pinned, image: &Image, bundle: &SignedBundle) -> Result<Digest> {
        self.attach_to(subject, image.manifest(), bundle)
    }

    /// The same, for an image of which only the descriptor of its manifest is at hand.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub(crate) fn attach_to(
        &self,
        subject: &Pinned,
        manifest: &Descriptor,
        bundle: &SignedBundle,
    ) -> Result<Digest> {
        let (kind, created) = (bundle.predicate_type(), now_in_seconds());
        let attached = self.client.attach(subject, manifest, bundle.to_bytes(), kind, &created);
        self.runtime.block_on(attached).map_err(Error::from)
    }

    /// The descriptor of an image's manifest.
    ///
    /// # Errors
    /// When the registry does not have it.
    pub(crate) fn describe(&self, image: &Pinned) -> Result<Descriptor> {
        self.runtime.block_on(self.client.describe(image)).map_err(Error::from)
    }

    /// Everything that is attached to an image, which may be nothing.
    ///
    /// # Errors
    /// When the registry fails.
    pub(crate) fn attachments(&self, subject: &Pinned) -> Result<Vec<Attachment>> {
        self.runtime.block_on(self.client.attachments(subject)).map_err(Error::from)
    }
}

fn now_in_seconds() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl bases::Registry for Registry {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Digest> {
        match self.look(reference)? {
            Named::Image(digest) => Ok(digest),
            Named::Index(index) => index.choose(platform, &reference.to_string()).map_err(Error::from),
        }
    }

    fn pull(&self, pinned: &Pinned, store: &Store) -> Result<Image> {
        self.runtime.block_on(self.client.pull(pinned, store)).map_err(Error::from)
    }
}

impl recorder::Remote for Registry {
    fn attach_stored(&self, subject: &Pinned, store: &Store, manifest: &Descriptor) -> Result<()> {
        self.runtime.block_on(self.client.attach_stored(subject, store, manifest)).map_err(Error::from)
    }

    fn pull_blobs(&self, repository: &Repository, blobs: &[Descriptor], store: &Store) -> Result<()> {
        self.runtime.block_on(self.client.pull_blobs(repository, blobs, store)).map_err(Error::from)
    }

    fn blob(&self, repository: &Repository, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        self.runtime.block_on(self.client.blob(repository, digest, max)).map_err(Error::from)
    }
}
