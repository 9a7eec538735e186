//! The policy predicate: "this text is our federation's policy, in this version". Documented in
//! `docs/predicates/policy-v1.md`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::through_text::through_text;

/// The URI that names a release of a policy.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/policy/v1";
/// What every version of it begins with.
pub(crate) const PREDICATE_TYPES: &str = "https://countersign.dev/policy/";

/// What one key of a federation signs about a policy's text, which is the statement's one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRelease {
    /// Whose policy it is.
    pub federation: FederationName,
    /// Its version, from 1. A later release has a higher one.
    pub version: NonZeroU32,
    /// From when on nothing is admitted by it any more.
    pub expires: Timestamp,
    /// When this key signed it.
    pub signed_on: Timestamp,
}

/// A federation's name: 1 to 64 letters, digits, `.`, `-` and `_`, so that it reads the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FederationName(String);

/// A text that is no federation's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a federation's name is 1 to 64 letters, digits, `.`, `-` and `_`")]
pub struct NotAName;

impl FederationName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FederationName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        match (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotAName),
        }
    }
}

through_text!(FederationName: NotAName);

impl fmt::Display for FederationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
