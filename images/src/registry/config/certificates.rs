//! Additional certificate authorities: PEM files with certificates that are trusted in addition to the system's.

use std::path::{Path, PathBuf};

use errors::trusted;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The most bytes of a file of certificates.
const MAX_FILE: u64 = 1 << 20;
/// The most additional certificates.
pub const MAX_CERTIFICATES: usize = 256;

/// Why certificates cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read, is too large, or other users may change it.
    #[error(transparent)]
    Read(#[from] errors::Error),
    /// The file has something other than certificates.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// Its path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// All files together have too many.
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// Reads PEM files, for [`Registries::roots`](super::Registries::roots) and other TLS connections. Returns the
/// certificates as DER, in the order of the files.
///
/// # Errors
/// When a file cannot be read, other users may change it, it has no certificate or an invalid one, or all files
/// together have more than [`MAX_CERTIFICATES`].
pub fn read_certificates(paths: &[impl AsRef<Path>]) -> Result<Vec<Vec<u8>>, CertificateError> {
    let mut all = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let found = certificates(&trusted::read(path, MAX_FILE)?);
        all.extend(found.map_err(|reason| CertificateError::Malformed { path: path.to_owned(), reason })?);
        if all.len() > MAX_CERTIFICATES {
            return Err(CertificateError::TooMany);
        }
    }
    Ok(all)
}

/// The certificates of PEM text as DER, each valid as a root; at least one.
///
/// # Errors
/// With the reason, for people.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|cause| format!("it cannot be read as PEM: {cause:?}"))?;
    if found.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let mut store = RootCertStore::empty();
    for root in &found {
        store.add(root.clone()).map_err(|cause| format!("a certificate in it is none: {cause}"))?;
    }
    Ok(found.iter().map(|root| root.to_vec()).collect())
}
