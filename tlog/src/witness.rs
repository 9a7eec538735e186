//! What a log asks a witness and what the witness answers (`c2sp.org/tlog-witness`, `add-checkpoint`), as texts and decisions;
//! sending them and keeping what was cosigned is the caller's.

use std::fmt;

use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::error::{Error, Result};
use crate::merkle::{self, EMPTY_HASH, Hash, parse_hashes, parse_number};
use crate::note::{MAX_NOTE, VerifierKey};

const WHAT: &str = "request to a witness";
/// The most bytes of a request.
pub const MAX_REQUEST: usize = MAX_NOTE + (4 << 10);
/// The media type of the answer that tells which size is known.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// A request to cosign.
#[derive(Debug, Clone)]
pub struct AddCheckpoint {
    /// How many entries the log had when the witness cosigned it last; zero if it never did.
    pub old: u64,
    /// That the log of now begins with the log of then.
    pub proof: Vec<Hash>,
    /// What is to be cosigned.
    pub checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// Parses a request of at most [`MAX_REQUEST`] bytes.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |problem: &str| Error::malformed(WHAT, problem);
        if bytes.len() > MAX_REQUEST {
            return Err(wrong("it is too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not text in UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| wrong("it has no empty line"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = parse_number(WHAT, old.ok_or_else(|| wrong("its old size is missing"))?)?;
        let proof = parse_hashes(WHAT, lines)?;
        Ok(Self { old, proof, checkpoint: SignedCheckpoint::parse(checkpoint.as_bytes())? })
    }

    /// Whether a witness cosigns this: `keys` are those of the logs that it knows, `latest` what it cosigned last of the log
    /// with this origin. The caller keeps the answer before it is given out, and lets nobody else change it in between.
    ///
    /// # Errors
    /// [`Refusal`], with its HTTP status.
    pub fn judge(&self, keys: &[VerifierKey], latest: Option<&Checkpoint>) -> Result<Checkpoint, Refusal> {
        let asked = self.checkpoint.unverified();
        let mut known = keys.iter().filter(|key| key.name() == asked.origin).peekable();
        if known.peek().is_none() {
            return Err(Refusal::UnknownLog);
        }
        let mut is_signed = false;
        for key in known {
            match self.checkpoint.verify(key) {
                Ok(_) => is_signed = true,
                Err(Error::Unsigned(_)) => {}
                Err(_) => return Err(Refusal::Unsigned),
            }
        }
        if !is_signed {
            return Err(Refusal::Unsigned);
        }
        if self.old > asked.size {
            return Err(Refusal::Malformed);
        }
        let (size, root) = latest.map_or((0, EMPTY_HASH), |latest| (latest.size, latest.root));
        if self.old != size {
            return Err(Refusal::Conflict { size });
        }
        merkle::verify_consistency(&self.proof, asked.size, asked.root, size, root)
            .map_err(|_| Refusal::Inconsistent)?;
        Ok(asked.clone())
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has another form.
    #[error("the request is not of the form that c2sp.org/tlog-witness gives")]
    Malformed,
    /// No key of the log is known.
    #[error("the log is not known here")]
    UnknownLog,
    /// No key of the log signed it.
    #[error("the checkpoint is not signed by a key of the log that is known here")]
    Unsigned,
    /// The log starts from another state than the last one that was cosigned.
    #[error("the last checkpoint that was cosigned has {size} entries")]
    Conflict {
        /// How many entries that one has.
        size: u64,
    },
    /// The log does not go on from what was cosigned: it was cut, changed, or forked.
    #[error("the log does not go on from what was cosigned before")]
    Inconsistent,
}

impl Refusal {
    /// The HTTP status that the specification gives it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unsigned => 403,
            Self::UnknownLog => 404,
            Self::Conflict { .. } => 409,
            Self::Inconsistent => 422,
        }
    }
}
