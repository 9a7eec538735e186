//! `keygen`.

use std::path::PathBuf;

use attestations::keys::Algorithm;

use super::password::PasswordArguments;
use super::{Answer, Session};
use signers::{Protection, generate};

use crate::error::Result;

/// Creates a signing key. Existing files are never overwritten.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File for the new private key; the public key is written next to it, with .pub appended.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Type of key. P-256 is what every verifier of Sigstore bundles knows.
    #[arg(long, value_enum, default_value_t = KeyKind::P256)]
    algorithm: KeyKind,
    /// Store the private key without a password; anyone who can read the file can then sign.
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
    #[command(flatten)]
    password: PasswordArguments,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KeyKind {
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// Ed25519: for a node's log and its witnesses. cosign cannot sign with it in a form that it verifies.
    Ed25519,
}

/// Runs it.
///
/// # Errors
/// See [`crate::error::Kind`].
pub(crate) fn run(arguments: Arguments, session: &Session) -> Result<Answer> {
    let algorithm = match arguments.algorithm {
        KeyKind::Ed25519 => Algorithm::Ed25519,
        KeyKind::P256 => Algorithm::EcdsaP256,
    };
    let protection = match arguments.no_password {
        true => Protection::Unprotected,
        false => {
            let password = arguments.password.source().new_one(&arguments.out);
            Protection::Password(password.map_err(signers::Error::from)?)
        }
    };
    let made = generate(&arguments.out, algorithm, &protection)?;
    let id = made.public_key.id().to_string();
    let text = format!(
        "private key  {}\npublic key   {}\nkey id       {id}",
        arguments.out.display(),
        made.public_path.display()
    );
    let value = serde_json::json!({
        "private_key": arguments.out,
        "public_key": made.public_path,
        "key_id": id,
        "encrypted": matches!(protection, Protection::Password(_)),
    });
    session.result(&text, &value)?;
    Ok(Answer::Yes)
}
