//! Pushes images with all their evidence.

use attestations::{Reference, SignedBundle, Signer};
use images::{Index, Store};

use super::BuiltImage;
use crate::error::{Error, Kind, Result};
use crate::pipeline::BuildOutcome;
use crate::progress::{Direction, Event};
use crate::provenance;
use crate::registry::Registry;
use crate::workspace::Workspace;
use recorder::{PrivateResponses, ResponseStore};

/// Everything that is pushed, and how.
pub(crate) struct Push<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) registry: &'a Registry,
    pub(crate) store: &'a Store,
    pub(crate) builds: &'a [BuiltImage],
    pub(crate) index: Option<&'a Index>,
    /// The name of an image in its statements.
    pub(crate) subject: &'a dyn Fn(&BuildOutcome) -> String,
    pub(crate) reviews: Vec<&'a SignedBundle>,
    /// The signer of SBOMs, if they are to be attached.
    pub(crate) sbom_signer: Option<&'a dyn Signer>,
    /// The store of the recorded responses, if they are to be attached.
    pub(crate) materials_from: Option<&'a ResponseStore>,
    /// Whether private responses are attached.
    pub(crate) private: PrivateResponses,
}

impl Push<'_> {
    /// Pushes to every destination. An image's evidence is attached once per repository, before its first tag is set
    /// there.
    pub(crate) fn to_all(&self, destinations: &[Reference]) -> Result<()> {
        for (at, reference) in destinations.iter().enumerate() {
            let name = reference.to_string();
            let known = destinations[..at].iter().any(|other| other.repository() == reference.repository());
            let moving = self.workspace.progress().moving(Direction::Out, &name);
            for built in self.builds {
                self.image(built, reference, known)?;
            }
            // The index comes last, so that its tag never names images without their evidence.
            let digest = match (self.index, self.builds) {
                (Some(index), _) => {
                    self.registry.push_index(self.store, index, reference.repository(), reference.tag())?
                }
                (None, [built, ..]) => built.outcome.executed.image.digest(),
                (None, []) => return Err(Error::new(Kind::Bug, "nothing was built")),
            };
            let (bytes, seconds) = moving.done();
            self.workspace.report(&Event::Pushed { name: &name, digest, bytes, seconds });
        }
        Ok(())
    }

    /// Pushes one image after its evidence; under the tag only if no index takes it.
    fn image(&self, built: &BuiltImage, reference: &Reference, is_known: bool) -> Result<()> {
        let (outcome, image) = (&built.outcome, &built.outcome.executed.image);
        let repository = reference.repository();
        let tag = reference.tag().filter(|_| self.index.is_none());
        if is_known {
            return self.registry.publish(self.store, image, repository, tag, &[]).map(drop);
        }
        let sboms = match self.sbom_signer {
            Some(key) => provenance::sign_bills(outcome, &(self.subject)(outcome), key)?,
            None => Vec::new(),
        };
        let statements: Vec<&SignedBundle> =
            self.reviews.iter().copied().chain(&built.bundle).chain(&sboms).collect();
        let digest = self.registry.publish(self.store, image, repository, tag, &statements)?;
        let pinned = repository.clone().pin(digest);
        match (self.materials_from, &built.materials) {
            (Some(response_store), Some(materials)) => {
                let withheld = response_store.private_bodies(materials)?.len();
                if self.private == PrivateResponses::Withhold && withheld > 0 {
                    let message = format!(
                        "recorded responses that are not attached, since steps with secrets or credentials were \
                         given them: {withheld}; a rebuild elsewhere needs them from `materials export \
                         --include-private`, or a build with --attach-private"
                    );
                    self.workspace.report(&Event::Warning { message: &message, path: None });
                }
                response_store.send(self.registry, &pinned, materials, self.private)
            }
            _ => Ok(()),
        }
    }
}
