//! The formats of private keys.

use std::path::Path;

use attestations::keys::{PublicKey, SignError, Signer};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use pkcs8::der::pem::PemLabel as _;
use pkcs8::der::{Decode as _, SecretDocument};
use pkcs8::{EncryptedPrivateKeyInfo, ObjectIdentifier, PrivateKeyInfo};
use ssh_key::private::{EcdsaKeypair, KeypairData};
use zeroize::Zeroizing;

use super::{Error, password};

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Most memory for scrypt, in bytes, and most rounds of PBKDF2 and bcrypt: a file must not decide how long we work.
const MAX_SCRYPT: u128 = 1 << 30;
const MAX_PBKDF2: u32 = 20_000_000;
const MAX_BCRYPT: u32 = 4096;

type AskPassword<'a> = &'a mut dyn FnMut() -> Result<Zeroizing<String>, password::Error>;

/// Reads one private key.
pub(super) fn parse(path: &Path, text: &str, password: AskPassword<'_>) -> Result<Box<dyn Signer>, Error> {
    let label = text.lines().find_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    match label {
        Some("OPENSSH PRIVATE KEY") => openssh(path, text, password),
        Some(label) if label == PrivateKeyInfo::PEM_LABEL => pkcs8(path, &pem(path, text)?),
        Some(label) if label == EncryptedPrivateKeyInfo::PEM_LABEL => {
            encrypted(path, &pem(path, text)?, password)
        }
        Some(label) if label.ends_with("PUBLIC KEY") => Err(malformed(path, "it is a public key")),
        Some(label) => Err(malformed(path, &format!("its format is {label:.40}"))),
        None => Err(malformed(path, "it is not PEM")),
    }
}

fn pem(path: &Path, text: &str) -> Result<SecretDocument, Error> {
    let start = text.find("-----BEGIN ").unwrap_or(0);
    SecretDocument::from_pem(text[start..].trim_end())
        .map(|(_, document)| document)
        .map_err(|error| malformed(path, &error.to_string()))
}

fn encrypted(
    path: &Path,
    document: &SecretDocument,
    password: AskPassword<'_>,
) -> Result<Box<dyn Signer>, Error> {
    let info = EncryptedPrivateKeyInfo::from_der(document.as_bytes())
        .map_err(|error| malformed(path, &error.to_string()))?;
    check_cost(path, &info)?;
    let password = password()?;
    let plain = info.decrypt(password.as_bytes()).map_err(|_| Error::WrongPassword(path.to_owned()))?;
    // A wrong password may give a plausible padding by chance, and then no key.
    pkcs8(path, &plain).map_err(|error| match error {
        Error::Malformed { .. } => Error::WrongPassword(path.to_owned()),
        other => other,
    })
}

fn check_cost(path: &Path, info: &EncryptedPrivateKeyInfo<'_>) -> Result<(), Error> {
    let Some(parameters) = info.encryption_algorithm.pbes2() else {
        let found = "PKCS#8 with PBES1-encrypted".to_owned();
        return Err(Error::Unsupported { path: path.to_owned(), found });
    };
    let scrypt =
        parameters.kdf.scrypt().map_or(0, |s| 128 * u128::from(s.cost_parameter) * u128::from(s.block_size));
    let rounds = parameters.kdf.pbkdf2().map_or(0, |p| p.iteration_count);
    if scrypt > MAX_SCRYPT || rounds > MAX_PBKDF2 {
        return Err(malformed(path, "opening it would take too much work"));
    }
    Ok(())
}

fn pkcs8(path: &Path, document: &SecretDocument) -> Result<Box<dyn Signer>, Error> {
    let der = document.as_bytes();
    let info = PrivateKeyInfo::from_der(der).map_err(|error| malformed(path, &error.to_string()))?;
    let rejected = |error: aws_lc_rs::error::KeyRejected| malformed(path, &error.to_string());
    match (info.algorithm.oid, info.algorithm.parameters_oid()) {
        (ED25519, _) => ed25519(path, Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(rejected)?),
        (EC, Ok(P256)) => {
            p256(path, EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(rejected)?)
        }
        (EC, _) => unsupported(path, "elliptic curve (other than P-256)"),
        (other, _) => unsupported(path, &format!("algorithm {other}")),
    }
}

fn openssh(path: &Path, text: &str, password: AskPassword<'_>) -> Result<Box<dyn Signer>, Error> {
    let key = ssh_key::PrivateKey::from_openssh(text).map_err(|error| malformed(path, &error.to_string()))?;
    let key = if key.is_encrypted() { open_ssh_key(path, &key, password)? } else { key };
    let rejected = |error: aws_lc_rs::error::KeyRejected| malformed(path, &error.to_string());
    match key.key_data() {
        KeypairData::Ed25519(pair) => {
            let (seed, public) = (pair.private.as_ref(), pair.public.as_ref());
            ed25519(path, Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(rejected)?)
        }
        KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
            let scheme = &ECDSA_P256_SHA256_ASN1_SIGNING;
            let (private, public) = (private.as_slice(), public.as_bytes());
            p256(
                path,
                EcdsaKeyPair::from_private_key_and_public_key(scheme, private, public).map_err(rejected)?,
            )
        }
        _ => unsupported(path, key.algorithm().as_str()),
    }
}

fn open_ssh_key(
    path: &Path,
    key: &ssh_key::PrivateKey,
    password: AskPassword<'_>,
) -> Result<ssh_key::PrivateKey, Error> {
    if let ssh_key::Kdf::Bcrypt { rounds, .. } = key.kdf()
        && *rounds > MAX_BCRYPT
    {
        return Err(malformed(path, "opening it would take too much work"));
    }
    if key.cipher() == ssh_key::Cipher::TDesCbc {
        return Err(Error::Unsupported { path: path.to_owned(), found: "3DES-encrypted OpenSSH".to_owned() });
    }
    let password = password()?;
    key.decrypt(password.as_bytes()).map_err(|_| Error::WrongPassword(path.to_owned()))
}

fn ed25519(path: &Path, pair: Ed25519KeyPair) -> Result<Box<dyn Signer>, Error> {
    let public = public_key(path, pair.public_key())?;
    Ok(Box::new(Ed25519 { pair, public }))
}

fn p256(path: &Path, pair: EcdsaKeyPair) -> Result<Box<dyn Signer>, Error> {
    let public = public_key(path, pair.public_key())?;
    Ok(Box::new(EcdsaP256 { pair, public }))
}

fn public_key(path: &Path, key: &impl AsDer<PublicKeyX509Der<'static>>) -> Result<PublicKey, Error> {
    let der = key.as_der().map_err(|_| malformed(path, "its public key cannot be written"))?;
    PublicKey::from_spki(der.as_ref()).map_err(|error| malformed(path, &error.to_string()))
}

fn malformed(path: &Path, problem: &str) -> Error {
    Error::Malformed { path: path.to_owned(), problem: problem.to_owned() }
}

fn unsupported(path: &Path, found: &str) -> Result<Box<dyn Signer>, Error> {
    Err(Error::Unsupported { path: path.to_owned(), found: found.to_owned() })
}

struct Ed25519 {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Signer for Ed25519 {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self
            .pair
            .try_sign(message)
            .map_err(|_| SignError("the cryptographic library failed".to_owned()))?;
        Ok(signature.as_ref().to_vec())
    }
}

struct EcdsaP256 {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl Signer for EcdsaP256 {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .map_err(|_| SignError("the cryptographic library failed".to_owned()))?;
        Ok(signature.as_ref().to_vec())
    }
}
