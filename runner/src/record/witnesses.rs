//! Asking witnesses to cosign the log: other hospitals that make sure that everybody is shown the same one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use attestations::Foreign;
use errors::trusted;
use futures_util::future::join_all;
use tlog::note::Signature;
use tlog::policy::{Cosigned, Standing, Witness};
use tlog::witness::{AddCheckpoint, SIZE_TYPE};
use tlog::{Policy, SignedCheckpoint, cosignature};

use super::book::Book;
use crate::config::{Config, Quorum};
use crate::error::{Error, Kind, Result};

/// How long a witness has to answer, its connection included.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;

/// The witnesses that the configuration names.
pub(super) struct Witnesses {
    policy: Policy,
    pub(super) quorum: Quorum,
    client: reqwest::Client,
    /// How many entries each has cosigned, as far as it is known here.
    known: Mutex<BTreeMap<String, u64>>,
    /// Held while they are asked: whoever comes meanwhile is served by the next time.
    asking: tokio::sync::Mutex<()>,
}

impl Witnesses {
    /// None where the configuration names none.
    pub(super) fn open(config: &Config) -> Result<Option<Self>> {
        let Some(path) = &config.record.witnesses else { return Ok(None) };
        let unusable = || format!("the witnesses of {} cannot be used", path.display());
        let policy = Policy::parse(&trusted::read(path, tlog::policy::MAX_TEXT as u64)?)
            .map_err(|cause| Error::new(Kind::Input, unusable()).because(cause))?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("countersign-runner/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .build()
            .map_err(|cause| Error::new(Kind::Machine, unusable()).because(cause))?;
        let (known, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Some(Self { policy, quorum: config.record.quorum, client, known, asking }))
    }

    /// Asks all of them at once to cosign the log as it is now, and keeps what they sign beside the checkpoint. One that does
    /// not answer costs [`PATIENCE`] at most.
    ///
    /// # Errors
    /// When the log cannot be read or written, or what was cosigned is no quorum.
    pub(super) async fn ask(&self, book: &Book) -> Result<Cosigned> {
        let _asking = self.asking.lock().await;
        let signed = book.reader()?.signed().clone();
        let asked = self.policy.witnesses().iter().filter(|witness| witness.url.is_some());
        let answers = join_all(asked.map(|witness| self.one(book, &signed, witness))).await;
        let mut cosigned = Vec::new();
        for answer in answers {
            match answer {
                Ok(signatures) => cosigned.extend(signatures),
                Err(error) => {
                    tracing::warn!(error = %errors::chain::line(&error), "a witness did not cosign")
                }
            }
        }
        let mut now = signed;
        now.add(cosigned.clone());
        book.cosign(now.unverified().size, cosigned)?;
        let standing = self.policy.cosigned(&now)?;
        match standing.standing {
            Standing::Quorum => Ok(standing),
            Standing::TooFew => Err(Error::new(
                Kind::Refused,
                format!("too few witnesses cosigned the log: {}", standing.by.len()),
            )
            .hint(
                "see the warnings for what each of them answered, and the quorum in the file of witnesses",
            )),
        }
    }

    async fn one(&self, book: &Book, signed: &SignedCheckpoint, witness: &Witness) -> Result<Vec<Signature>> {
        let failed = |text: String| Error::new(Kind::Network, format!("witness {}: {text}", witness.name));
        let size = signed.unverified().size;
        let mut old = self.known(&witness.name).filter(|known| *known <= size).unwrap_or(0);
        for _ in 0..2 {
            let proof = book.reader()?.prove_between(old, size)?;
            let request = AddCheckpoint { old, proof, checkpoint: signed.clone() };
            let (status, is_size, text) = self.post(witness, request.to_string()).await?;
            match status {
                200 => {
                    let signatures = Signature::parse_all(&text)?;
                    let signatures: Vec<_> =
                        signatures.into_iter().filter(|it| it.names(&witness.key)).collect();
                    let mut cosigned = signed.clone();
                    cosigned.add(signatures.clone());
                    cosignature::verify(&cosigned, &witness.key)?;
                    self.remember(&witness.name, size);
                    return Ok(signatures);
                }
                409 if is_size => {
                    let known = text.trim_end_matches('\n').parse::<u64>().ok();
                    old = known.ok_or_else(|| failed("its answer is no size".to_owned()))?;
                    if old > size {
                        return Err(failed(format!(
                            "it has cosigned {old} entries, and the log has {size}: the log was put back"
                        )));
                    }
                    self.remember(&witness.name, old);
                }
                status => return Err(failed(format!("status {status}: {}", Foreign::new(&text)))),
            }
        }
        Err(failed("it answers with another size each time".to_owned()))
    }

    /// The status, whether the answer says that it is a size, and the answer.
    async fn post(&self, witness: &Witness, body: String) -> Result<(u16, bool, String)> {
        let broken = |cause: reqwest::Error| {
            Error::new(Kind::Network, format!("asking the witness {}", witness.name)).because(cause)
        };
        let url =
            format!("{}/add-checkpoint", witness.url.as_deref().unwrap_or_default().trim_end_matches('/'));
        let mut answer = self.client.post(url).body(body).send().await.map_err(broken)?;
        let status = answer.status().as_u16();
        let kind = answer.headers().get(http::header::CONTENT_TYPE);
        let is_size = kind.is_some_and(|kind| kind.as_bytes().starts_with(SIZE_TYPE.as_bytes()));
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(broken)? {
            bytes.extend_from_slice(&part);
            if bytes.len() > MAX_ANSWER {
                return Err(Error::new(
                    Kind::Network,
                    format!("the witness {} answers too much", witness.name),
                ));
            }
        }
        Ok((status, is_size, String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn known(&self, name: &str) -> Option<u64> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn remember(&self, name: &str, size: u64) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), size);
    }
}
