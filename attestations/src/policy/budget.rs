//! What one run may use up, in all.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Sums over one run. What is not given is bounded by the node's configuration alone; the smaller of the two holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Requests that may pass to the node's server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Bytes towards the server: bodies, targets, and the values of the headers that are passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Bytes of bodies from the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Kibibytes of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_kib: Option<u64>,
    /// Seconds from start to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<NonZeroU64>,
}

impl Budget {
    /// The smaller of each.
    pub(crate) fn and(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Self {
            requests: least(self.requests, other.requests),
            bytes_out: least(self.bytes_out, other.bytes_out),
            bytes_in: least(self.bytes_in, other.bytes_in),
            result_kib: least(self.result_kib, other.result_kib),
            wall_seconds: least(self.wall_seconds, other.wall_seconds),
        }
    }
}
