//! What a yes says in the levels of SLSA.

use serde::{Serialize, Serializer};

use super::builds::Group;
use crate::policy::{Demands, Policy};
use crate::review::OwnWork;

/// One level that an admitted image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is provenance.
    Build1,
    /// It is of a hosted platform.
    Build2,
    /// That platform keeps its builds apart.
    Build3,
    /// Builders of several operators got the same image (draft).
    Reproduced,
    /// Somebody other than the author approved the commit (draft).
    TwoPartyReviewed,
}

impl Level {
    /// As SLSA writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Build1 => "SLSA_BUILD_LEVEL_1",
            Self::Build2 => "SLSA_BUILD_LEVEL_2",
            Self::Build3 => "SLSA_BUILD_LEVEL_3",
            Self::Reproduced => "SLSA_BUILD_REPRODUCED",
            Self::TwoPartyReviewed => "SLSA_SOURCE_TWO_PARTY_REVIEWED",
        }
    }

    /// Whether SLSA 1.0 does not know it.
    pub fn is_draft(&self) -> bool {
        matches!(self, Self::Reproduced | Self::TwoPartyReviewed)
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The levels of an image by the builds and reviews that counted. What a builder's platform is, the policy says.
pub(super) fn of(policy: &Policy, demands: &Demands, group: &Group, reviews: &[String]) -> Vec<Level> {
    let builders = group.names();
    let of_builder = |name: &String| policy.builders.get(name).map_or(1, |builder| builder.slsa_level);
    let mut levels = vec![match builders.iter().map(of_builder).max() {
        Some(3) => Level::Build3,
        Some(2) => Level::Build2,
        _ => Level::Build1,
    }];
    if builders.len() > 1 {
        levels.push(Level::Reproduced);
    }
    if demands.reviews.own_work == OwnWork::Ignored && !reviews.is_empty() {
        levels.push(Level::TwoPartyReviewed);
    }
    levels
}
