//! What is asked of the evidence about one image, as a policy writes it.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::age::max_age;
use super::materials::MaterialsText;
use super::parameters::{Parameters, ParametersText};
use super::reviews::ReviewsText;
use super::text::{At, ListText, PolicyError};
use super::{Demands, FailedRebuild, Policy, Threshold, normal_source};

/// What is asked of one image, whatever table it stands in.
pub(super) struct DemandsText {
    pub(super) source: Spanned<ListText>,
    pub(super) bases: Spanned<ListText>,
    pub(super) reviews: ReviewsText,
    pub(super) builds: BuildsText,
    pub(super) materials: Option<MaterialsText>,
    pub(super) parameters: Option<ParametersText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildsText {
    threshold: Spanned<usize>,
    from: Vec<Spanned<String>>,
    failed_rebuild: FailedRebuild,
    independent: Option<Spanned<usize>>,
    #[serde(default)]
    must_hear: Vec<Spanned<String>>,
    max_age: Option<Spanned<String>>,
}

impl DemandsText {
    pub(super) fn read(self, at: At<'_>, policy: &Policy) -> Result<Demands, PolicyError> {
        let operator = |name: &str| policy.builders.get(name).map(|builder| builder.operator.clone());
        let operators: BTreeSet<Option<String>> =
            self.builds.from.iter().map(|name| operator(name.get_ref())).collect();
        let independent =
            independent(at, self.builds.independent, *self.builds.threshold.get_ref(), operators.len())?;
        Ok(Demands {
            source: at.list(self.source, |_, _, url| Ok(normal_source(url)))?,
            bases: at.list(self.bases, At::parse)?,
            reviews: self.reviews.read(at, policy)?,
            builds: threshold(at, self.builds.threshold, self.builds.from, operator)?,
            builds_age: max_age(at, self.builds.max_age)?,
            independent,
            must_hear: heard(at, self.builds.must_hear, policy)?,
            parameters: self.parameters.map_or_else(|| Ok(Parameters::of_the_tree()), |it| it.read(at))?,
            failed_rebuild: self.builds.failed_rebuild,
            materials: self.materials.map(|it| it.read(at)).transpose()?,
        })
    }
}

/// One operator who saw for itself what entered is the least where builds are asked for at all; where two or more operators
/// are, the second one must not only repeat what the first one says to have got.
fn independent(
    at: At<'_>,
    wanted: Option<Spanned<usize>>,
    threshold: usize,
    operators: usize,
) -> Result<usize, PolicyError> {
    let Some(wanted) = wanted else { return Ok(threshold.min(2)) };
    let most = *wanted.get_ref();
    if most > operators {
        let hint = "give at most the number of distinct operators in `from`";
        return Err(at.error(wanted.span(), "so many independent operators are not listed", hint));
    }
    Ok(most)
}

/// The builders that must have spoken.
fn heard(at: At<'_>, names: Vec<Spanned<String>>, policy: &Policy) -> Result<Vec<String>, PolicyError> {
    let known = |name: Spanned<String>| match policy.builders.contains_key(name.get_ref()) {
        true => Ok(name.into_inner()),
        false => {
            Err(at.error(name.span(), "no builder of this policy has this name", "add it to [builders]"))
        }
    };
    names.into_iter().map(known).collect()
}

/// `holder` gives what is counted once: a person, a builder's operator.
pub(super) fn threshold(
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
