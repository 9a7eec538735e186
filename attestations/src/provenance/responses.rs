//! How a builder came by what entered over the network: whose word it is that servers gave it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// How a builder came by the responses that entered its build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Responses {
    /// From somebody's record: it repeats what that one says to have got. It shows that the image follows from the record, and
    /// not that any server ever gave it.
    #[default]
    Replayed,
    /// From the servers, by itself.
    Fetched,
    /// From somebody's record, of which it then asked the servers.
    Confirmed(Confirmation),
}

/// What the servers gave when they were asked again for everything in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Confirmation {
    /// The digest of the record.
    pub record: Digest,
    /// When they were asked.
    pub confirmed_on: Timestamp,
    /// How many responses were the same.
    pub same: u64,
    /// Indexes of package registries that changed since, as they do, while the packages taken from them are the same.
    #[serde(default)]
    pub changed_indexes: u64,
    /// What could not be had any more, or not be asked for: a package (purl) or a URL each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// What is another thing now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

impl Confirmation {
    /// Whether the servers vouch for all of it.
    pub fn is_complete(&self) -> bool {
        self.gone.is_empty() && self.differs.is_empty()
    }
}
