//! Publishing: pushes images with their evidence to registries, and writes images to files.

pub(crate) mod export;
pub(crate) mod push;

use attestations::SignedBundle;

use crate::pipeline::BuildOutcome;
use recorder::KeptResponses;

/// A build for one platform, with its evidence.
pub(crate) struct BuiltImage {
    pub(crate) outcome: BuildOutcome,
    /// The inputs that differ from the commit's lock.
    pub(crate) drift: Vec<String>,
    /// Its recorded responses, if they were stored.
    pub(crate) materials: Option<KeptResponses>,
    /// Its provenance, if it is signed.
    pub(crate) bundle: Option<SignedBundle>,
}
