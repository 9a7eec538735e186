//! Evidence by who signed it: each bundle is tried with each trusted key, whatever key it claims.

use jiff::{SignedDuration, Timestamp};

use super::{Evidence, Ignored};
use crate::bundle::Bundle;
use crate::digest::Commit;
use crate::policy::{Policy, Rule};
use crate::provenance::Provenance;
use crate::review::{Review, Verdict};
use crate::statement::{Predicate, Statement, Subject};

/// How far another machine's clock may be ahead.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

#[derive(Default)]
pub(super) struct Sorted {
    pub(super) reviews: Vec<SignedReview>,
    pub(super) builds: Vec<SignedBuild>,
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

pub(super) fn sort(policy: &Policy, rule: &Rule, evidence: &[Evidence], now: Timestamp) -> Sorted {
    let mut sorted = Sorted::default();
    for one in evidence {
        if let Err(reason) = take(policy, rule, one, now, &mut sorted) {
            sorted.ignored.push(Ignored { origin: one.origin.clone(), reason });
        }
    }
    sorted
}

fn take(
    policy: &Policy,
    rule: &Rule,
    one: &Evidence,
    now: Timestamp,
    sorted: &mut Sorted,
) -> Result<(), String> {
    let bundle = Bundle::parse(&one.bytes).map_err(|error| error.to_string())?;
    let claimed = bundle.statement_unverified().map_err(|error| error.to_string())?;
    let late = |time: Timestamp| time.duration_since(now) > SKEW;
    match claimed.predicate {
        Predicate::Review(_) => {
            let people =
                rule.reviews.from.iter().filter_map(|name| Some((name, &policy.people.get(name)?.keys)));
            let (person, statement) = signed(&bundle, people).ok_or("no listed reviewer's key signed it")?;
            let [subject] = statement.subject.as_slice() else {
                return Err("a review of several subjects".into());
            };
            let commit = subject.git_commit().ok_or("a review of no commit")?;
            let Predicate::Review(review) = statement.predicate else { return Err("not a review".into()) };
            if review.verdict == Verdict::Approved && late(review.reviewed_on) {
                return Err(format!("reviewed in the future, at {}", review.reviewed_on));
            }
            sorted.reviews.push(SignedReview { origin: one.origin.clone(), person, commit, review });
        }
        Predicate::Provenance(_) => {
            let builders =
                rule.builds.from.iter().filter_map(|name| Some((name, &policy.builders.get(name)?.keys)));
            let (builder, statement) =
                signed(&bundle, builders).ok_or("no listed builder's key signed it")?;
            let Ok([subject]) = <[Subject; 1]>::try_from(statement.subject) else {
                return Err("provenance of several subjects".into());
            };
            let Predicate::Provenance(provenance) = statement.predicate else {
                return Err("no provenance".into());
            };
            let id = &provenance.run_details.builder.id;
            if policy.builders.get(&builder).is_none_or(|known| known.id != *id) {
                return Err(format!("signed by {builder}, but it says the builder is {id}"));
            }
            if late(provenance.run_details.metadata.finished_on) {
                return Err("built in the future".into());
            }
            sorted.builds.push(SignedBuild {
                origin: one.origin.clone(),
                builder,
                subject,
                provenance: *provenance,
            });
        }
        Predicate::Other { predicate_type, .. } => {
            return Err(format!("a predicate that never counts: {predicate_type}"));
        }
    }
    Ok(())
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
