//! Pushing what was built, with all that is said about it.

use attestations::{Reference, SignedBundle, Signer};
use images::{Index, Store};

use super::order::Outcome;
use super::registry::Registry;
use super::report::Built;
use crate::cli::Session;
use crate::error::{Error, Kind, Result};
use crate::materials::Place;
use crate::progress::{Direction, Event};
use crate::provenance;

/// What is pushed.
pub(super) struct Push<'a> {
    pub(super) session: &'a Session,
    pub(super) registry: &'a Registry,
    pub(super) store: &'a Store,
    pub(super) builds: &'a [Built],
    pub(super) index: Option<&'a Index>,
    /// What statements call an image.
    pub(super) subject: &'a dyn Fn(&Outcome) -> String,
    pub(super) reviews: Vec<&'a SignedBundle>,
    /// Who signs bills of materials, if there are to be any.
    pub(super) bills_by: Option<&'a dyn Signer>,
    /// Where materials lie, if they are to be attached.
    pub(super) materials_from: Option<&'a Place>,
}

impl Push<'_> {
    /// To every destination. What is said about an image is attached once in a repository, before its first tag is set there.
    pub(super) fn to_all(&self, destinations: &[Reference]) -> Result<()> {
        for (at, reference) in destinations.iter().enumerate() {
            let name = reference.to_string();
            let known = destinations[..at].iter().any(|other| other.repository() == reference.repository());
            let moving = self.session.progress().moving(Direction::Out, &name);
            for built in self.builds {
                self.image(built, reference, known)?;
            }
            // The index comes last: what its tag names has its evidence already.
            let digest = match (self.index, self.builds) {
                (Some(index), _) => {
                    self.registry.push_index(self.store, index, reference.repository(), reference.tag())?
                }
                (None, [built, ..]) => built.outcome.executed.image.digest(),
                (None, []) => return Err(Error::new(Kind::Bug, "nothing was built")),
            };
            let (bytes, seconds) = moving.done();
            self.session.tell(&Event::Pushed { name: &name, digest, bytes, seconds });
        }
        Ok(())
    }

    /// One image with all that is said about it; under the tag only when no index is to have it.
    fn image(&self, built: &Built, reference: &Reference, is_known: bool) -> Result<()> {
        let (outcome, image) = (&built.outcome, &built.outcome.executed.image);
        let repository = reference.repository();
        let tag = reference.tag().filter(|_| self.index.is_none());
        let digest = self.registry.push(self.store, image, repository, tag)?;
        if is_known {
            return Ok(());
        }
        let bills = match self.bills_by {
            Some(key) => provenance::sign_bills(outcome, &(self.subject)(outcome), key)?,
            None => Vec::new(),
        };
        let pinned = repository.clone().pin(digest);
        for statement in self.reviews.iter().copied().chain(&built.bundle).chain(&bills) {
            self.registry.attach(&pinned, image, statement)?;
        }
        match (self.materials_from, &built.materials) {
            (Some(place), Some(materials)) => place.send(self.registry, &pinned, materials),
            _ => Ok(()),
        }
    }
}
