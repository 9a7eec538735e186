//! One image's bundles, held against what is asked of it. There is one such judgement, for the algorithm's image and for a base
//! that it stands on, so that the two cannot drift apart.

use super::bases::Bases;
use super::evidence::Sorted;
use super::{Ignored, Unmet, builds, reviews};
use crate::digest::Digest;
use crate::policy::{Demands, Policy};

/// The proof that one image's evidence meets what is asked of it. Only [`judge`] makes it, and nobody outside sees one.
///
/// ```compile_fail,E0603
/// use attestations::decision::judge::Met;
/// ```
pub(super) struct Met {
    group: builds::Group,
    reviews: Vec<String>,
}

impl Met {
    /// The builds that counted.
    pub(super) fn group(&self) -> &builds::Group {
        &self.group
    }

    /// The people whose reviews counted.
    pub(super) fn reviews(&self) -> &[String] {
        &self.reviews
    }
}

/// How one image came off.
pub(super) struct Judged {
    /// The proof, or everything that lacks.
    pub(super) met: Result<Met, Vec<Unmet>>,
    /// What was not counted, and why.
    pub(super) ignored: Vec<Ignored>,
}

/// What one group of builds lacks, what was not counted for it, the group, and who approved its commit.
type Candidate = (Vec<Unmet>, Vec<Ignored>, builds::Group, Vec<String>);

/// Judges the image with the manifest `digest` by what was signed about it.
pub(super) fn judge(
    policy: &Policy,
    demands: &Demands,
    digest: &Digest,
    mut sorted: Sorted<'_>,
    bases: &mut Bases<'_>,
) -> Judged {
    let mut unreadable: Vec<Unmet> = sorted.unreadable.drain(..).map(Unmet::from).collect();
    unreadable.sort_by_cached_key(Unmet::found);
    unreadable.dedup();
    let mut unmet = unreadable;
    let groups = builds::groups(policy, demands, digest, bases, &mut sorted, &mut unmet);
    let mut best: Option<Candidate> = None;
    for group in groups {
        let mut own = group.unmet(demands);
        let mut ignored = Vec::new();
        let reviews = reviews::count(demands, &group, &sorted.reviews, &mut own, &mut ignored);
        if best.as_ref().is_none_or(|(least, ..)| own.len() < least.len()) {
            best = Some((own, ignored, group, reviews));
        }
    }
    let mut ignored = sorted.ignored;
    let Some((own, more, group, reviews)) = best else {
        unmet.push(Unmet::builds(demands, None, Vec::new()));
        unmet.push(Unmet::reviews(demands, None, Vec::new()));
        return Judged { met: Err(unmet), ignored };
    };
    ignored.extend(more);
    unmet.extend(own);
    let met = if unmet.is_empty() { Ok(Met { group, reviews }) } else { Err(unmet) };
    Judged { met, ignored }
}
