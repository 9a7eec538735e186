//! Whom certificates, logs and timestamps are believed from: a `trusted_root.json`.

use sigstore_verify::Verifier;
use sigstore_verify::trust_root::{self, SIGSTORE_PRODUCTION_TRUSTED_ROOT, SIGSTORE_STAGING_TRUSTED_ROOT};

use super::SigstoreError;
use crate::foreign::Foreign;

/// The most bytes of a trusted root; that of the public good instance has 7 KiB.
const MAX_ROOT: usize = 1 << 20;

/// A public instance of Sigstore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// The one that people and public CI sign with.
    PublicGood,
    /// The one in which it is tried out.
    Staging,
}

impl Instance {
    /// From when its root is that is shipped here.
    pub const AS_OF: &str = "2026-10-23";

    /// Its root as it is shipped here.
    pub fn text(self) -> &'static str {
        match self {
            Self::PublicGood => SIGSTORE_PRODUCTION_TRUSTED_ROOT,
            Self::Staging => SIGSTORE_STAGING_TRUSTED_ROOT,
        }
    }
}

/// Authorities, logs and timestamp authorities that are believed, each for its time.
pub struct TrustedRoot {
    content: trust_root::TrustedRoot,
    verifier: Verifier,
}

impl TrustedRoot {
    /// Reads a `trusted_root.json`.
    ///
    /// # Errors
    /// When it is too large, not of that form, or names a key or certificate that cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, SigstoreError> {
        if bytes.len() > MAX_ROOT {
            return Err(SigstoreError::TooLarge { what: "the trusted root", limit: MAX_ROOT });
        }
        let unusable = |cause: &dyn std::error::Error| SigstoreError::Root(Foreign::error(cause));
        let text = std::str::from_utf8(bytes).map_err(|error| unusable(&error))?;
        let content = trust_root::TrustedRoot::from_json(text).map_err(|error| unusable(&error))?;
        let verifier = Verifier::new(&content).map_err(|error| unusable(&error))?;
        Ok(Self { content, verifier })
    }

    /// The root of a public instance, as of [`Instance::AS_OF`].
    ///
    /// # Errors
    /// Never: the tests read both.
    pub fn shipped(instance: Instance) -> Result<Self, SigstoreError> {
        Self::parse(instance.text().as_bytes())
    }

    pub(super) fn content(&self) -> &trust_root::TrustedRoot {
        &self.content
    }

    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Whether its certificates are written down in public logs. Where it names none, as private deployments do, none are asked
    /// for.
    pub(super) fn names_certificate_logs(&self) -> bool {
        !self.content.ctlogs.is_empty()
    }
}
