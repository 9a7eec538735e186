//! Evidence by who signed it: the key that a bundle claims is tried first, and every other key of the policy after it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Evidence, Ignored, Reason, Unmet};
use crate::bundle::{Bundle, BundleError, Payload, Verified};
use crate::clock;
use crate::decision::count::{Reviewer, Reviews, Standing};
use crate::digest::Digest;
use crate::foreign::Foreign;
use crate::keys::{KeyId, PublicKey};
use crate::policy::{Demands, Policy};
use crate::provenance::{Provenance, RebuildVerdict};
use crate::statement::{Predicate, Statement, Subject};

/// One bundle, its signature checked: whose it is, and what it says. Neither depends on what is asked, so it is found out once.
pub(super) struct Checked<'a> {
    origin: &'a str,
    found: Result<(Holder<'a>, Result<Verified<Statement>, BundleError>), Reason>,
}

/// Checks each signature, and reads what was signed.
pub(super) fn check<'a>(policy: &'a Policy, evidence: &'a [Evidence]) -> Vec<Checked<'a>> {
    let holders = Holders::of(policy);
    let found = |one: &Evidence| {
        let bundle = Bundle::parse(&one.bytes)?;
        let (holder, payload) = holders.signed(&bundle).ok_or(Reason::UnknownKey)?;
        Ok((holder, payload.statement()))
    };
    evidence.iter().map(|one| Checked { origin: &one.origin, found: found(one) }).collect()
}

/// Whether somebody of the policy signed this bundle: only then is it worth keeping.
pub fn is_signed(policy: &Policy, bundle: &[u8]) -> bool {
    Bundle::parse(bundle).is_ok_and(|bundle| Holders::of(policy).signed(&bundle).is_some())
}

/// What was signed, by what it means for one image.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    /// A no counts from every person of the policy, whatever else is wrong with it.
    pub(super) reviews: Reviews<'a>,
    pub(super) builds: Vec<SignedBuild<'a>>,
    /// Who got another image from the same inputs. Counts from every builder of the policy, too.
    pub(super) failed: BTreeSet<String>,
    /// What somebody of the policy signed and nobody here can read: who, where, and why not.
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) ignored: Vec<Ignored>,
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
    checked: impl IntoIterator<Item = &'a Checked<'a>>,
    now: Timestamp,
) -> Sorted<'a> {
    let asked = Asked { policy, demands, digest, now };
    let mut sorted = Sorted::default();
    for one in checked {
        if let Err(reason) = asked.take(one, &mut sorted) {
            sorted.ignored.push(Ignored::new(one.origin, reason));
        }
    }
    sorted
}

/// What evidence is sorted by.
struct Asked<'a> {
    policy: &'a Policy,
    demands: &'a Demands,
    digest: &'a Digest,
    now: Timestamp,
}

impl<'a> Asked<'a> {
    fn take(&self, one: &'a Checked<'a>, sorted: &mut Sorted<'a>) -> Result<(), Reason> {
        let (holder, statement) = one.found.as_ref().map_err(Clone::clone)?;
        let statement = match statement {
            Ok(statement) => statement,
            // It may be a no in words that are not known here: that is never the same as silence.
            Err(reason) => {
                let (by, origin) = (holder.name().to_owned(), Foreign::new(one.origin));
                sorted.unreadable.push(Unreadable { by, origin, reason: reason.clone() });
                return Err(reason.clone().into());
            }
        };
        match (*holder, statement.provenance(), &statement.value().predicate) {
            (Holder::Builder(name), Some(provenance), _) => {
                let subjects = &statement.value().subject;
                sorted.builds.extend(self.build(
                    one.origin,
                    name,
                    subjects,
                    provenance,
                    &mut sorted.failed,
                )?);
                Ok(())
            }
            (Holder::Person(name), None, Predicate::Review(_)) => {
                sorted.reviews.take(one.origin, self.reviewer(name), statement, self.now)
            }
            (Holder::Builder(name), None, Predicate::Review(_)) => {
                Err(Reason::KeyOfBuilder { builder: name.to_owned() })
            }
            (Holder::Person(name), Some(_), _) => Err(Reason::KeyOfPerson { person: name.to_owned() }),
            (_, None, other) => Err(Reason::OtherPredicate(Foreign::new(other.predicate_type()))),
        }
    }

    fn reviewer(&self, name: &'a str) -> Reviewer<'a> {
        let emails = self.policy.people.get(name).map_or(&[][..], |person| &person.emails);
        let standing = match self.demands.reviews.from.iter().any(|it| it == name) {
            true => Standing::Full,
            false => Standing::VetoOnly,
        };
        Reviewer { name, emails, standing }
    }

    /// The build, unless it is a rebuild that differs, which goes into `failed`.
    fn build(
        &self,
        origin: &'a str,
        builder: &'a str,
        subjects: &'a [Subject],
        provenance: Verified<&'a Provenance>,
        failed: &mut BTreeSet<String>,
    ) -> Result<Option<SignedBuild<'a>>, Reason> {
        let said = *provenance.value();
        let rebuild = said.build_definition.internal_parameters.rebuild_of.as_ref();
        if rebuild.is_some_and(|it| it.subject == *self.digest && it.verdict == RebuildVerdict::Differs) {
            failed.insert(builder.to_owned());
            return Ok(None);
        }
        let [subject] = subjects else { return Err(Reason::ProvenanceOfSeveral) };
        if !self.demands.builds.from.iter().any(|name| name == builder) {
            return Err(Reason::NoBuilder { builder: builder.to_owned() });
        }
        let id = &said.run_details.builder.id;
        if self.policy.builders.get(builder).is_none_or(|known| known.id != *id) {
            return Err(Reason::OtherBuilder { builder: builder.to_owned(), claimed: Foreign::new(id) });
        }
        if clock::is_ahead(said.run_details.metadata.finished_on, self.now) {
            return Err(Reason::BuiltLater);
        }
        Ok(Some(SignedBuild { origin, builder, subject, provenance }))
    }
}

/// Whose key it is. The policy gives one key to one holder.
#[derive(Clone, Copy)]
enum Holder<'a> {
    Person(&'a str),
    Builder(&'a str),
}

impl<'a> Holder<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Person(name) | Self::Builder(name) => name,
        }
    }
}

/// Every key of a policy with its holder.
struct Holders<'a>(Vec<(KeyId, &'a PublicKey, Holder<'a>)>);

impl<'a> Holders<'a> {
    fn of(policy: &'a Policy) -> Self {
        let people = policy.people.iter().map(|(name, it)| (Holder::Person(name), &it.keys));
        let builders = policy.builders.iter().map(|(name, it)| (Holder::Builder(name), &it.keys));
        let keys =
            people.chain(builders).flat_map(|(holder, keys)| keys.iter().map(move |key| (holder, key)));
        Self(keys.map(|(holder, key)| (key.id(), key, holder)).collect())
    }

    /// Who signed it. The bundle's hint says which key is tried first, and nothing else: every key is tried.
    fn signed<'b>(&self, bundle: &'b Bundle) -> Option<(Holder<'a>, Verified<Payload<'b>>)> {
        let hinted = |id: &KeyId| bundle.hint() == Some(id.as_str());
        let (first, rest): (Vec<_>, Vec<_>) = self.0.iter().partition(|(id, ..)| hinted(id));
        first.into_iter().chain(rest).find_map(|(_, key, holder)| Some((*holder, bundle.verify(key).ok()?)))
    }
}
