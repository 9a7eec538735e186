//! The allow list of one run: what the policy grants, within what the node's own list allows.

use attestations::AllowedRequests;
use attestations::policy::{AllowedRequest, Method, NotListed};
use serde::Deserialize;

use super::{head::Refusal, target::Target};

/// A typed allow list, as it stands in a node's configuration. What is not listed is refused; an empty list allows nothing.
///
/// ```toml
/// [[rule]]
/// methods = ["GET"]
/// path = "/task/{id}/status"     # `{id}` stands for one segment of 1 to 18 digits
/// query = ["page"]               # keys that may appear, each at most once
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "RulesText")]
pub struct Rules(AllowedRequests);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesText {
    #[serde(default)]
    rule: Vec<AllowedRequest>,
}

impl From<RulesText> for Rules {
    fn from(text: RulesText) -> Self {
        Self(AllowedRequests::new(text.rule))
    }
}

/// What a policy grants.
impl From<AllowedRequests> for Rules {
    fn from(granted: AllowedRequests) -> Self {
        Self(granted)
    }
}

impl Rules {
    /// The method of the rule that lists this request, or why none does.
    pub(super) fn permit(&self, method: &str, target: &Target<'_>) -> Result<Method, Refusal> {
        if self.0.is_empty() {
            return Err(Refusal::NothingListed);
        }
        self.0.permit(method, &target.segments, &target.query).map_err(|lacks| match lacks {
            NotListed::Path => Refusal::PathNotListed,
            NotListed::Method => Refusal::MethodNotListed,
            NotListed::QueryKey(key) => Refusal::QueryKeyNotListed(key),
        })
    }
}
