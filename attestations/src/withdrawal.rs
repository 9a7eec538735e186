//! The withdrawal predicate: "I take back what I signed". Documented in `docs/predicates/withdrawal-v1.md`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The URI that names a withdrawal.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/withdrawal/v1";
/// What every version of it begins with.
pub(crate) const PREDICATE_TYPES: &str = "https://countersign.dev/withdrawal/";

/// Takes back one statement, which is this statement's one subject: by the SHA-256 digest of its bytes, which are the
/// payload of its envelope. It counts only with the key that signed the other one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Withdrawal {
    /// Why.
    pub reason: String,
    /// When.
    pub withdrawn_on: Timestamp,
}
