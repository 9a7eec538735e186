//! What a rule asks of bases that it does not list by digest.

use serde::Deserialize;
use toml::Spanned;

use super::demands::{BuildsText, DemandsText};
use super::materials::MaterialsText;
use super::parameters::ParametersText;
use super::reviews::ReviewsText;
use super::text::{At, ListText, PolicyError};
use super::{Allowed, Demands, Pattern, Policy};
use crate::reference::Repository;

/// A base that no list names counts when its own evidence meets this.
///
/// There is no such table inside: what a base stands on in turn is listed by digest. So one decision asks for the evidence
/// of an image and of its bases, and never further, and whoever reads the policy sees where the chain ends.
#[derive(Debug, Clone)]
pub(crate) struct BuiltBases {
    /// Where evidence may be asked for: a Dockerfile's author chooses where a base is from, and a node asks no host that its
    /// policy does not name.
    pub(crate) repositories: Allowed<Pattern>,
    /// What is asked of the base.
    pub(crate) base: Demands,
}

impl BuiltBases {
    /// Whether evidence may be asked for there.
    pub(crate) fn may_ask(&self, place: &Repository) -> bool {
        match &self.repositories {
            Allowed::Any => true,
            Allowed::Only(patterns) => {
                let name = place.to_string();
                patterns.iter().any(|pattern| pattern.matches(&name))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuiltBasesText {
    repositories: Spanned<ListText>,
    source: Spanned<ListText>,
    bases: Spanned<ListText>,
    reviews: ReviewsText,
    builds: BuildsText,
    materials: Option<MaterialsText>,
    parameters: Option<ParametersText>,
}

impl BuiltBasesText {
    pub(super) fn read(self, at: At<'_>, policy: &Policy) -> Result<BuiltBases, PolicyError> {
        let repositories = at.list(self.repositories, |at, span, text| {
            let hint = "write registry/name with `*` or `**`, as in `pattern`";
            Pattern::new(text)
                .ok_or_else(|| at.error(span, &format!("`{text}` can match no repository"), hint))
        })?;
        let span = self.bases.span();
        let Self { source, bases, reviews, builds, materials, parameters, .. } = self;
        let base = DemandsText { source, bases, reviews, builds, materials, parameters }.read(at, policy)?;
        if base.bases == Allowed::Any {
            let hint = "list their digests; [] is for bases that are built from scratch";
            return Err(at.error(span, "a chain of bases that ends in anything proves nothing", hint));
        }
        Ok(BuiltBases { repositories, base })
    }
}
