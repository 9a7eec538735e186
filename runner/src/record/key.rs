//! The node's own key, which signs what it did.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestations::{Algorithm, Signer};
use signers::{PasswordSource, Protection};

use crate::config::Config;
use crate::error::{Error, Kind, Result};

/// The name of the key that a node makes itself, in its state directory.
const OWN: &str = "record-key.pem";

/// The key that the configuration names, or the node's own, which is made at its first use.
pub(crate) fn open(config: &Config) -> Result<Arc<dyn Signer>> {
    let path = match &config.record.key {
        Some(path) => path.clone(),
        None => own(&config.state_dir, OWN, &config.log_folder().join(tlog::layout::CHECKPOINT))?,
    };
    let signer = signers::open(&path, &PasswordSource::of(None), &mut |text| tracing::warn!("{text}"))?;
    match signer.public_key().algorithm() {
        Algorithm::Ed25519 => Ok(Arc::from(signer)),
        other => Err(Error::new(Kind::Key, format!("{} is a key for {other}", path.display()))
            .hint("checkpoints are signed with Ed25519: name such a key, or none, and the node makes one")),
    }
}

/// A key that is made in the state directory at its first use; `signed` is what it signs.
pub(super) fn own_signer(state_dir: &Path, name: &str, signed: &Path) -> Result<Arc<dyn Signer>> {
    let path = own(state_dir, name, signed)?;
    let signer = signers::open(&path, &PasswordSource::of(None), &mut |text| tracing::warn!("{text}"))?;
    Ok(Arc::from(signer))
}

fn own(state_dir: &Path, name: &str, signed: &Path) -> Result<PathBuf> {
    let path = state_dir.join(name);
    // Two programs that start at once must not make two keys.
    let lock = state_dir.join(format!("{name}.lock"));
    let held = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _held = held.map_err(|cause| Error::io("locking", &lock, cause))?;
    if path.exists() {
        return Ok(path);
    }
    let public = state_dir.join(format!("{name}.pub"));
    if public.exists() && signed.exists() {
        return Err(Error::new(
            Kind::NotFound,
            format!("the key that signed {} is gone: {}", signed.display(), path.display()),
        )
        .hint("restore it from your copy; its public half is still there, and verifies what it signed"));
    }
    if public.exists() {
        // Half of a key that was never finished: nothing was signed with it.
        std::fs::remove_file(&public).map_err(|cause| Error::io("removing", &public, cause))?;
    }
    let made = signers::generate(&path, Algorithm::Ed25519, &Protection::Unprotected)?;
    tracing::warn!(
        "a key was made in {}: keep a copy of it; its public half is {}",
        path.display(),
        made.public_path.display()
    );
    Ok(path)
}
