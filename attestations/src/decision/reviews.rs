//! Reviews of the commit that was built; a review of changes needs the commit before reviewed as well.

use std::collections::BTreeSet;

use super::builds::Group;
use super::evidence::SignedReview;
use super::{Ignored, Reason, Unmet};
use crate::digest::{Commit, Tree};
use crate::foreign::Foreign;
use crate::policy::{Demands, Policy};
use crate::review::Scope;

/// How many reviews of changes may stand on each other.
const MAX_CHAIN: usize = 64;
/// How many commits are looked at in all, however the reviews branch; beyond it none counts.
const MAX_STEPS: usize = 4096;

struct Count<'a> {
    policy: &'a Policy,
    demands: &'a Demands,
    group: &'a Group,
    reviews: &'a [SignedReview<'a>],
    rejections: &'a BTreeSet<(String, Commit, Tree)>,
    ignored: &'a mut Vec<Ignored>,
    steps: usize,
}

/// Who approved the group's commit; what lacks goes into `unmet`.
pub(super) fn count(
    policy: &Policy,
    demands: &Demands,
    group: &Group,
    reviews: &[SignedReview<'_>],
    rejections: &BTreeSet<(String, Commit, Tree)>,
    unmet: &mut Vec<Unmet>,
    ignored: &mut Vec<Ignored>,
) -> Vec<String> {
    let commit = group.commit();
    // A commit with another name and the same tree is what was rejected, too.
    let rejected: BTreeSet<&String> = rejections
        .iter()
        .filter(|(_, it, tree)| it == commit || group.trees.contains(tree.as_str()))
        .map(|(by, _, _)| by)
        .collect();
    unmet.extend(rejected.into_iter().map(|by| Unmet::Rejected { by: by.clone(), commit: commit.clone() }));
    let mut path = Vec::new();
    let approved =
        Count { policy, demands, group, reviews, rejections, ignored, steps: 0 }.approvers(commit, &mut path);
    let approved: Vec<String> = approved.into_iter().collect();
    if approved.len() < demands.reviews.threshold {
        unmet.push(Unmet::reviews(demands, Some(commit.clone()), approved.clone()));
    }
    approved
}

impl Count<'_> {
    fn approvers(&mut self, commit: &Commit, path: &mut Vec<Commit>) -> BTreeSet<String> {
        let mut approved = BTreeSet::new();
        self.steps += 1;
        if path.len() >= MAX_CHAIN || self.steps > MAX_STEPS || path.contains(commit) {
            return approved;
        }
        path.push(commit.clone());
        let mut authors: BTreeSet<String> =
            if path.len() == 1 { self.group.authors.clone() } else { BTreeSet::new() };
        let reviews = self.reviews;
        let of_commit: Vec<&SignedReview<'_>> = reviews.iter().filter(|it| it.commit == *commit).collect();
        for one in &of_commit {
            authors.extend(one.review.authors.iter().map(|it| it.email.trim().to_lowercase()));
        }
        let mut bases: std::collections::BTreeMap<Commit, bool> = std::collections::BTreeMap::new();
        for one in &of_commit {
            let mut reason = self.refusal(one, &authors, path.len() == 1);
            if let (None, Scope::Changes { since }) = (&reason, &one.review.scope) {
                let enough = match bases.get(since) {
                    Some(known) => *known,
                    None => {
                        let enough = !self.rejections.iter().any(|(_, it, _)| it == since)
                            && self.approvers(since, path).len() >= self.demands.reviews.threshold;
                        bases.insert(since.clone(), enough);
                        enough
                    }
                };
                reason = (!enough).then(|| Reason::Since { since: since.clone() });
            }
            match reason {
                None => _ = approved.insert(one.person.to_owned()),
                Some(reason) => self.ignored.push(Ignored::new(one.origin, reason)),
            }
        }
        path.pop();
        approved
    }

    fn refusal(&self, one: &SignedReview<'_>, authors: &BTreeSet<String>, is_built: bool) -> Option<Reason> {
        if is_built && self.group.trees.iter().any(|tree| tree != one.review.tree.as_str()) {
            return Some(Reason::OtherTree);
        }
        let Some(person) = self.policy.people.get(one.person) else {
            return Some(Reason::NoReviewer { person: Foreign::new(one.person) });
        };
        let own = person.emails.iter().chain([&one.review.reviewer.email]);
        let wrote = own.into_iter().any(|email| authors.contains(&email.trim().to_lowercase()));
        (wrote && !self.demands.author_may_review)
            .then(|| Reason::Author { person: Foreign::new(one.person) })
    }
}
