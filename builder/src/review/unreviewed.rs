//! What of a commit nobody reviewed, by the reviews at hand: everything since the newest commit of its history that has enough
//! of them.

use std::collections::{BTreeMap, BTreeSet};

use attestations::review::{Role, Verdict};
use attestations::{Commit, Subject};
use git2::Oid;

use super::contents::unreadable;
use super::gate::{Demand, HandedIn, Sorted, people};
use crate::error::{Kind, Result};
use crate::source::Snapshot;

/// A commit that has enough reviews.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Reviewed {
    /// The commit.
    pub(crate) commit: Commit,
    /// Who approved it.
    pub(crate) by: BTreeSet<String>,
}

/// What is asked of the reviews at hand.
#[derive(Debug, Clone)]
pub(crate) struct Criteria {
    /// In which role.
    pub(crate) role: Role,
    /// How many different reviewers.
    pub(crate) threshold: usize,
    /// The current time.
    pub(crate) now: jiff::Timestamp,
}

/// The newest commit with enough reviews: `commit` itself, or the one of its history that lacks the fewest commits to it.
///
/// # Errors
/// When the repository cannot be read.
pub(crate) fn newest_reviewed(
    commit: &Snapshot<'_>,
    handed_in: &[HandedIn],
    asked: &Criteria,
) -> Result<Option<Reviewed>> {
    let demand = Demand { roles: BTreeMap::from([(asked.role.clone(), asked.threshold)]), now: asked.now };
    let people = people(handed_in);
    let sorted = Sorted::new(&demand, handed_in, &people);
    for (_, candidate) in candidates(commit, handed_in)? {
        let found = sorted.approved_by(commit.repository(), &candidate, (&asked.role, asked.threshold));
        match found {
            Ok(Some(by)) => return Ok(Some(Reviewed { commit: candidate, by })),
            Ok(None) => {}
            // One of its reviews stands on a commit that this repository does not have.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The commits of the history that somebody approved, by how many commits came after them.
fn candidates(commit: &Snapshot<'_>, handed_in: &[HandedIn]) -> Result<BTreeSet<(usize, Commit)>> {
    let git = commit.history()?;
    let own = commit.git_commit().id();
    let mut found = BTreeSet::new();
    for statement in handed_in.iter().filter_map(HandedIn::signed) {
        let is_approval = statement.review().is_some_and(|it| it.value().verdict == Verdict::Approved);
        let named = statement.value().subject.iter().filter_map(Subject::git_commit);
        for candidate in named.filter(|_| is_approval) {
            // The whole history is there; what is not there is not of it.
            let Ok(oid) = Oid::from_str(candidate.as_str()) else { continue };
            if git.find_commit(oid).is_err() {
                continue;
            }
            if oid == own || git.graph_descendant_of(own, oid).map_err(unreadable)? {
                let (after, _) = git.graph_ahead_behind(own, oid).map_err(unreadable)?;
                found.insert((after, candidate));
            }
        }
    }
    Ok(found)
}
