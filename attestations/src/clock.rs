//! Clocks of other machines.

use jiff::{SignedDuration, Timestamp};

/// How far another machine's clock may be ahead.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Whether `time` is later than `now`, by more than clocks differ.
pub(crate) fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > SKEW
}
