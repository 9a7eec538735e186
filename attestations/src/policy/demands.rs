//! What is asked of the evidence about one image, as a policy writes it.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::materials::MaterialsText;
use super::text::{At, ListText, PolicyError};
use super::{Demands, FailedRebuild, Policy, Threshold, normal_source};
use crate::review::OwnWork;

/// What is asked of one image, whatever table it stands in.
pub(super) struct DemandsText {
    pub(super) source: Spanned<ListText>,
    pub(super) bases: Spanned<ListText>,
    pub(super) reviews: ReviewsText,
    pub(super) builds: BuildsText,
    pub(super) materials: Option<MaterialsText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReviewsText {
    threshold: Spanned<usize>,
    from: Vec<Spanned<String>>,
    #[serde(default)]
    author_may_review: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildsText {
    threshold: Spanned<usize>,
    from: Vec<Spanned<String>>,
    failed_rebuild: FailedRebuild,
}

impl DemandsText {
    pub(super) fn read(self, at: At<'_>, policy: &Policy) -> Result<Demands, PolicyError> {
        let known_people = |name: &str| policy.people.contains_key(name).then(|| name.to_owned());
        let operator = |name: &str| policy.builders.get(name).map(|builder| builder.operator.clone());
        Ok(Demands {
            source: at.list(self.source, |_, _, url| Ok(normal_source(url)))?,
            bases: at.list(self.bases, At::parse)?,
            reviews: threshold(at, self.reviews.threshold, self.reviews.from, known_people)?,
            own_work: match self.reviews.author_may_review {
                true => OwnWork::Counts,
                false => OwnWork::Ignored,
            },
            builds: threshold(at, self.builds.threshold, self.builds.from, operator)?,
            failed_rebuild: self.builds.failed_rebuild,
            materials: self.materials.map(|it| it.read(at)).transpose()?,
        })
    }
}

/// `holder` gives what is counted once: a person, a builder's operator.
fn threshold(
    at: At<'_>,
    wanted: Spanned<usize>,
    names: Vec<Spanned<String>>,
    holder: impl Fn(&str) -> Option<String>,
) -> Result<Threshold, PolicyError> {
    let mut holders = BTreeSet::new();
    for name in &names {
        let found = holder(name.get_ref()).ok_or_else(|| {
            at.error(name.span(), "nobody in this policy has this name", "add it to [people] or [builders]")
        })?;
        holders.insert(found);
    }
    let threshold = *wanted.get_ref();
    if threshold == 0 || threshold > holders.len() {
        let hint = "give at least 1 and at most the number of distinct holders in `from`";
        return Err(at.error(wanted.span(), "this threshold means nothing or can never be met", hint));
    }
    Ok(Threshold { threshold, from: names.into_iter().map(Spanned::into_inner).collect() })
}
