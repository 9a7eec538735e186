//! Proofs beside results: that the log has an entry, with the entry itself and the salt of what it is about.

use std::str::FromStr as _;

use attestations::run::Salt;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tlog::{Proof, Reader};

use crate::error::{Error, Kind, Result};

/// The extra data of a proof. It is not vouched for: the entry is checked by the proof, and the salt by the entry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    /// The entry, in base64.
    entry: String,
    /// The salt of its digests, where whoever has the proof may know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
}

/// What a proof encloses.
pub(crate) struct Enclosed {
    pub(crate) entry: Vec<u8>,
    pub(crate) salt: Option<Salt>,
}

impl Enclosed {
    /// Reads what a proof encloses; nothing of it is verified.
    pub(crate) fn of(proof: &Proof) -> Result<Self> {
        let wrong = || {
            Error::new(Kind::Input, "the proof does not enclose its entry").hint("make it with `log prove`")
        };
        let extra: Extra = serde_json::from_slice(proof.extra.as_deref().unwrap_or_default())
            .map_err(|cause| wrong().because(cause))?;
        let entry = BASE64.decode(extra.entry.as_bytes()).map_err(|cause| wrong().because(cause))?;
        let salt = extra
            .salt
            .map(|text| Salt::from_str(&text))
            .transpose()
            .map_err(|cause| wrong().because(cause))?;
        Ok(Self { entry, salt })
    }
}

/// The proof that the log has an entry, which encloses it.
pub(crate) fn proof(reader: &Reader, index: u64, salt: Option<Salt>) -> Result<Proof> {
    let mut proof = reader.prove(index)?;
    let entry = BASE64.encode(&reader.entry(index)?);
    let extra = Extra { entry, salt: salt.map(|salt| salt.hex()) };
    let extra = serde_json::to_vec(&extra)
        .map_err(|cause| Error::new(Kind::Bug, "writing a proof").because(cause))?;
    proof.extra = Some(extra);
    Ok(proof)
}
