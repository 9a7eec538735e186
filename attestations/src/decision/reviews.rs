//! Reviews of the commit that was built.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::builds::Group;
use super::{Ignored, Unmet};
use crate::decision::count::{Authors, Built, Commits, ReviewCriteria, Reviews};
use crate::digest::{Commit, Tree};
use crate::policy::{Demands, Threshold};
use crate::review::Role;

/// Whose reviews counted, and where those came from.
pub(super) struct Approved {
    pub(super) by: Vec<String>,
    pub(super) origins: BTreeSet<String>,
}

/// Who approved the group's commit, in whatever role; what lacks goes into `unmet`.
pub(super) fn count(
    demands: &Demands,
    group: &Group,
    reviews: &Reviews<'_>,
    unmet: &mut Vec<Unmet>,
    ignored: &mut Vec<Ignored>,
) -> Approved {
    let commit = group.commit();
    let Ok(rejected) = reviews.rejections(commit, group);
    let rejected: BTreeSet<String> = rejected.into_iter().map(|it| it.by).collect();
    unmet.extend(rejected.into_iter().map(|by| Unmet::Rejected { by, commit: commit.clone() }));
    let (mut approved_by, mut origins) = (BTreeSet::new(), BTreeSet::new());
    for (role, asked) in &demands.reviews.roles {
        let wanted = ReviewCriteria {
            role,
            threshold: asked.threshold,
            counted_once: demands.reviews.counted_once,
            own_work: demands.reviews.own_work,
        };
        let Ok(count) = reviews.count(commit, wanted, group);
        ignored.extend(count.ignored);
        if count.approvals < asked.threshold {
            let counted = count.approved_by.iter().cloned().collect();
            unmet.push(lacking(demands, (role, asked), Some(commit.clone()), counted));
        }
        approved_by.extend(count.approved_by);
        origins.extend(count.counted);
    }
    Approved { by: approved_by.into_iter().collect(), origins }
}

/// What lacks where nothing was built that could have been reviewed.
pub(super) fn none(demands: &Demands) -> impl Iterator<Item = Unmet> {
    demands.reviews.roles.iter().map(|asked| lacking(demands, asked, None, Vec::new()))
}

fn lacking(
    demands: &Demands,
    (role, asked): (&Role, &Threshold),
    commit: Option<Commit>,
    counted: Vec<String>,
) -> Unmet {
    Unmet::Reviews {
        role: role.clone(),
        wanted: asked.threshold,
        once: demands.reviews.counted_once,
        from: asked.from.clone(),
        counted,
        commit,
    }
}

/// A node has no repository: of the commit that was built it knows what its builders say, and of others nothing.
impl Commits for Group {
    type Error = Infallible;

    fn tree(&self, commit: &Commit) -> Result<Option<Tree>, Infallible> {
        Ok((commit == self.commit()).then(|| self.tree().clone()))
    }

    fn authors(&self, commit: &Commit, _since: Option<&Commit>) -> Result<Authors, Infallible> {
        Ok(if commit == self.commit() { self.authors.clone() } else { Authors::new() })
    }

    fn built(&self, commit: &Commit) -> Option<Built<'_>> {
        (commit == self.commit()).then(|| self.how())
    }
}
