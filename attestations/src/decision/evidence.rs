//! Evidence by who signed it: each bundle is tried with each trusted key, whatever key it claims.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Evidence, Ignored};
use crate::bundle::Bundle;
use crate::digest::{Commit, Digest, Tree};
use crate::policy::{Policy, Rule};
use crate::provenance::{Provenance, RebuildVerdict};
use crate::review::{Review, Verdict};
use crate::statement::{Predicate, Statement, Subject};

/// How far another machine's clock may be ahead.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

#[derive(Default)]
pub(super) struct Sorted {
    pub(super) reviews: Vec<SignedReview>,
    pub(super) builds: Vec<SignedBuild>,
    /// Who rejected which commit. A no counts from every person of the policy, whatever else is wrong with it.
    pub(super) rejections: BTreeSet<(String, Commit, Tree)>,
    /// Who got another image from the same inputs. Counts from every builder of the policy, too.
    pub(super) failed: BTreeSet<String>,
    pub(super) ignored: Vec<Ignored>,
}

pub(super) struct SignedReview {
    pub(super) origin: String,
    pub(super) person: String,
    pub(super) commit: Commit,
    pub(super) review: Review,
}

pub(super) struct SignedBuild {
    pub(super) origin: String,
    pub(super) builder: String,
    pub(super) subject: Subject,
    pub(super) provenance: Provenance,
}

pub(super) fn sort(
    policy: &Policy,
    rule: &Rule,
    digest: &Digest,
    evidence: &[Evidence],
    now: Timestamp,
) -> Sorted {
    let mut sorted = Sorted::default();
    for one in evidence {
        if let Err(reason) = take(policy, rule, digest, one, now, &mut sorted) {
            sorted.ignored.push(Ignored { origin: one.origin.clone(), reason });
        }
    }
    sorted
}

fn take(
    policy: &Policy,
    rule: &Rule,
    digest: &Digest,
    one: &Evidence,
    now: Timestamp,
    sorted: &mut Sorted,
) -> Result<(), String> {
    let bundle = Bundle::parse(&one.bytes).map_err(|error| error.to_string())?;
    let claimed = bundle.statement_unverified().map_err(|error| error.to_string())?;
    match claimed.predicate {
        Predicate::Review(_) => {
            let people = policy.people.iter().map(|(name, person)| (name, &person.keys));
            let (person, statement) =
                signed(&bundle, people).ok_or("no key of the policy's people signed it")?;
            take_review(rule, one, person, statement, now, sorted)
        }
        Predicate::Provenance(_) => {
            let builders = policy.builders.iter().map(|(name, builder)| (name, &builder.keys));
            let (builder, statement) =
                signed(&bundle, builders).ok_or("no key of the policy's builders signed it")?;
            take_build(policy, rule, digest, one, builder, statement, now, sorted)
        }
        Predicate::Other { predicate_type, .. } => {
            Err(format!("a predicate that never counts: {predicate_type}"))
        }
    }
}

fn take_review(
    rule: &Rule,
    one: &Evidence,
    person: String,
    statement: Statement,
    now: Timestamp,
    sorted: &mut Sorted,
) -> Result<(), String> {
    let Predicate::Review(review) = statement.predicate else { return Err("not a review".into()) };
    if review.verdict == Verdict::Rejected {
        let commits = statement.subject.iter().filter_map(Subject::git_commit);
        sorted.rejections.extend(commits.map(|commit| (person.clone(), commit, review.tree.clone())));
        return Ok(());
    }
    let [subject] = statement.subject.as_slice() else {
        return Err("a review of several subjects".into());
    };
    let commit = subject.git_commit().ok_or("a review of no commit")?;
    if !rule.reviews.from.contains(&person) {
        return Err(format!("{person} is no reviewer of this rule"));
    }
    if late(review.reviewed_on, now) {
        return Err(format!("reviewed in the future, at {}", review.reviewed_on));
    }
    sorted.reviews.push(SignedReview { origin: one.origin.clone(), person, commit, review });
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one step of `take`, with all that it knows")]
fn take_build(
    policy: &Policy,
    rule: &Rule,
    digest: &Digest,
    one: &Evidence,
    builder: String,
    statement: Statement,
    now: Timestamp,
    sorted: &mut Sorted,
) -> Result<(), String> {
    let Predicate::Provenance(provenance) = statement.predicate else {
        return Err("no provenance".into());
    };
    let rebuild = provenance.build_definition.internal_parameters.rebuild_of.as_ref();
    if rebuild.is_some_and(|it| it.subject == *digest && it.verdict == RebuildVerdict::Differs) {
        sorted.failed.insert(builder);
        return Ok(());
    }
    let Ok([subject]) = <[Subject; 1]>::try_from(statement.subject) else {
        return Err("provenance of several subjects".into());
    };
    if !rule.builds.from.contains(&builder) {
        return Err(format!("{builder} is no builder of this rule"));
    }
    let id = &provenance.run_details.builder.id;
    if policy.builders.get(&builder).is_none_or(|known| known.id != *id) {
        return Err(format!("signed by {builder}, but it says the builder is {id}"));
    }
    if late(provenance.run_details.metadata.finished_on, now) {
        return Err("built in the future".into());
    }
    sorted.builds.push(SignedBuild { origin: one.origin.clone(), builder, subject, provenance: *provenance });
    Ok(())
}

fn late(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > SKEW
}

fn signed<'a>(
    bundle: &Bundle,
    holders: impl Iterator<Item = (&'a String, &'a Vec<crate::keys::PublicKey>)>,
) -> Option<(String, Statement)> {
    for (name, keys) in holders {
        for key in keys {
            if let Ok(verified) = bundle.verify(key) {
                return Some((name.clone(), verified.statement().clone()));
            }
        }
    }
    None
}
