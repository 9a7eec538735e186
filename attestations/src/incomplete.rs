//! The predicate of a rebuild that came to nothing: "I tried to repeat this build and could not". Documented in
//! `docs/predicates/incomplete-v1.md`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{Commit, Digest};

/// The URI that names it.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/incomplete/v1";
/// What every version of it begins with.
pub(crate) const PREDICATE_TYPES: &str = "https://countersign.dev/incomplete/";

/// Why a rebuild of the image that is the statement's one subject came to nothing. It is neither a yes nor a no, and a builder
/// whose word is waited for has not given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Incomplete {
    /// The URI of the builder.
    pub builder: String,
    /// The commit that was to be built.
    pub commit: Commit,
    /// The digest of the bundle that holds the provenance that was to be repeated.
    pub provenance: Digest,
    /// What went wrong, in a line.
    pub reason: String,
    /// When.
    pub attempted_on: Timestamp,
}
