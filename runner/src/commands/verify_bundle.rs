//! `countersign-runner verify-bundle`: whether somebody signed a file, by a Sigstore bundle of whoever's making.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use attestations::sigstore::{self, Artifact, Expected, Instance, SigstoreError, TrustedRoot};
use attestations::{Digest, PublicKey};
use clap::Args;
use errors::{Form, files};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::output::{GREEN, YES, verdict};
use crate::error::{Error, Kind, Result};

/// The most bytes of a bundle, a key and a trusted root.
const MAX_FILE: u64 = 16 << 20;
/// The most bytes of a file that are kept; of a larger one only the digest is known, which most signatures need alone.
const MAX_KEPT: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct VerifyBundleCommand {
    /// Sigstore bundle of version 0.1 to 0.3.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    #[command(flatten)]
    signer: SignerArguments,
    /// OIDC provider that knew the signer.
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    certificate_oidc_issuer: Option<String>,
    /// Trusted root of a Sigstore instance (trusted_root.json); by default that of the public good instance, as shipped.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Trust Sigstore's staging instance, as shipped, instead of the public good one.
    #[arg(long, conflicts_with = "trusted_root")]
    staging: bool,
    /// The signed file, or its digest, sha256:…; of a statement, one of its subjects.
    #[arg(value_name = "FILE_OR_DIGEST")]
    artifact: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SignerArguments {
    /// Public key of the signer: PEM or an OpenSSH line; Ed25519 or P-256.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Who signed, by their certificate: an e-mail address or URI, compared as a whole.
    #[arg(long, value_name = "ID", requires = "certificate_oidc_issuer")]
    certificate_identity: Option<String>,
}

/// Verifies it.
///
/// # Errors
/// Of kind key, with the reason, when the bundle does not prove it.
pub(super) fn run(arguments: &VerifyBundleCommand, form: Form) -> Result<u8> {
    let root = arguments.root()?;
    let bundle = files::read(&arguments.bundle, MAX_FILE)?;
    let (digest, bytes) = artifact(&arguments.artifact)?;
    let artifact = Artifact { digest, bytes: bytes.as_deref() };
    let key = arguments.signer.key.as_deref().map(read_key).transpose()?;
    let expected = match (&key, &arguments.signer.certificate_identity, &arguments.certificate_oidc_issuer) {
        (Some(key), ..) => Expected::Key(key),
        (None, Some(identity), Some(issuer)) => Expected::Certificate { identity, issuer },
        _ => return Err(Error::new(Kind::Usage, "neither --key nor --certificate-identity is given")),
    };
    let proven = sigstore::verify(&bundle, &artifact, &expected, &root, Timestamp::now());
    let proven = proven.map_err(|cause| refused(&arguments.bundle, cause))?;
    let times: Vec<String> = proven.times.iter().map(ToString::to_string).collect();
    let when = match times.as_slice() {
        [] => String::new(),
        some => format!(", signed by {}", some.join(" and ")),
    };
    let value = json!({ "verdict": "verified", "digest": digest, "times": times });
    verdict(form, "verified", GREEN, &format!(": {digest}{when}"), &value)?;
    Ok(YES)
}

impl VerifyBundleCommand {
    fn root(&self) -> Result<TrustedRoot> {
        let Some(path) = &self.trusted_root else {
            let instance = if self.staging { Instance::Staging } else { Instance::PublicGood };
            return TrustedRoot::shipped(instance).map_err(|cause| {
                Error::new(Kind::Bug, "the shipped trusted root is unusable").because(cause)
            });
        };
        let root = TrustedRoot::parse(&files::read(path, MAX_FILE)?);
        root.map_err(|cause| {
            Error::new(Kind::Input, format!("{} cannot be trusted by", path.display()))
                .hint("it has to be the trusted_root.json of a Sigstore instance")
                .because(cause)
        })
    }
}

fn read_key(path: &Path) -> Result<PublicKey> {
    let text = files::read_text(path, MAX_FILE)?;
    PublicKey::parse(&text)
        .map_err(|cause| Error::new(Kind::Key, format!("reading the key {}", path.display())).because(cause))
}

fn refused(bundle: &Path, cause: SigstoreError) -> Error {
    let (kind, hint) = match &cause {
        SigstoreError::Bundle(_) | SigstoreError::TooLarge { .. } | SigstoreError::TooMany { .. } => {
            (Kind::Input, "ask whoever signed it for a Sigstore bundle of version 0.1 to 0.3")
        }
        SigstoreError::NeedsFile => (Kind::Usage, "name the file instead of its digest"),
        SigstoreError::OtherIdentity { .. } | SigstoreError::OtherIssuer { .. } => (
            Kind::Key,
            "if that is who should sign, name it with --certificate-identity and --certificate-oidc-issuer",
        ),
        SigstoreError::Root(_) => {
            (Kind::Input, "name the trusted root of the instance that it was signed with")
        }
        _ => (Kind::Key, "do not use what it is about; ask whoever signed it"),
    };
    Error::new(kind, format!("{} does not verify", bundle.display())).hint(hint).because(cause)
}

/// The digest that the text is, unless there is such a file; or that file's digest, and its bytes if they are few.
fn artifact(text: &str) -> Result<(Digest, Option<Vec<u8>>)> {
    let path = Path::new(text);
    if !path.exists()
        && let Ok(digest) = text.parse()
    {
        return Ok((digest, None));
    }
    let broken = |cause| Error::io("reading", path, cause);
    let mut file = File::open(path).map_err(broken)?;
    let mut hash = Sha256::new();
    let mut kept = Vec::new();
    let mut block = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let length = file.read(&mut block).map_err(broken)?;
        let read = block.get(..length).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        hash.update(read);
        size += length as u64;
        match size <= MAX_KEPT {
            true => kept.extend_from_slice(read),
            false => kept = Vec::new(),
        }
    }
    Ok((Digest::from_bytes(hash.finalize().into()), (size <= MAX_KEPT).then_some(kept)))
}
