//! Public keys as people have them, and the trait through which the programs sign.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::foreign::Foreign;

/// Texts longer than this are no public key of a kind known here.
const MAX_TEXT: usize = 4096;
/// Longer SSH signatures are by no key of a kind known here.
const MAX_SIGNATURE: usize = 4096;
/// SubjectPublicKeyInfo of Ed25519 (RFC 8410): everything before the 32 bytes of the key.
const ED25519_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// SubjectPublicKeyInfo of P-256 (RFC 5480): everything before the 65 bytes of the uncompressed point.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032); signatures are 64 raw bytes.
    Ed25519,
    /// ECDSA over P-256 with SHA-256; signatures are ASN.1 DER.
    EcdsaP256,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::EcdsaP256 => "ECDSA P-256",
        })
    }
}

/// A public key that was well formed. Copies share one parsed key: every verified value holds its signer.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    spki: Arc<[u8]>,
    parsed: Arc<ParsedPublicKey>,
}

impl PublicKey {
    /// Parses a PEM `PUBLIC KEY`, or a line as in `~/.ssh/id_ed25519.pub` (`ssh-ed25519`, `ecdsa-sha2-nistp256`).
    ///
    /// # Errors
    /// When the text is neither, or the key is of another kind.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() > MAX_TEXT {
            return Err(KeyError::Format("longer than any public key known here".to_owned()));
        }
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
            let body = rest.strip_suffix("-----END PUBLIC KEY-----");
            let body = body.ok_or_else(|| KeyError::Format("the PEM text has no end line".to_owned()))?;
            let compact: String = body.split_whitespace().collect();
            return Self::from_spki(&decode(&compact)?);
        }
        Self::from_openssh(text)
    }

    /// Parses a DER SubjectPublicKeyInfo of Ed25519 or P-256 (uncompressed point).
    ///
    /// # Errors
    /// When it is of another kind, or not a point of the curve.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        if let Some(raw) = der.strip_prefix(ED25519_PREFIX).filter(|raw| raw.len() == 32) {
            return Self::new(Algorithm::Ed25519, raw, der);
        }
        if let Some(raw) = der.strip_prefix(P256_PREFIX).filter(|raw| raw.len() == 65) {
            return Self::new(Algorithm::EcdsaP256, raw, der);
        }
        Err(KeyError::Format("neither an Ed25519 nor a P-256 public key".to_owned()))
    }

    /// The key whose raw bytes these are: 32 for Ed25519, the 65 of an uncompressed point for P-256.
    ///
    /// # Errors
    /// When they are no such key.
    pub fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, KeyError> {
        let prefix = match algorithm {
            Algorithm::Ed25519 => ED25519_PREFIX,
            Algorithm::EcdsaP256 => P256_PREFIX,
        };
        Self::from_spki(&[prefix, raw].concat())
    }

    fn new(algorithm: Algorithm, raw: &[u8], spki: &[u8]) -> Result<Self, KeyError> {
        let parsed = match algorithm {
            Algorithm::Ed25519 => ParsedPublicKey::new(&ED25519, raw),
            Algorithm::EcdsaP256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, raw),
        };
        let parsed = parsed.map_err(|_| KeyError::Format(format!("not a valid {algorithm} key")))?;
        Ok(Self { algorithm, spki: spki.into(), parsed: Arc::new(parsed) })
    }

    fn from_openssh(line: &str) -> Result<Self, KeyError> {
        let mut words = line.split_whitespace();
        let (kind, body) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let blob = decode(body)?;
        let named = SshFields(&blob).collect()?.into_iter().next().unwrap_or_default();
        if named != kind.as_bytes() {
            return Err(KeyError::Format(format!(
                "neither PEM nor an OpenSSH public key: `{}`",
                Foreign::new(kind)
            )));
        }
        Self::from_ssh_blob(&blob)
    }

    /// The key of an OpenSSH key blob (RFC 4253, section 6.6), as agents and signatures have it.
    ///
    /// # Errors
    /// When it is cut short, or of a type that cannot be used.
    pub fn from_ssh_blob(blob: &[u8]) -> Result<Self, KeyError> {
        let fields = SshFields(blob).collect()?;
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        match fields[..] {
            [b"ssh-ed25519", raw] => Self::from_raw(Algorithm::Ed25519, raw),
            [b"ecdsa-sha2-nistp256", b"nistp256", point] => Self::from_raw(Algorithm::EcdsaP256, point),
            _ => Err(KeyError::Format(format!(
                "OpenSSH keys of type {} cannot be used: ssh-ed25519 and ecdsa-sha2-nistp256 can",
                Foreign::new(&String::from_utf8_lossy(fields.first().copied().unwrap_or_default()))
            ))),
        }
    }

    /// The key that an armoured SSH signature (`ssh-keygen -Y sign`, as git has it in signed commits) names. Whether it made
    /// the signature is not checked. None where there is no such key, or it is of a kind that no policy can list.
    pub fn named_by_ssh_signature(text: &str) -> Option<Self> {
        let body = text.trim().strip_prefix("-----BEGIN SSH SIGNATURE-----")?;
        let body = body.strip_suffix("-----END SSH SIGNATURE-----")?;
        if body.len() > MAX_SIGNATURE {
            return None;
        }
        let compact: String = body.split_whitespace().collect();
        let blob = decode(&compact).ok()?;
        // Six letters and the version, then fields, of which the first is the key's own blob.
        let (length, rest) = blob.strip_prefix(b"SSHSIG\0\0\0\x01")?.split_first_chunk::<4>()?;
        let key = rest.get(..u32::from_be_bytes(*length) as usize)?;
        Self::from_ssh_blob(key).ok()
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Its PEM form.
    pub fn to_pem(&self) -> String {
        let text = STANDARD.encode(&self.spki);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// Its id: base64 of the SHA-256 of its SubjectPublicKeyInfo, as sigstore's clients write it. A hint, never proof.
    pub fn id(&self) -> KeyId {
        KeyId(STANDARD.encode(crate::digest::Digest::of(&self.spki).as_bytes()))
    }

    /// Checks a P-256 `signature` over the message with this SHA-256, which is not at hand.
    ///
    /// # Errors
    /// When this key did not make it, or is of a kind that signs messages only.
    pub fn verify_digest(&self, digest: &crate::digest::Digest, signature: &[u8]) -> Result<(), KeyError> {
        let digest =
            aws_lc_rs::digest::Digest::import_less_safe(digest.as_bytes(), &aws_lc_rs::digest::SHA256);
        let digest = digest.map_err(|_| KeyError::Signature)?;
        self.parsed.verify_digest_sig(&digest, signature).map_err(|_| KeyError::Signature)
    }

    /// Checks `signature` over `message`.
    ///
    /// # Errors
    /// When this key did not make it.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        self.parsed.verify_sig(message, signature).map_err(|_| KeyError::Signature)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.id())
    }
}

/// A key's id. See [`PublicKey::id`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl TryFrom<String> for KeyId {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        match decode(&text)?.len() {
            32 => Ok(Self(text)),
            _ => Err(KeyError::Format(format!("`{}` is no key's id", Foreign::new(&text)))),
        }
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl KeyId {
    /// The id as it stands in envelopes and bundles.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that holds a private key: a file, an agent, a token.
pub trait Signer: Send + Sync {
    /// The key that verifies what this signs.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message`: 64 raw bytes for Ed25519, ASN.1 DER for P-256 with SHA-256.
    ///
    /// # Errors
    /// When the holder of the key refuses or fails.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// The holder of a private key could not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key could not sign: {0}")]
pub struct SignError(pub String);

/// Why a key cannot be used, or did not make a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text or bytes are no key of a kind known here.
    #[error("not a usable public key: {0}")]
    Format(String),
    /// The signature is not this key's over these bytes.
    #[error("the signature was not made by this key over these bytes")]
    Signature,
}

/// The length-prefixed fields of an OpenSSH key blob (RFC 4251, section 5).
struct SshFields<'a>(&'a [u8]);

impl SshFields<'_> {
    fn collect(mut self) -> Result<Vec<Vec<u8>>, KeyError> {
        let broken = || KeyError::Format("the OpenSSH key is cut short".to_owned());
        let mut fields = Vec::new();
        while !self.0.is_empty() {
            let (length, rest) = self.0.split_first_chunk::<4>().ok_or_else(broken)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (field, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
            fields.push(field.to_vec());
            self.0 = rest;
        }
        Ok(fields)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    STANDARD.decode(text).map_err(|cause| KeyError::Format(format!("not base64: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(fields: &[&[u8]]) -> Vec<u8> {
        let field = |bytes: &&[u8]| [&(bytes.len() as u32).to_be_bytes(), *bytes].concat();
        fields.iter().flat_map(field).collect()
    }

    #[test]
    fn a_blob_is_read_as_a_whole_or_not_at_all() {
        // The base point of P-256.
        let point = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let point = hex::decode(point).unwrap_or_default();
        let kind = &b"ecdsa-sha2-nistp256"[..];
        assert!(PublicKey::from_ssh_blob(&blob(&[kind, b"nistp256", &point])).is_ok());
        let ed25519 = blob(&[b"ssh-ed25519", &point[1..33]]);
        for refused in [
            blob(&[kind, b"nistp384", &point]),
            blob(&[kind, b"nistp256", &point, b"more"]),
            blob(&[kind, b"nistp256"]),
            blob(&[b"ssh-rsa", &[1], &point]),
            ed25519[..ed25519.len() - 1].to_vec(),
            Vec::new(),
        ] {
            assert!(PublicKey::from_ssh_blob(&refused).is_err(), "{refused:?}");
        }
    }
}
