//! Certificate authorities of one's own: PEM files whose certificates are trusted beside the system's.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::files;

/// The most bytes of a file of certificates.
const MAX_FILE: u64 = 1 << 20;
/// The most certificates that are added to the system's.
pub const MAX_CERTIFICATES: usize = 256;

/// Why certificates cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// The machine's own word.
        #[source]
        cause: io::Error,
    },
    /// The file is larger than any of certificates.
    #[error("{} is larger than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// Its path.
        path: PathBuf,
    },
    /// What the file holds is no certificates.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// All files together hold too many.
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// Reads PEM files, for [`Registries::roots`](super::Registries::roots) and for whatever else their authorities vouch
/// for. The certificates come as DER, in the order of the files.
///
/// # Errors
/// When a file cannot be read, holds no certificate or something that is none, or all hold more than
/// [`MAX_CERTIFICATES`].
pub fn read_certificates(paths: &[impl AsRef<Path>]) -> Result<Vec<Vec<u8>>, CertificateError> {
    let mut all = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let bytes = match files::read(path, MAX_FILE) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(CertificateError::TooLarge { path: path.to_owned() }),
            Err(cause) => return Err(CertificateError::Read { path: path.to_owned(), cause }),
        };
        let found = certificates(&bytes);
        all.extend(found.map_err(|reason| CertificateError::Malformed { path: path.to_owned(), reason })?);
        if all.len() > MAX_CERTIFICATES {
            return Err(CertificateError::TooMany);
        }
    }
    Ok(all)
}

/// The certificates in PEM text as DER, each of which can be a root; at least one.
///
/// # Errors
/// With what is wrong, for people.
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
