//! What was found where evidence is, and is no bundle that can be read.

use super::{Ignored, Reason, Unmet};
use crate::foreign::Foreign;

/// What was noticed while evidence about one image was gathered, besides bundles.
#[derive(Debug, Clone, Default)]
pub struct Noticed {
    /// Evidence that is listed and not there any more. It may have been a no, so it denies.
    pub gone: Vec<GoneEvidence>,
    /// What looks like evidence and is not read, and why.
    pub unused: Vec<UnusedEvidence>,
}

/// An entry in a list of evidence of which the registry does not have the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneEvidence {
    /// Where it should be.
    pub origin: String,
    /// The media type that the list gives it.
    pub kind: String,
}

/// What looks like evidence and is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedEvidence {
    /// Where it is.
    pub origin: String,
    /// Why it is not read.
    pub why: String,
}

impl Noticed {
    /// Adds what was noticed elsewhere.
    pub fn extend(&mut self, other: Self) {
        self.gone.extend(other.gone);
        self.unused.extend(other.unused);
    }

    pub(super) fn unmet(&self) -> impl Iterator<Item = Unmet> {
        self.gone.iter().map(|one| Unmet::EvidenceGone {
            origin: Foreign::new(&one.origin),
            kind: Foreign::new(&one.kind),
        })
    }

    pub(super) fn ignored(&self) -> impl Iterator<Item = Ignored> {
        self.unused.iter().map(|one| Ignored::new(&one.origin, Reason::NotRead(Foreign::new(&one.why))))
    }
}
