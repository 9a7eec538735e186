//! New keys.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use attestations::keys::{Algorithm, PublicKey};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use pkcs8::der::{Decode as _, SecretDocument};
use pkcs8::{LineEnding, PrivateKeyInfo, pkcs5::pbes2};
use zeroize::Zeroizing;

use super::{Error, private};

/// How a new key is kept.
pub enum Protection {
    /// Encrypted with this password (scrypt, AES-256-CBC).
    Password(Zeroizing<String>),
    /// In plain, for machines that keep their secrets otherwise.
    Unprotected,
}

/// A key that was made.
pub struct Generated {
    /// The file with the public key.
    pub public_path: PathBuf,
    /// The public key.
    pub public_key: PublicKey,
}

/// Makes a key: the private half in `path` (mode 600), the public half beside it with `.pub` appended.
///
/// # Errors
/// [`Error::Exists`] when either file exists; nothing is left behind by a failure.
pub fn generate(path: &Path, algorithm: Algorithm, protection: &Protection) -> Result<Generated, Error> {
    let mut public_path = path.as_os_str().to_owned();
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    let plain = new_key(algorithm)?;
    let plain_pem = plain.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| Error::Generation)?;
    let signer = private::parse(path, &plain_pem, &mut || Ok(Zeroizing::default()))?;
    let private_pem = match protection {
        Protection::Unprotected => plain_pem,
        Protection::Password(password) => encrypt(&plain, password)?,
    };
    let public_key = signer.public_key().clone();
    write_new(&public_path, 0o644, public_key.to_pem().as_bytes())?;
    if let Err(error) = write_new(path, 0o600, private_pem.as_bytes()) {
        // The public half alone is of no use; that it cannot be removed changes nothing about the failure.
        let _ = std::fs::remove_file(&public_path);
        return Err(error);
    }
    Ok(Generated { public_path, public_key })
}

fn new_key(algorithm: Algorithm) -> Result<SecretDocument, Error> {
    let random = SystemRandom::new();
    let document = match algorithm {
        // The form without the public key: what openssl writes, and every version of it reads.
        Algorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8v1(&random),
        Algorithm::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random),
    };
    let document = document.map_err(|_| Error::Generation)?;
    SecretDocument::try_from(document.as_ref()).map_err(|_| Error::Generation)
}

fn encrypt(plain: &SecretDocument, password: &str) -> Result<Zeroizing<String>, Error> {
    let (mut salt, mut iv) = ([0u8; 16], [0u8; 16]);
    let random = SystemRandom::new();
    random.fill(&mut salt).and_then(|()| random.fill(&mut iv)).map_err(|_| Error::Generation)?;
    // The most that openssl opens with its default memory limit of 32 MiB; the five passes make up for it.
    let kdf = pbes2::ScryptParams {
        salt: &salt,
        cost_parameter: 1 << 14,
        block_size: 8,
        parallelization: 5,
        key_length: None,
    };
    let encryption = pbes2::EncryptionScheme::Aes256Cbc { iv: &iv };
    let scheme = pbes2::Parameters { kdf: kdf.into(), encryption };
    let info = PrivateKeyInfo::from_der(plain.as_bytes()).map_err(|_| Error::Generation)?;
    let sealed = info.encrypt_with_params(scheme, password.as_bytes()).map_err(|_| Error::Generation)?;
    sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).map_err(|_| Error::Generation)
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => Error::File { doing: "writing", path: path.to_owned(), source },
    };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| {
        // Half a key must not stay.
        let _ = std::fs::remove_file(path);
        failed(source)
    })
}
