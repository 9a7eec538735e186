//! Cosignatures (`c2sp.org/tlog-cosignature`, Ed25519): a witness says that, at a time, this was the largest state of a log that
//! it had seen, and that it goes on from what it had seen before.

use attestations::Signer;

use crate::checkpoint::SignedCheckpoint;
use crate::error::{Error, Result};
use crate::note::{Signature, VerifierKey};

/// Cosigns a checkpoint. The caller has checked that it is consistent with what was cosigned before: see [`crate::witness`].
///
/// # Errors
/// When the signer refuses.
pub fn sign(
    checkpoint: &SignedCheckpoint,
    key: &VerifierKey,
    signer: &dyn Signer,
    seconds: u64,
) -> Result<Signature> {
    let message = message(checkpoint.note().text(), seconds);
    key.sign_with(signer, &message, &seconds.to_be_bytes())
}

/// When this witness cosigned the checkpoint, in seconds since 1970.
///
/// # Errors
/// When it did not.
pub fn verify(checkpoint: &SignedCheckpoint, key: &VerifierKey) -> Result<u64> {
    let note = checkpoint.note();
    let signature = note.signed_by(key, |it| {
        let (seconds, bytes) = parts(it, key)?;
        Ok((message(note.text(), seconds), bytes))
    })?;
    Ok(parts(signature, key)?.0)
}

fn parts<'a>(signature: &'a Signature, key: &VerifierKey) -> Result<(u64, &'a [u8])> {
    let (seconds, bytes) =
        signature.bytes().split_first_chunk::<8>().ok_or_else(|| Error::Forged(key.name().to_owned()))?;
    Ok((u64::from_be_bytes(*seconds), bytes))
}

fn message(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}
