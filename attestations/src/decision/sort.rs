//! What was signed, by what it means for one image.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::evidence::{Checked, Holder, Signed, denied_image, withdrawn};
use super::{Counted, Ignored, Reason, Unmet};
use crate::bundle::{BundleError, Verified};
use crate::clock;
use crate::decision::count::{Reviewer, Reviews, Standing};
use crate::digest::Digest;
use crate::foreign::Foreign;
use crate::policy::{Demands, MaxAge, Policy};
use crate::provenance::{Provenance, RebuildVerdict, Responses};
use crate::review::{Role, Verdict};
use crate::statement::{Predicate, Statement, Subject};

/// What was signed, by what it means for one image.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    /// A no counts from every person of the policy, whatever else is wrong with it.
    pub(super) reviews: Reviews<'a>,
    pub(super) builds: Vec<SignedBuild<'a>>,
    /// Who got another image from the same inputs. Counts from every builder of the policy, too.
    pub(super) failed: BTreeSet<String>,
    /// Who found that servers now give another thing than was recorded, and what. Counts from every builder, too.
    pub(super) doubted: BTreeMap<String, BTreeSet<String>>,
    /// The builders that came to a verdict on the image, whichever.
    pub(super) heard: BTreeSet<&'a str>,
    /// A yes that would count if it were not so old.
    pub(super) stale: BTreeSet<String>,
    /// What somebody of the policy signed and nobody here can read: who, where, and why not.
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) ignored: Vec<Ignored>,
    bundles: BTreeMap<&'a str, &'a Checked<'a>>,
}

impl Sorted<'_> {
    /// The statements that came from there, each once.
    pub(super) fn counted<'b>(&self, origins: impl Iterator<Item = &'b String>) -> Vec<Counted> {
        let all = origins.filter_map(|origin| Counted::of(self.bundles.get(origin.as_str())?));
        let each: BTreeMap<Digest, Counted> = all.map(|one| (one.bundle, one)).collect();
        each.into_values().collect()
    }
}

/// What nobody here can read.
#[derive(PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) by: String,
    pub(super) origin: Foreign,
    pub(super) reason: BundleError,
}

impl From<Unreadable> for Unmet {
    fn from(Unreadable { by, origin, reason }: Unreadable) -> Self {
        Self::Unreadable { by, origin, reason }
    }
}

pub(super) struct SignedBuild<'a> {
    pub(super) origin: &'a str,
    pub(super) builder: &'a str,
    pub(super) subject: &'a Subject,
    pub(super) provenance: Verified<&'a Provenance>,
}

/// Sorts evidence by what it means for the image `digest`.
pub(super) fn sort<'a>(
    policy: &'a Policy,
    demands: &'a Demands,
    digest: &'a Digest,
    checked: impl IntoIterator<Item = &'a Checked<'a>> + Clone,
    now: Timestamp,
) -> Sorted<'a> {
    let withdrawn = checked.clone().into_iter().filter_map(|one| withdrawal(policy, one, now)).collect();
    let asked = Criteria { policy, demands, digest, now, withdrawn };
    let mut sorted = Sorted::default();
    for one in checked {
        sorted.bundles.insert(one.origin, one);
        if let Err(reason) = asked.take(one, &mut sorted) {
            sorted.ignored.push(Ignored::new(one.origin, reason));
        }
    }
    sorted
}

/// The statement that is taken back, and the key that does so.
fn withdrawal<'a>(policy: &Policy, one: &'a Checked<'a>, now: Timestamp) -> Option<(&'a [u8], Digest)> {
    let signed = one.found.as_ref().ok()?;
    let statement = signed.read.said.as_ref().ok()?;
    let Predicate::Withdrawal(said) = &statement.value().predicate else { return None };
    let is_believed =
        !clock::is_ahead(said.withdrawn_on, now) && signed.disbelieved(policy, said.withdrawn_on).is_none();
    let taken_back = withdrawn(statement.value()).filter(|_| is_believed)?;
    Some((signed.key.key.spki_der(), taken_back))
}

/// What evidence is sorted by.
struct Criteria<'a> {
    policy: &'a Policy,
    demands: &'a Demands,
    digest: &'a Digest,
    now: Timestamp,
    withdrawn: BTreeSet<(&'a [u8], Digest)>,
}

impl<'a> Criteria<'a> {
    fn take(&self, one: &'a Checked<'a>, sorted: &mut Sorted<'a>) -> Result<(), Reason> {
        let signed = one.found.as_ref().map_err(Clone::clone)?;
        let statement = match &signed.read.said {
            Ok(statement) => statement,
            // It may be a no in words that are not known here: that is never the same as silence.
            Err(reason) => {
                let (by, origin) = (signed.holder.name().to_owned(), Foreign::new(one.origin));
                sorted.unreadable.push(Unreadable { by, origin, reason: reason.clone() });
                return Err(reason.clone().into());
            }
        };
        if self.is_withdrawn(signed) {
            return Err(Reason::Withdrawn { by: signed.holder.name().to_owned() });
        }
        match (signed.holder, statement.provenance(), &statement.value().predicate) {
            (Holder::Builder(name), Some(provenance), _) => {
                self.provenance(one, signed, name, statement, provenance, sorted)
            }
            (Holder::Person(name), None, Predicate::Review(review)) => {
                if review.verdict == Verdict::Approved {
                    self.believe(
                        signed,
                        review.reviewed_on,
                        self.demands.reviews.max_age,
                        one.origin,
                        sorted,
                    )?;
                }
                sorted.reviews.take(one.origin, self.reviewer(name, &review.role), statement, self.now)
            }
            (Holder::Builder(name), None, Predicate::Review(_)) => {
                Err(Reason::KeyOfBuilder { builder: name.to_owned() })
            }
            (Holder::Person(name), Some(_), _) => Err(Reason::KeyOfPerson { person: name.to_owned() }),
            (_, None, Predicate::Incomplete(said)) => {
                Err(Reason::IncompleteRebuild { reason: Foreign::new(&said.reason) })
            }
            (_, None, Predicate::Withdrawal(_)) => Err(Reason::Withdrawal),
            (_, None, other) => Err(Reason::OtherPredicate(Foreign::new(other.predicate_type()))),
        }
    }

    /// Whether its own signer took it back.
    fn is_withdrawn(&self, signed: &Signed<'_>) -> bool {
        let is_taken_back = |own| self.withdrawn.contains(&(signed.key.key.spki_der(), own));
        !self.withdrawn.is_empty() && signed.read.statement().is_some_and(is_taken_back)
    }

    /// Whether a yes of that time is believed, and young enough.
    fn believe(
        &self,
        signed: &Signed<'_>,
        time: Timestamp,
        max_age: Option<MaxAge>,
        origin: &str,
        sorted: &mut Sorted<'_>,
    ) -> Result<(), Reason> {
        if let Some(reason) = signed.disbelieved(self.policy, time) {
            return Err(reason);
        }
        if max_age.is_some_and(|age| age.is_over(time, self.now)) {
            sorted.stale.insert(format!("{} by {} of {time}", Foreign::new(origin), signed.holder.name()));
            return Err(Reason::TooOld { at: time });
        }
        Ok(())
    }

    fn reviewer(&self, name: &'a str, role: &Role) -> Reviewer<'a> {
        let person = self.policy.people.get(name);
        let asked = self.demands.reviews.roles.get(role);
        let standing = match asked.is_some_and(|asked| asked.from.iter().any(|it| it == name)) {
            true => Standing::Full,
            false => Standing::VetoOnly,
        };
        Reviewer {
            name,
            organisation: person.and_then(|it| it.organisation.as_deref()),
            emails: person.map_or(&[], |it| &it.emails),
            keys: person.map_or(&[], |it| &it.key_ids),
            standing,
        }
    }

    fn provenance(
        &self,
        one: &'a Checked<'a>,
        signed: &Signed<'a>,
        builder: &'a str,
        statement: &'a Verified<Statement>,
        provenance: Verified<&'a Provenance>,
        sorted: &mut Sorted<'a>,
    ) -> Result<(), Reason> {
        let said = *provenance.value();
        let internal = &said.build_definition.internal_parameters;
        if denied_image(said, statement.value()).is_some_and(|image| image == *self.digest) {
            sorted.heard.insert(builder);
            if let Responses::Confirmed(found) = &internal.responses
                && !found.differs.is_empty()
            {
                sorted.doubted.entry(builder.to_owned()).or_default().extend(found.differs.iter().cloned());
            }
            if internal.rebuild_of.as_ref().is_some_and(|of| of.verdict == RebuildVerdict::Differs) {
                sorted.failed.insert(builder.to_owned());
            }
            return Ok(());
        }
        let [subject] = statement.value().subject.as_slice() else { return Err(Reason::ProvenanceOfSeveral) };
        let id = &said.run_details.builder.id;
        let is_own_id = self.policy.builders.get(builder).is_some_and(|known| known.id == *id);
        let finished = said.run_details.metadata.finished_on;
        let is_believed =
            !clock::is_ahead(finished, self.now) && signed.disbelieved(self.policy, finished).is_none();
        // Whose yes is not believed has not spoken.
        if subject.sha256() == Some(*self.digest) && is_own_id && is_believed {
            sorted.heard.insert(builder);
        }
        if !self.demands.builds.from.iter().any(|name| name == builder) {
            return Err(Reason::NoBuilder { builder: builder.to_owned() });
        }
        if !is_own_id {
            return Err(Reason::OtherBuilder { builder: builder.to_owned(), claimed: Foreign::new(id) });
        }
        if clock::is_ahead(finished, self.now) {
            return Err(Reason::BuiltLater);
        }
        self.believe(signed, finished, self.demands.builds_age, one.origin, sorted)?;
        sorted.builds.push(SignedBuild { origin: one.origin, builder, subject, provenance });
        Ok(())
    }
}
