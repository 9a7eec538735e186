//! Proofs beside what they are about (`c2sp.org/tlog-proof`): an entry's place in the log, and the checkpoint that covers it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::error::{Error, Result};
use crate::merkle::{self, Hash, parse_hashes, parse_number};
use crate::note::{MAX_NOTE, VerifierKey};

const FIRST: &str = "c2sp.org/tlog-proof@v1";
const WHAT: &str = "proof";
/// The most bytes of a proof: the extra data can hold an entry and what it is about.
pub const MAX_TEXT: usize = MAX_NOTE + (256 << 10);

/// A proof that an entry is in a log. Nothing in it has been verified.
#[derive(Debug, Clone)]
pub struct Proof {
    /// What the application adds. Nobody vouches for it.
    pub extra: Option<Vec<u8>>,
    /// Which entry.
    pub index: u64,
    /// From the entry's neighbour up to the root's child.
    pub hashes: Vec<Hash>,
    /// What the log held.
    pub checkpoint: SignedCheckpoint,
}

impl Proof {
    /// Parses a proof of at most [`MAX_TEXT`] bytes.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |problem: &str| Error::malformed(WHAT, problem);
        if bytes.len() > MAX_TEXT {
            return Err(wrong("it is too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not text in UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| wrong("it has no empty line"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST) {
            return Err(wrong("its first line"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let extra = extra.map(|line| STANDARD.decode(&line["extra ".len()..]));
        let extra = extra.transpose().map_err(|_| wrong("its extra data is not base64"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = parse_number(WHAT, index.ok_or_else(|| wrong("its index is missing"))?)?;
        let hashes = parse_hashes(WHAT, lines)?;
        Ok(Self { extra, index, hashes, checkpoint: SignedCheckpoint::parse(checkpoint.as_bytes())? })
    }

    /// Checks that this log signed a checkpoint that covers the entry, and gives that out.
    ///
    /// # Errors
    /// When it is not proven.
    pub fn verify(&self, entry: &[u8], key: &VerifierKey) -> Result<&Checkpoint> {
        let checkpoint = self.checkpoint.verify(key)?;
        let leaf = merkle::leaf_hash(entry);
        merkle::verify_inclusion(&self.hashes, checkpoint.size, checkpoint.root, self.index, leaf)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
