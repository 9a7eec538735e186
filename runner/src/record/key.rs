//! The node's own key, which signs what it did.

use std::fs::File;
use std::path::Path;
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
        None => own(&config.state_dir, OWN)?,
    };
    let signer = signers::open(&path, &PasswordSource::of(None), &mut |text| tracing::warn!("{text}"))?;
    match signer.public_key().algorithm() {
        Algorithm::Ed25519 => Ok(Arc::from(signer)),
        other => Err(Error::new(Kind::Key, format!("{} is a key for {other}", path.display()))
            .hint("checkpoints are signed with Ed25519: name such a key, or none, and the node makes one")),
    }
}

/// A key that is made in the state directory at its first use.
pub(super) fn own_signer(state_dir: &Path, name: &str) -> Result<Arc<dyn Signer>> {
    let path = own(state_dir, name)?;
    let signer = signers::open(&path, &PasswordSource::of(None), &mut |text| tracing::warn!("{text}"))?;
    Ok(Arc::from(signer))
}

fn own(state_dir: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = state_dir.join(name);
    // Two programs that start at once must not make two keys.
    let lock = state_dir.join(format!("{name}.lock"));
    let held = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _held = held.map_err(|cause| Error::io("locking", &lock, cause))?;
    if path.exists() {
        return Ok(path);
    }
    let public = state_dir.join(format!("{name}.pub"));
    if public.exists() && state_dir.join("log").join("checkpoint").exists() {
        return Err(Error::new(Kind::NotFound, format!("the key that signed this node's log is gone: {}", path.display()))
            .hint("restore it from your copy; its public half is still there, and `log verify --key` reads the log with it"));
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
