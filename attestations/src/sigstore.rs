//! Sigstore bundles as anybody makes them: signed by a key that somebody holds, or by a key that lived for minutes and whose
//! certificate says who had it, with the log entries and timestamps that prove when. Over a statement or over a file.
//!
//! The cryptography of certificates, logs and timestamps is that of the `sigstore-verify` crate, which is imported here and
//! nowhere else. What it leaves open is checked here as well: authorities of the trusted root that had expired, certificates
//! with several names, entries of a log without any proof, times after now, and how much there is of everything.

mod authorities;
mod error;
mod managed;
mod root;

use jiff::Timestamp;
use sigstore_types::Bundle;
use sigstore_types::bundle::{TransparencyLogEntry, VerificationMaterialContent};
use sigstore_verify::types::{Artifact as Wanted, Sha256Hash};
use sigstore_verify::{SubjectAltName, VerificationPolicy, VerificationResult, Verifier};

use crate::bundle::MAX_BUNDLE;
use crate::digest::Digest;
use crate::foreign::Foreign;
use crate::keys::PublicKey;

pub use error::SigstoreError;
pub use root::{Instance, TrustedRoot};

/// The most log entries, timestamps and certificates of one bundle.
const MAX_MATERIAL: usize = 16;

/// What a bundle is held against: the digest of a file, and its bytes where they are at hand. Some signatures (Ed25519 over a
/// file) are checked over the bytes alone.
#[derive(Debug, Clone, Copy)]
pub struct Artifact<'a> {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Option<&'a [u8]>,
}

impl Artifact<'_> {
    fn wanted(&self) -> Wanted<'_> {
        match self.bytes {
            Some(bytes) => Wanted::Blob(bytes),
            None => Sha256Hash::new(*self.digest.as_bytes()).into(),
        }
    }
}

/// Who has to have signed.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// The holder of this key.
    Key(&'a PublicKey),
    /// Whoever the issuer, an OIDC provider, knows by this name: exactly so, not by a part of it.
    Certificate {
        /// An e-mail address or a URI.
        identity: &'a str,
        /// The provider's URL.
        issuer: &'a str,
    },
}

/// What a bundle was found to prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// When it was signed at the latest, each by the word of a log or of a timestamp authority. None for a key that somebody
    /// holds and whose bundle says nothing of it.
    pub times: Vec<Timestamp>,
}

/// Verifies that the expected signer signed this artifact, by what `root` trusts, for the moment `now`.
///
/// A held key's signature needs neither log nor timestamp; where the bundle has some, they must be right.
///
/// # Errors
/// With the reason, when it does not verify.
pub fn verify(
    bundle: &[u8],
    artifact: &Artifact<'_>,
    expected: &Expected<'_>,
    root: &TrustedRoot,
    now: Timestamp,
) -> Result<Proven, SigstoreError> {
    let bundle = parse(bundle)?;
    let times = match expected {
        Expected::Key(key) => managed::verify(&bundle, artifact, key, root)?,
        Expected::Certificate { identity, issuer } => {
            let found = certified(&bundle, artifact, root)?;
            is_identity(&found, identity, issuer)?;
            found.verified_timestamps().to_vec()
        }
    };
    match times.iter().find(|time| **time > now) {
        Some(time) => Err(SigstoreError::Future { time: *time }),
        None => Ok(Proven { times }),
    }
}

fn parse(bytes: &[u8]) -> Result<Bundle, SigstoreError> {
    if bytes.len() > MAX_BUNDLE {
        return Err(SigstoreError::TooLarge { what: "the bundle", limit: MAX_BUNDLE });
    }
    let bundle: Bundle =
        serde_json::from_slice(bytes).map_err(|error| SigstoreError::Bundle(Foreign::error(&error)))?;
    let material = &bundle.verification_material;
    let certificates = match &material.content {
        VerificationMaterialContent::X509CertificateChain { certificates } => certificates.len(),
        _ => 1,
    };
    let timestamps = material.timestamp_verification_data.rfc3161_timestamps.len();
    for (what, count) in [
        ("certificates", certificates),
        ("log entries", material.tlog_entries.len()),
        ("timestamps", timestamps),
    ] {
        if count > MAX_MATERIAL {
            return Err(SigstoreError::TooMany { what, count, limit: MAX_MATERIAL });
        }
    }
    if let Some(entry) = material.tlog_entries.iter().position(is_unproven) {
        return Err(SigstoreError::Unproven { entry });
    }
    Ok(bundle)
}

/// An entry that carries neither proof nor promise is a claim of whoever made the bundle.
fn is_unproven(entry: &TransparencyLogEntry) -> bool {
    entry.inclusion_proof.is_none() && entry.inclusion_promise.is_none()
}

/// Verifies a bundle with a certificate: chain, certificate transparency, log, timestamps, signature and artifact.
fn certified(
    bundle: &Bundle,
    artifact: &Artifact<'_>,
    root: &TrustedRoot,
) -> Result<VerificationResult, SigstoreError> {
    let certificate = bundle.signing_certificate().ok_or(SigstoreError::NoCertificate)?;
    authorities::has_one_name(certificate)?;
    let policy = match root.names_certificate_logs() {
        true => VerificationPolicy::any_identity(),
        false => VerificationPolicy::any_identity().skip_sct(),
    };
    let found = root.verifier().verify(artifact.wanted(), bundle, &policy)?;
    // The certificates of a trusted root are anchors, whose own end the crate does not look at.
    let Some(current) = authorities::valid_at(root.content(), found.verified_timestamps())? else {
        return Ok(found);
    };
    let verifier = Verifier::new(&current).map_err(|_| SigstoreError::ExpiredAuthority)?;
    verifier.verify(artifact.wanted(), bundle, &policy).map_err(|_| SigstoreError::ExpiredAuthority)
}

fn is_identity(found: &VerificationResult, identity: &str, issuer: &str) -> Result<(), SigstoreError> {
    let known_by = found.issuer().unwrap_or_default();
    if known_by != issuer || issuer.is_empty() {
        return Err(SigstoreError::OtherIssuer { wanted: issuer.to_owned(), found: Foreign::new(known_by) });
    }
    let name = found.identity().map(SubjectAltName::as_str).unwrap_or_default();
    if name != identity || identity.is_empty() {
        return Err(SigstoreError::OtherIdentity { wanted: identity.to_owned(), found: Foreign::new(name) });
    }
    Ok(())
}
