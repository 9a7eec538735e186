//! Bundles by a key that somebody holds.

use jiff::Timestamp;
use sigstore_types::Bundle;
use sigstore_types::bundle::{SignatureContent, VerificationMaterialContent};
use sigstore_types::dsse::pae;
use sigstore_types::encoding::DerPublicKey;
use sigstore_types::{HashAlgorithm, MessageSignature};
use sigstore_verify::PublicKeyVerificationPolicy;

use super::{Artifact, SigstoreError, TrustedRoot};
use crate::keys::{Algorithm, PublicKey};
use crate::statement::{PAYLOAD_TYPE, Statement};

/// Verifies it, and returns the times that logs and timestamps prove.
pub(super) fn verify(
    bundle: &Bundle,
    artifact: &Artifact<'_>,
    key: &PublicKey,
    root: &TrustedRoot,
) -> Result<Vec<Timestamp>, SigstoreError> {
    let material = &bundle.verification_material;
    if !matches!(material.content, VerificationMaterialContent::PublicKey(_)) {
        return Err(SigstoreError::NotByKey);
    }
    // The key alone vouches: this holds whatever else the bundle has.
    signature(bundle, artifact, key)?;
    let timestamps = &material.timestamp_verification_data.rfc3161_timestamps;
    if material.tlog_entries.is_empty() && timestamps.is_empty() {
        return Ok(Vec::new());
    }
    let key = DerPublicKey::new(key.spki_der().to_vec());
    let policy = match material.tlog_entries.is_empty() {
        true => PublicKeyVerificationPolicy::new(key).skip_tlog_unsafe(),
        false => PublicKeyVerificationPolicy::new(key),
    };
    let found = root.verifier().verify(artifact.wanted(), bundle, &policy)?;
    Ok(found.verified_timestamps().to_vec())
}

fn signature(bundle: &Bundle, artifact: &Artifact<'_>, key: &PublicKey) -> Result<(), SigstoreError> {
    match &bundle.content {
        SignatureContent::DsseEnvelope(envelope) => {
            let payload = envelope.payload.as_bytes();
            let message = pae(&envelope.payload_type, payload);
            key.verify(&message, envelope.signature.sig.as_bytes()).map_err(|_| SigstoreError::OtherKey)?;
            if envelope.payload_type != PAYLOAD_TYPE {
                return Err(SigstoreError::NoStatement);
            }
            let statement = Statement::from_bytes(payload)?;
            let is_about = statement.subject.iter().any(|it| it.sha256() == Some(artifact.digest));
            is_about.then_some(()).ok_or(SigstoreError::OtherArtifact)
        }
        SignatureContent::MessageSignature(signed) => over_file(signed, artifact, key),
        _ => Err(SigstoreError::NoStatement),
    }
}

fn over_file(
    signed: &MessageSignature,
    artifact: &Artifact<'_>,
    key: &PublicKey,
) -> Result<(), SigstoreError> {
    // What the bundle says of the digest is a hint, which must not contradict the file.
    if let Some(named) = &signed.message_digest
        && (named.algorithm != HashAlgorithm::Sha2256
            || named.digest.as_bytes() != artifact.digest.as_bytes())
    {
        return Err(SigstoreError::OtherArtifact);
    }
    let signature = signed.signature.as_bytes();
    let verified = match (key.algorithm(), artifact.bytes) {
        (_, Some(bytes)) => key.verify(bytes, signature),
        (Algorithm::EcdsaP256, None) => key.verify_digest(&artifact.digest, signature),
        (Algorithm::Ed25519, None) => return Err(SigstoreError::NeedsFile),
    };
    verified.map_err(|_| SigstoreError::OtherKey)
}
