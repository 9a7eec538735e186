//! Registries for synchronous code.

use attestations::{Digest, Foreign, Pinned, Reference, Repository, SignedBundle};
use images::registry::{Attachment, Carried, Client, Copied, Listed, Named, Registries, Statement, ToCarry};
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
    workspace: Workspace,
}

impl Registry {
    /// A client for `registries`. Transferred bytes and retries are reported to the user.
    pub(crate) fn new(registries: Registries, workspace: &Workspace, runtime: Handle) -> Self {
        let (progress, teller) = (workspace.progress().clone(), workspace.clone());
        let tell = move |text: &str| {
            teller.report(&Event::Warning { message: &format!("registry: {text}"), path: None });
        };
        let client = Client::with(registries).telling(tell).observed(move |traffic| progress.moved(traffic));
        Self { client, runtime, workspace: workspace.clone() }
    }

    /// Pushes an image with statements about it, which are attached before it is there.
    ///
    /// # Errors
    /// When the registry refuses it, nothing can be attached there, or the connection breaks.
    pub(crate) fn publish(
        &self,
        store: &Store,
        image: &Image,
        repository: &Repository,
        tag: Option<&str>,
        statements: &[&SignedBundle],
    ) -> Result<Digest> {
        let created = now_in_seconds();
        let statements = statements_of(statements, &created);
        let published = self.client.publish(store, image, repository, tag, &statements);
        let (digest, listed) = self.runtime.block_on(published)?;
        self.tell_where(listed, repository);
        Ok(digest)
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

    /// Fetches an image with what is attached to it, into a store.
    ///
    /// # Errors
    /// When the registry does not have something, or sends something else.
    pub(crate) fn fetch_all(&self, reference: &Reference, store: &Store, wanted: ToCarry) -> Result<Carried> {
        self.runtime.block_on(self.client.fetch_all(reference, store, wanted)).map_err(Error::from)
    }

    /// Pushes what was fetched or found in a store under a reference's tag.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub(crate) fn send_all(&self, carried: &Carried, store: &Store, to: &Reference) -> Result<Copied> {
        let sent = self.client.send_all(carried, store, to.repository(), to.tag());
        let copied = self.runtime.block_on(sent)?;
        if copied.as_envelopes {
            self.tell_where(Some(Listed::Envelopes), to.repository());
        }
        Ok(copied)
    }

    /// Attaches signed statements to an image, of which the descriptor of its manifest is at hand.
    ///
    /// # Errors
    /// When the registry refuses them, loses them again, or nothing can be attached there.
    pub(crate) fn attach(
        &self,
        subject: &Pinned,
        manifest: &Descriptor,
        bundles: &[&SignedBundle],
    ) -> Result<()> {
        let created = now_in_seconds();
        let statements = statements_of(bundles, &created);
        let listed = self.runtime.block_on(self.client.attach(subject, manifest, &statements))?;
        self.tell_where(Some(listed), subject.repository());
        Ok(())
    }

    /// Says where statements are, if that is not where everybody looks.
    fn tell_where(&self, listed: Option<Listed>, repository: &Repository) {
        if listed == Some(Listed::Envelopes) {
            let message = format!(
                "{repository} has no list of what is attached to an image, so the statements are where cosign 2 puts \
                 them, under the tag sha256-….att: countersign-runner finds them there, cosign 3 does not"
            );
            self.workspace.report(&Event::Warning { message: &message, path: None });
        }
    }

    /// The descriptor of an image's manifest.
    ///
    /// # Errors
    /// When the registry does not have it.
    pub(crate) fn describe(&self, image: &Pinned) -> Result<Descriptor> {
        self.runtime.block_on(self.client.describe(image)).map_err(Error::from)
    }

    /// The bundles that are attached to an image, of which there may be none. What is listed and gone is told.
    ///
    /// # Errors
    /// When the registry fails.
    pub(crate) fn attachments(&self, subject: &Pinned) -> Result<Vec<Attachment>> {
        let attached = self.runtime.block_on(self.client.attachments(subject))?;
        for gone in attached.gone {
            let message = format!(
                "{} ({}) is listed and not there: no node admits the image until it is put back or taken out of the list",
                Foreign::new(&gone.origin),
                Foreign::new(&gone.kind)
            );
            self.workspace.report(&Event::Warning { message: &message, path: None });
        }
        Ok(attached.bundles)
    }
}

fn statements_of<'a>(bundles: &[&'a SignedBundle], created: &'a str) -> Vec<Statement<'a>> {
    let one = |bundle: &&'a SignedBundle| Statement {
        bundle: bundle.to_bytes(),
        predicate_type: bundle.predicate_type(),
        created,
    };
    bundles.iter().map(one).collect()
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
        match self.runtime.block_on(self.client.attach_stored(subject, store, manifest)) {
            Ok(_) => Ok(()),
            Err(cause @ images::Error::CannotAttach { .. }) => {
                let message = format!(
                    "recorded responses are not attached: {cause}; a rebuild elsewhere needs them from `materials export`"
                );
                self.workspace.report(&Event::Warning { message: &message, path: None });
                Ok(())
            }
            Err(cause) => Err(cause.into()),
        }
    }

    fn pull_blobs(&self, repository: &Repository, blobs: &[Descriptor], store: &Store) -> Result<()> {
        self.runtime.block_on(self.client.pull_blobs(repository, blobs, store)).map_err(Error::from)
    }

    fn blob(&self, repository: &Repository, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        self.runtime.block_on(self.client.blob(repository, digest, max)).map_err(Error::from)
    }
}
