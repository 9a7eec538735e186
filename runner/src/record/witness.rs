//! A witness for other hospitals' logs (`c2sp.org/tlog-witness`): it cosigns what goes on from what it cosigned before, and
//! nothing else. One file for each log holds the last checkpoint; it is on the disk before the cosignature leaves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use attestations::{Digest, Signer};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use errors::{files, trusted};
use jiff::Timestamp;
use tlog::witness::{AddCheckpoint, MAX_REQUEST, Refusal, SIZE_TYPE};
use tlog::{Policy, Purpose, SignedCheckpoint, VerifierKey, cosignature};

use super::book::MAX_CHECKPOINT;
use super::key;
use crate::config::Config;
use crate::error::{Error, Kind, Result};

/// The name of the witness's key in the state directory: not the node's own, since the format does not tell them apart.
const KEY: &str = "witness-key.pem";
/// The folder of the last checkpoints.
const FOLDER: &str = "witness";

/// A witness.
pub(crate) struct Cosigner {
    key: VerifierKey,
    signer: Arc<dyn Signer>,
    logs: Vec<VerifierKey>,
    folder: PathBuf,
    /// Held from reading the last checkpoint until the next one is kept.
    turn: Mutex<()>,
}

impl Cosigner {
    /// A witness of this name for the logs of a file in the form of `tlog-policy`. Its key is made at its first use.
    pub(crate) fn open(config: &Config, name: &str, logs: &Path) -> Result<Self> {
        config.make_state_dir()?;
        let policy = Policy::parse(&trusted::read(logs, tlog::policy::MAX_TEXT as u64)?)?;
        let folder = config.state_dir.join(FOLDER);
        let signer = key::own_signer(&config.state_dir, KEY, &folder)?;
        let key = VerifierKey::new(name, Purpose::Witness, signer.public_key())?;
        std::fs::create_dir_all(&folder).map_err(|cause| Error::io("making", &folder, cause))?;
        Ok(Self { key, signer, logs: policy.logs().to_vec(), folder, turn: Mutex::default() })
    }

    /// The key that verifies its cosignatures.
    pub(crate) fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Serves until it is told to stop; says where, once it listens.
    pub(crate) async fn serve(self, address: SocketAddr, listening: impl FnOnce(SocketAddr)) -> Result<()> {
        let failed = |cause: std::io::Error| {
            Error::new(Kind::Machine, format!("listening on {address}")).because(cause)
        };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        listening(listener.local_addr().map_err(failed)?);
        let router = axum::Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .route("/{origin}/checkpoint", get(checkpoint))
            .layer(DefaultBodyLimit::max(MAX_REQUEST))
            .with_state(Arc::new(self));
        let stop = async {
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
            let terminated = async {
                match &mut terminate {
                    Some(terminate) => drop(terminate.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! { () = terminated => {}, _ = tokio::signal::ctrl_c() => {} }
        };
        axum::serve(listener, router).with_graceful_shutdown(stop).await.map_err(failed)
    }

    /// The cosignature of a request, once it is kept.
    fn cosign(&self, body: &[u8]) -> Result<String, Failure> {
        let request = AddCheckpoint::parse(body).map_err(|_| Refusal::Malformed)?;
        let path = self.path(&request.checkpoint.unverified().origin);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = match files::read(&path, MAX_CHECKPOINT) {
            Ok(bytes) => Some(SignedCheckpoint::parse(&bytes).map_err(|cause| Failure::Own(cause.into()))?),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(Failure::Own(error)),
        };
        request.judge(&self.logs, latest.as_ref().map(SignedCheckpoint::unverified))?;
        let seconds = Timestamp::now().as_second().unsigned_abs();
        let signature = cosignature::sign(&request.checkpoint, &self.key, &*self.signer, seconds)
            .map_err(|cause| Failure::Own(cause.into()))?;
        // Of the signatures that came along only those of the log itself are passed on.
        let mut kept = request.checkpoint.clone();
        kept.keep(&self.logs);
        kept.add(vec![signature.clone()]);
        files::write(&path, kept.to_string().as_bytes()).map_err(Failure::Own)?;
        Ok(signature.to_string())
    }

    fn path(&self, origin: &str) -> PathBuf {
        self.folder.join(Digest::of(origin.as_bytes()).hex())
    }
}

/// Why there is no cosignature.
enum Failure {
    Refused(Refusal),
    Own(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

async fn add_checkpoint(State(witness): State<Arc<Cosigner>>, body: Bytes) -> Response {
    let cosigned = tokio::task::spawn_blocking(move || witness.cosign(&body)).await;
    match cosigned {
        Ok(Ok(text)) => text.into_response(),
        Ok(Err(Failure::Refused(refusal))) => {
            tracing::warn!(%refusal, "a checkpoint was not cosigned");
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            match refusal {
                Refusal::Conflict { size } => {
                    (status, [(header::CONTENT_TYPE, SIZE_TYPE)], format!("{size}\n")).into_response()
                }
                refusal => (status, format!("{refusal}\n")).into_response(),
            }
        }
        Ok(Err(Failure::Own(error))) => {
            tracing::error!(error = %errors::chain::line(&error), "a checkpoint could not be cosigned");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cosigning was broken off");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn checkpoint(State(witness): State<Arc<Cosigner>>, UrlPath(origin): UrlPath<String>) -> Response {
    // The name of the file is the digest: nothing else of the path is looked at.
    let Ok(digest) = Digest::from_hex(&origin) else { return StatusCode::NOT_FOUND.into_response() };
    let path = witness.folder.join(digest.hex());
    match files::read(&path, MAX_CHECKPOINT) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response(),
        Err(error) if error.kind() == Kind::NotFound => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::error!(error = %errors::chain::line(&error), "a checkpoint could not be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
