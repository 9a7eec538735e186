//! What leaves the builder: images pushed with what is said about them, and images written to files.

pub(crate) mod export;
pub(crate) mod push;

use attestations::SignedBundle;

use crate::pipeline::BuildOutcome;
use recorder::KeptResponses;

/// A build for one platform, and what was made of it.
pub(crate) struct BuiltImage {
    pub(crate) outcome: BuildOutcome,
    /// How it differs from its commit's lock.
    pub(crate) drift: Vec<String>,
    /// What was kept of its network.
    pub(crate) materials: Option<KeptResponses>,
    /// Its provenance, if it is signed.
    pub(crate) bundle: Option<SignedBundle>,
}
