//! One image's bundles, held against what is asked of it. There is one such judgement, for the algorithm's image and for a base
//! that it stands on, so that the two cannot drift apart.

use super::bases::Bases;
use super::sort::Sorted;
use super::{Counted, Few, Ignored, Unmet, builds, reviews};
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
    counted: Vec<Counted>,
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

    /// The statements that counted.
    pub(super) fn counted(&self) -> &[Counted] {
        &self.counted
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
type Candidate = (Vec<Unmet>, Vec<Ignored>, builds::Group, reviews::Approved);

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
    unmet.extend(silent(demands, &sorted));
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
    let mut ignored = std::mem::take(&mut sorted.ignored);
    let Some((own, more, group, approved)) = best else {
        unmet.push(Unmet::builds(demands, None, Vec::new()));
        unmet.extend(reviews::none(demands));
        unmet.extend(stale(&sorted));
        return Judged { met: Err(unmet), ignored };
    };
    ignored.extend(more);
    // An old yes is worth telling of where a yes lacks.
    if own.iter().any(Unmet::is_of_number) {
        unmet.extend(stale(&sorted));
    }
    unmet.extend(own);
    let met = match unmet.is_empty() {
        true => {
            let counted = sorted.counted(approved.origins.iter().chain(group.origins()));
            Ok(Met { group, reviews: approved.by, counted })
        }
        false => Err(unmet),
    };
    Judged { met, ignored }
}

/// The builders whose word is waited for.
fn silent(demands: &Demands, sorted: &Sorted<'_>) -> Option<Unmet> {
    let silent: Vec<String> =
        demands.must_hear.iter().filter(|name| !sorted.heard.contains(name.as_str())).cloned().collect();
    (!silent.is_empty()).then_some(Unmet::MustHear { silent })
}

fn stale(sorted: &Sorted<'_>) -> Option<Unmet> {
    (!sorted.stale.is_empty()).then(|| Unmet::Stale { found: Few::of(&sorted.stale) })
}
