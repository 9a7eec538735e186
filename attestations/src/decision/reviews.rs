//! Reviews of the commit that was built.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::builds::Group;
use super::{Ignored, Unmet};
use crate::decision::count::{Commits, Reviews, Wanted};
use crate::digest::{Commit, Tree};
use crate::policy::Demands;

/// Whose reviews counted, and where those came from.
pub(super) struct Approved {
    pub(super) by: Vec<String>,
    pub(super) origins: BTreeSet<String>,
}

/// Who approved the group's commit; what lacks goes into `unmet`.
pub(super) fn count(
    demands: &Demands,
    group: &Group,
    reviews: &Reviews<'_>,
    unmet: &mut Vec<Unmet>,
    ignored: &mut Vec<Ignored>,
) -> Approved {
    let wanted = Wanted { threshold: demands.reviews.threshold, own_work: demands.own_work };
    let commit = group.commit();
    let Ok(count) = reviews.count(commit, wanted, group);
    let rejected: BTreeSet<String> = count.rejected.into_iter().map(|it| it.by).collect();
    unmet.extend(rejected.into_iter().map(|by| Unmet::Rejected { by, commit: commit.clone() }));
    ignored.extend(count.ignored);
    let approved: Vec<String> = count.approved_by.into_iter().collect();
    if approved.len() < demands.reviews.threshold {
        unmet.push(Unmet::reviews(demands, Some(commit.clone()), approved.clone()));
    }
    Approved { by: approved, origins: count.counted }
}

/// A node has no repository: of the commit that was built it knows what its builders say, and of others nothing.
impl Commits for Group {
    type Error = Infallible;

    fn tree(&self, commit: &Commit) -> Result<Option<Tree>, Infallible> {
        Ok((commit == self.commit()).then(|| self.tree().clone()))
    }

    fn authors(&self, commit: &Commit, _since: Option<&Commit>) -> Result<Vec<String>, Infallible> {
        Ok(if commit == self.commit() { self.authors.iter().cloned().collect() } else { Vec::new() })
    }
}
