//! Why a bundle proves nothing.

use jiff::Timestamp;
use sigstore_verify::Error;

use crate::foreign::Foreign;
use crate::statement::StatementError;

/// Why a bundle proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigstoreError {
    /// More bytes than are read.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The most.
        limit: usize,
    },
    /// More of something than is looked at.
    #[error("the bundle has {count} {what}: {limit} are the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// Not a bundle of version 0.1 to 0.3, or one that lacks what its version has to have.
    #[error("not a well-formed Sigstore bundle: {0}")]
    Bundle(Foreign),
    /// Not a trusted root.
    #[error("not a usable trusted root: {0}")]
    Root(Foreign),
    /// A key was expected, and the bundle has a certificate.
    #[error("the bundle is signed by the key of a certificate, and a key was named")]
    NotByKey,
    /// An identity was expected, and the bundle has no certificate.
    #[error("the bundle has no certificate, so it says nothing of an identity; name the key that signed it")]
    NoCertificate,
    /// Another key's.
    #[error("the key did not sign this")]
    OtherKey,
    /// The signature does not fit.
    #[error("the signature is not over this: {0}")]
    Signature(Foreign),
    /// Ed25519 over a file of which only the digest is known.
    #[error("this signature can only be checked over the file itself, not over its digest")]
    NeedsFile,
    /// About something else.
    #[error("it is about another file or image")]
    OtherArtifact,
    /// The envelope holds something else than a statement.
    #[error("the envelope holds no in-toto statement")]
    NoStatement,
    /// The statement is malformed.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A certificate that is malformed, of no trusted authority, or not valid when it was used.
    #[error("the certificate does not count: {0}")]
    Certificate(Foreign),
    /// A certificate of nobody, or of several.
    #[error("the certificate has {count} names, and one is what it must have")]
    Names {
        /// How many.
        count: usize,
    },
    /// The certificate was issued by an authority whose own certificate was not valid then.
    #[error("a certificate of its authority had expired, or was not yet valid, when it was signed")]
    ExpiredAuthority,
    /// Somebody else's.
    #[error("it was signed by {found}, not by {wanted}")]
    OtherIdentity {
        /// Who was expected.
        wanted: String,
        /// Who it was.
        found: Foreign,
    },
    /// Known to somebody else.
    #[error("its signer is known to {found}, not to {wanted}")]
    OtherIssuer {
        /// By whom it was expected to be known.
        wanted: String,
        /// Who knows it.
        found: Foreign,
    },
    /// A log entry without a proof.
    #[error("log entry {entry} has neither a proof nor a promise")]
    Unproven {
        /// Which, from 0.
        entry: usize,
    },
    /// A log entry that is not in a trusted log, or is about another signature.
    #[error("the log does not vouch for it: {0}")]
    Log(Foreign),
    /// No time, or one that nobody trusted vouches for.
    #[error("nobody vouches for when it was signed: {0}")]
    Time(Foreign),
    /// A time that is still to come.
    #[error("it was signed in the future, at {time}")]
    Future {
        /// When.
        time: Timestamp,
    },
}

impl From<Error> for SigstoreError {
    fn from(error: Error) -> Self {
        let text = Foreign::error(&error);
        match error {
            Error::SignatureInvalid(_) | Error::Crypto(_) => Self::Signature(text),
            Error::ArtifactMismatch(_) => Self::OtherArtifact,
            Error::UnsupportedArtifact(_) => Self::NeedsFile,
            Error::Certificate(_) => Self::Certificate(text),
            Error::TransparencyLog(_) => Self::Log(text),
            Error::Timestamp(_) => Self::Time(text),
            Error::InvalidTrustRoot(_) | Error::TrustRoot(_) | Error::TrustedCertificate(_) => {
                Self::Root(text)
            }
            _ => Self::Bundle(text),
        }
    }
}
