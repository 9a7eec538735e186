//! Signed statements: a DSSE envelope with one signature, inside a Sigstore bundle.
//!
//! [`Bundle::parse`] checks the form alone. Only [`Bundle::verify`] gives out a payload that somebody vouches for: it
//! checks the signature over the payload's bytes as they came; [`Verified::statement`] parses those very bytes, once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde_json::Value;
use sigstore_types::bundle::{
    MediaType, PublicKeyIdentifier, SignatureContent, VerificationMaterial, VerificationMaterialContent,
};
use sigstore_types::dsse::{DsseEnvelope, DsseSignature, pae};
use sigstore_types::encoding::{KeyId as Hint, PayloadBytes, SignatureBytes};

use crate::digest::Digest;
use crate::foreign::Foreign;
use crate::keys::{KeyError, PublicKey, SignError, Signer};
use crate::provenance::Provenance;
use crate::review::Review;
use crate::statement::{self, PAYLOAD_TYPE, Statement, StatementError};

/// The media type of the bundles made here: Sigstore bundle v0.3.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The most bytes a bundle may have: provenance of 10,000 network exchanges takes about 3 MiB.
pub const MAX_BUNDLE: usize = 16 << 20;
/// The most signatures that are tried in a bundle of another form.
const MAX_SIGNATURES: usize = 16;

/// A bundle that is well formed. Nothing in it has been verified.
#[derive(Debug, Clone)]
pub struct Bundle {
    bytes: Vec<u8>,
    envelope: DsseEnvelope,
    hint: String,
}

impl Bundle {
    /// Parses a bundle of version 0.1 to 0.3 that holds an envelope with exactly one signature over an in-toto statement.
    ///
    /// # Errors
    /// When it is larger than [`MAX_BUNDLE`] or of another form.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BUNDLE {
            return Err(BundleError::TooLarge { size: bytes.len() });
        }
        let bundle: sigstore_types::Bundle = serde_json::from_slice(bytes)?;
        let SignatureContent::DsseEnvelope(envelope) = bundle.content else {
            return Err(BundleError::NoEnvelope);
        };
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(BundleError::PayloadType(Foreign::new(&envelope.payload_type)));
        }
        let hint = hint(&bundle.verification_material.content, &envelope);
        Ok(Self { bytes: bytes.to_vec(), envelope, hint })
    }

    /// Parses evidence: a bundle, or an envelope without one, as cosign 2 attached it and `witness` writes it. Only a bundle may
    /// be attached to an image as one.
    ///
    /// # Errors
    /// When it is neither; the reason is that of a bundle.
    pub(crate) fn parse_evidence(bytes: &[u8]) -> Result<Self, BundleError> {
        let error = match Self::parse(bytes) {
            Ok(bundle) => return Ok(bundle),
            Err(error) => error,
        };
        match serde_json::from_slice::<DsseEnvelope>(bytes) {
            Ok(envelope) if bytes.len() <= MAX_BUNDLE && envelope.payload_type == PAYLOAD_TYPE => {
                let hint = envelope.signature.keyid.as_str().to_owned();
                Ok(Self { bytes: bytes.to_vec(), envelope, hint })
            }
            _ => Err(error),
        }
    }

    /// The bundle as it came.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest of the bundle as it came.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The digest of the signed bytes, which names the statement whatever bundle it is in.
    pub fn statement_digest(&self) -> Digest {
        Digest::of(self.envelope.payload.as_bytes())
    }

    /// Which key is said to have signed it. Never proof.
    pub fn hint(&self) -> Option<&str> {
        Some(self.hint.as_str()).filter(|hint| !hint.is_empty())
    }

    /// The payload, if `key` signed it.
    ///
    /// # Errors
    /// When it did not.
    pub fn verify(&self, key: &PublicKey) -> Result<Verified<Payload<'_>>, BundleError> {
        let payload = self.envelope.payload.as_bytes();
        key.verify(&pae(&self.envelope.payload_type, payload), self.envelope.signature.sig.as_bytes())?;
        Ok(Verified { value: Payload(payload), signer: key.clone() })
    }

    /// Whether it may hold a statement of a kind known here, in whatever version.
    pub(crate) fn may_be_ours(&self) -> bool {
        statement::may_be_ours(&self.envelope.payload_type, self.envelope.payload.as_bytes())
    }

    /// The statement inside, which nobody has vouched for: for showing and for choosing a key, never for deciding.
    ///
    /// # Errors
    /// When the payload is no statement.
    pub fn statement_unverified(&self) -> Result<Unverified<Statement>, BundleError> {
        Ok(Unverified(Statement::from_bytes(self.envelope.payload.as_bytes())?))
    }
}

/// Where a bundle says whose key it is: beside the envelope, or inside it, as bundles were written here before.
fn hint(material: &VerificationMaterialContent, envelope: &DsseEnvelope) -> String {
    match material {
        VerificationMaterialContent::PublicKey(key) if !key.hint.is_empty() => key.hint.clone(),
        _ => envelope.signature.keyid.as_str().to_owned(),
    }
}

/// The values in a file of bundles, one after the other: a single bundle, lines of JSON, or any white space between them.
/// What follows the last whole value is a part of its own, so that it is told and not passed over.
pub fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    let mut parts = Vec::new();
    let mut start = 0;
    while let Some(Ok(_)) = values.next() {
        let end = values.byte_offset();
        parts.extend(bytes.get(start..end).map(<[u8]>::trim_ascii));
        start = end;
    }
    let rest = bytes.get(start..).unwrap_or_default().trim_ascii();
    if !rest.is_empty() || parts.is_empty() {
        parts.push(rest);
    }
    parts
}

/// A bundle of which is known what kind of statement it holds, as a registry wants to know where it is attached.
#[derive(Debug, Clone)]
pub struct SignedBundle {
    bundle: Bundle,
    predicate_type: String,
}

impl SignedBundle {
    /// Reads the kind of statement from a bundle that somebody handed in. Nobody vouches for it: it is a label.
    ///
    /// # Errors
    /// When the payload is no statement.
    pub fn read_unverified(bundle: Bundle) -> Result<Self, BundleError> {
        let predicate_type = bundle.statement_unverified()?.value().predicate.predicate_type().to_owned();
        Ok(Self { bundle, predicate_type })
    }

    /// The URI that names the kind of statement inside.
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }
}

impl std::ops::Deref for SignedBundle {
    type Target = Bundle;

    fn deref(&self) -> &Bundle {
        &self.bundle
    }
}

/// Signs `statement` as a bundle of version 0.3 with exactly one signature. The hint beside the envelope names the key; the
/// envelope's own `keyid` is left out, since verifiers compare it with ids of their own making and pass over what differs.
///
/// # Errors
/// When the signer refuses.
pub fn sign(statement: &Statement, signer: &dyn Signer) -> Result<SignedBundle, BundleError> {
    let payload = statement.to_bytes()?;
    let signature = signer.sign(&pae(PAYLOAD_TYPE, &payload))?;
    let id = signer.public_key().id().to_string();
    let signature = DsseSignature::new(SignatureBytes::new(signature), Hint::default());
    let envelope = DsseEnvelope::new(PAYLOAD_TYPE, PayloadBytes::new(payload), signature);
    let hint = VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new(id.clone()));
    let content = SignatureContent::DsseEnvelope(envelope.clone());
    let bundle = sigstore_types::Bundle::new(MediaType::Bundle0_3, VerificationMaterial::new(hint), content);
    let bundle = Bundle { bytes: serde_json::to_vec(&bundle)?, envelope, hint: id };
    Ok(SignedBundle { bundle, predicate_type: statement.predicate.predicate_type().to_owned() })
}

/// Which of `keys` signed a statement of a kind known here in a bundle that [`Bundle::parse`] refuses: one with several
/// signatures, or of a later version. It cannot be read as it is meant, and it is no stranger's.
pub(crate) fn is_loosely_signed(bytes: &[u8], keys: &[&PublicKey]) -> Option<usize> {
    if bytes.len() > MAX_BUNDLE {
        return None;
    }
    let bundle: Value = serde_json::from_slice(bytes).ok()?;
    let envelope = bundle.get("dsseEnvelope").unwrap_or(&bundle);
    let decoded = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let payload = decoded(envelope.get("payload")?)?;
    let kind = envelope.get("payloadType")?.as_str()?;
    if !statement::may_be_ours(kind, &payload) {
        return None;
    }
    let message = pae(kind, &payload);
    let signatures = envelope.get("signatures")?.as_array()?;
    let signatures = signatures.iter().take(MAX_SIGNATURES).filter_map(|it| decoded(it.get("sig")?));
    signatures
        .filter_map(|signature| keys.iter().position(|key| key.verify(&message, &signature).is_ok()))
        .next()
}

/// The bytes that were signed, not read yet.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a>(&'a [u8]);

/// A value that a key vouches for. It begins with [`Bundle::verify`], and nothing else makes one.
///
/// ```compile_fail,E0451
/// fn forge(signer: attestations::PublicKey) -> attestations::Verified<u32> {
///     attestations::Verified { value: 1, signer }
/// }
/// ```
///
/// ```compile_fail,E0624
/// fn exchange(honest: attestations::Verified<u32>) -> attestations::Verified<u32> {
///     honest.map(|_| 2)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    signer: PublicKey,
}

impl<T> Verified<T> {
    /// What was signed.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What was signed, without its proof.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Whose key signed it.
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// A part of it, or another form of it. The callers are here, so that nobody else can exchange a value.
    fn map<U>(self, part: impl FnOnce(T) -> U) -> Verified<U> {
        Verified { value: part(self.value), signer: self.signer }
    }
}

impl<T> Verified<Option<T>> {
    fn transpose(self) -> Option<Verified<T>> {
        Some(Verified { value: self.value?, signer: self.signer })
    }
}

impl Verified<Statement> {
    /// The review inside, if it is one.
    pub fn review(&self) -> Option<Verified<&Review>> {
        self.as_ref().map(|statement| statement.predicate.review()).transpose()
    }

    /// The provenance inside, if it is some.
    pub fn provenance(&self) -> Option<Verified<&Provenance>> {
        self.as_ref().map(|statement| statement.predicate.provenance()).transpose()
    }

    /// The provenance alone, if it is some.
    pub fn into_provenance(self) -> Option<Verified<Provenance>> {
        self.map(|statement| statement.predicate.into_provenance()).transpose()
    }

    fn as_ref(&self) -> Verified<&Statement> {
        Verified { value: &self.value, signer: self.signer.clone() }
    }
}

/// A value that nobody vouches for: to be shown, or used where a person said that anybody's word will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    /// What somebody says.
    pub fn value(&self) -> &T {
        &self.0
    }

    /// What somebody says, without the mark that nobody vouches for it.
    pub fn into_value(self) -> T {
        self.0
    }
}

impl Unverified<Statement> {
    /// The provenance alone, if it is some.
    pub fn into_provenance(self) -> Option<Unverified<Provenance>> {
        self.0.predicate.into_provenance().map(Unverified)
    }
}

impl Verified<Payload<'_>> {
    /// The statement that these very bytes are.
    ///
    /// # Errors
    /// When they are none that can be read here.
    pub fn statement(self) -> Result<Verified<Statement>, BundleError> {
        Ok(Verified { value: Statement::from_bytes(self.value.0)?, signer: self.signer })
    }
}

/// Why bytes are no bundle that counts, or a statement could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// More bytes than [`MAX_BUNDLE`].
    #[error("a bundle of {size} bytes: {MAX_BUNDLE} are the most")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Not the JSON of a bundle, or not exactly one signature.
    #[error("not a well-formed Sigstore bundle: {0}")]
    Json(Foreign),
    /// A signature over a digest, without a statement.
    #[error("the bundle holds no DSSE envelope")]
    NoEnvelope,
    /// An envelope of something else.
    #[error("the envelope's payload is of type `{0}`, not {PAYLOAD_TYPE}")]
    PayloadType(Foreign),
    /// The signature is not this key's.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was signed is no statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The signer refused.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl From<serde_json::Error> for BundleError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(Foreign::error(&error))
    }
}
