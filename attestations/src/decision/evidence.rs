//! Evidence by who signed it: the key that a bundle claims is tried first, and every other key of the policy after it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Evidence, Ignored, Reason, Unmet};
use crate::bundle::{Bundle, BundleError, Payload, Verified};
use crate::digest::{Commit, Digest, Tree};
use crate::foreign::Foreign;
use crate::keys::{KeyId, PublicKey};
use crate::policy::{Demands, Policy};
use crate::provenance::{Provenance, RebuildVerdict};
use crate::review::{Review, Verdict};
use crate::statement::{Predicate, Statement, Subject};

/// How far another machine's clock may be ahead.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// One bundle, its signature checked: whose it is, and what it says. Neither depends on what is asked, so it is found out once.
pub(super) struct Checked<'a> {
    origin: &'a str,
    found: Result<(Holder<'a>, Result<Statement, BundleError>), Reason>,
}

/// Checks each signature, and reads what was signed.
pub(super) fn check<'a>(policy: &'a Policy, evidence: &'a [Evidence]) -> Vec<Checked<'a>> {
    let holders = Holders::of(policy);
    let found = |one: &Evidence| {
        let bundle = Bundle::parse(&one.bytes)?;
        let (holder, payload) = holders.signed(&bundle).ok_or(Reason::UnknownKey)?;
        let statement = payload.statement().map(Verified::into_value);
        Ok((holder, statement))
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
    pub(super) reviews: Vec<SignedReview<'a>>,
    pub(super) builds: Vec<SignedBuild<'a>>,
    /// Who rejected which commit. A no counts from every person of the policy, whatever else is wrong with it.
    pub(super) rejections: BTreeSet<(String, Commit, Tree)>,
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

pub(super) struct SignedReview<'a> {
    pub(super) origin: &'a str,
    pub(super) person: &'a str,
    pub(super) commit: Commit,
    pub(super) review: &'a Review,
}

pub(super) struct SignedBuild<'a> {
    pub(super) origin: &'a str,
    pub(super) builder: &'a str,
    pub(super) subject: &'a Subject,
    pub(super) provenance: &'a Provenance,
}

pub(super) fn sort<'a>(
    policy: &Policy,
    demands: &Demands,
    digest: &Digest,
    checked: impl IntoIterator<Item = &'a Checked<'a>>,
    now: Timestamp,
) -> Sorted<'a> {
    let mut sorted = Sorted::default();
    for one in checked {
        if let Err(reason) = take(policy, demands, digest, one, now, &mut sorted) {
            sorted.ignored.push(Ignored::new(one.origin, reason));
        }
    }
    sorted
}

fn take<'a>(
    policy: &Policy,
    demands: &Demands,
    digest: &Digest,
    one: &'a Checked<'a>,
    now: Timestamp,
    sorted: &mut Sorted<'a>,
) -> Result<(), Reason> {
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
    match (holder, &statement.predicate) {
        (Holder::Person(person), Predicate::Review(review)) => {
            take_review(demands, one, person, &statement.subject, review, now, sorted)
        }
        (Holder::Builder(builder), Predicate::Provenance(provenance)) => {
            let signed = (*builder, &statement.subject[..], &**provenance);
            take_build(policy, demands, digest, one, signed, now, sorted)
        }
        (Holder::Builder(name), Predicate::Review(_)) => {
            Err(Reason::KeyOfBuilder { builder: (*name).to_owned() })
        }
        (Holder::Person(name), Predicate::Provenance(_)) => {
            Err(Reason::KeyOfPerson { person: (*name).to_owned() })
        }
        (_, Predicate::Other { predicate_type, .. }) => {
            Err(Reason::OtherPredicate(Foreign::new(predicate_type)))
        }
    }
}

fn take_review<'a>(
    demands: &Demands,
    one: &Checked<'a>,
    person: &'a str,
    subjects: &[Subject],
    review: &'a Review,
    now: Timestamp,
    sorted: &mut Sorted<'a>,
) -> Result<(), Reason> {
    if review.verdict == Verdict::Rejected {
        let commits = subjects.iter().filter_map(Subject::git_commit);
        sorted.rejections.extend(commits.map(|commit| (person.to_owned(), commit, review.tree.clone())));
        return Ok(());
    }
    let [subject] = subjects else {
        return Err(Reason::ReviewOfSeveral);
    };
    let commit = subject.git_commit().ok_or(Reason::ReviewOfNoCommit)?;
    if !demands.reviews.from.iter().any(|name| name == person) {
        return Err(Reason::NoReviewer { person: Foreign::new(person) });
    }
    if late(review.reviewed_on, now) {
        return Err(Reason::ReviewedLater { at: review.reviewed_on });
    }
    sorted.reviews.push(SignedReview { origin: one.origin, person, commit, review });
    Ok(())
}

fn take_build<'a>(
    policy: &Policy,
    demands: &Demands,
    digest: &Digest,
    one: &Checked<'a>,
    (builder, subjects, provenance): (&'a str, &'a [Subject], &'a Provenance),
    now: Timestamp,
    sorted: &mut Sorted<'a>,
) -> Result<(), Reason> {
    let rebuild = provenance.build_definition.internal_parameters.rebuild_of.as_ref();
    if rebuild.is_some_and(|it| it.subject == *digest && it.verdict == RebuildVerdict::Differs) {
        sorted.failed.insert(builder.to_owned());
        return Ok(());
    }
    let [subject] = subjects else {
        return Err(Reason::ProvenanceOfSeveral);
    };
    if !demands.builds.from.iter().any(|name| name == builder) {
        return Err(Reason::NoBuilder { builder: builder.to_owned() });
    }
    let id = &provenance.run_details.builder.id;
    if policy.builders.get(builder).is_none_or(|known| known.id != *id) {
        return Err(Reason::OtherBuilder { builder: builder.to_owned(), claimed: Foreign::new(id) });
    }
    if late(provenance.run_details.metadata.finished_on, now) {
        return Err(Reason::BuiltLater);
    }
    sorted.builds.push(SignedBuild { origin: one.origin, builder, subject, provenance });
    Ok(())
}

fn late(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > SKEW
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
