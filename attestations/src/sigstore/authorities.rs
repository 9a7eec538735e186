//! What certificates themselves say: how many names, and until when an authority's own were valid.

use jiff::Timestamp;
use sigstore_types::encoding::DerCertificate;
use sigstore_verify::trust_root::TrustedRoot;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;

use super::SigstoreError;
use crate::foreign::Foreign;

/// A certificate is somebody's: one with several names would let its holder choose which is looked at.
pub(super) fn has_one_name(certificate: &DerCertificate) -> Result<(), SigstoreError> {
    let certificate = read(certificate)?;
    let names = certificate.tbs_certificate.get::<SubjectAltName>().map_err(malformed)?;
    match names.map_or(0, |(_, names)| names.0.len()) {
        1 => Ok(()),
        count => Err(SigstoreError::Names { count }),
    }
}

/// The root without those certificate authorities of which some certificate was not valid at one of the times; nothing where
/// that is no other root.
pub(super) fn valid_at(
    root: &TrustedRoot,
    times: &[Timestamp],
) -> Result<Option<TrustedRoot>, SigstoreError> {
    let mut current = root.clone();
    let mut kept = Vec::new();
    for authority in current.certificate_authorities.drain(..) {
        let mut is_valid = true;
        for one in &authority.cert_chain.certificates {
            is_valid &= covers(&one.raw_bytes, times)?;
        }
        if is_valid {
            kept.push(authority);
        }
    }
    current.certificate_authorities = kept;
    let is_other = current.certificate_authorities.len() != root.certificate_authorities.len();
    Ok(is_other.then_some(current))
}

fn covers(certificate: &DerCertificate, times: &[Timestamp]) -> Result<bool, SigstoreError> {
    let validity = read(certificate)?.tbs_certificate.validity;
    let from = Timestamp::try_from(validity.not_before.to_system_time()).map_err(malformed)?;
    let until = Timestamp::try_from(validity.not_after.to_system_time()).map_err(malformed)?;
    Ok(times.iter().all(|time| (from..=until).contains(time)))
}

fn read(certificate: &DerCertificate) -> Result<Certificate, SigstoreError> {
    Certificate::from_der(certificate.as_bytes()).map_err(malformed)
}

fn malformed(error: impl std::error::Error) -> SigstoreError {
    SigstoreError::Certificate(Foreign::error(&error))
}
