//! Checkpoints (`c2sp.org/tlog-checkpoint`): what a log holds at one moment, signed.

use std::fmt;

use attestations::{Foreign, Signer};

use crate::error::{Error, Result};
use crate::merkle::{self, EMPTY_HASH, Hash};
use crate::note::{Note, Signature, VerifierKey};

/// What a log holds at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The hash of them all.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads the text of a checkpoint. Lines beyond the third are allowed, and mean nothing here.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::malformed("checkpoint", problem);
        let read = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).map_err(|_| wrong("its lines"))?;
        let size = read.size();
        if size > merkle::MAX_SIZE || (size == 0 && *read.hash() != EMPTY_HASH) {
            return Err(wrong("its number of entries, or the hash of none"));
        }
        Ok(Self { origin: read.origin().to_owned(), size, root: *read.hash() })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)
    }
}

/// A checkpoint with its signatures, of which none has been checked.
#[derive(Debug, Clone)]
pub struct SignedCheckpoint {
    note: Note,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    /// Parses a signed checkpoint.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let note = Note::parse(bytes)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { note, checkpoint })
    }

    /// Signs a checkpoint under the log's name, which is its origin.
    ///
    /// # Errors
    /// When the signer refuses.
    pub fn sign(checkpoint: Checkpoint, key: &VerifierKey, signer: &dyn Signer) -> Result<Self> {
        let text = checkpoint.to_string();
        let signature = key.sign(signer, text.as_bytes())?;
        Ok(Self { note: Note::new(text, vec![signature]), checkpoint })
    }

    /// What the log holds, if this key of the log signed it.
    ///
    /// # Errors
    /// When it did not, or it is a checkpoint of another log.
    pub fn verify(&self, key: &VerifierKey) -> Result<&Checkpoint> {
        if self.checkpoint.origin != key.name() {
            let found = Foreign::new(&self.checkpoint.origin);
            return Err(Error::OtherLog { found, wanted: key.name().to_owned() });
        }
        self.note.signed_by(key, |it| Ok((self.note.text().as_bytes().to_vec(), it.bytes())))?;
        Ok(&self.checkpoint)
    }

    /// What it says, which nobody has vouched for: for choosing a key, never for deciding.
    pub fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note that it is.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Leaves only the signatures that name one of these keys.
    pub fn keep(&mut self, keys: &[VerifierKey]) {
        self.note.keep(keys);
    }

    /// Adds signatures, such as those of witnesses.
    pub fn add(&mut self, signatures: Vec<Signature>) {
        self.note.add(signatures);
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, whose key it does not give.
    const EXAMPLE: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_text_is_read_and_written_as_it_is_and_nothing_else_is() {
        assert_eq!(Checkpoint::parse(EXAMPLE).unwrap().to_string(), EXAMPLE);
        Checkpoint::parse(&format!("{EXAMPLE}an extension\n")).unwrap();
        for (from, to) in [
            ("20852163", "020852163"),
            ("20852163", "-1"),
            ("20852163", "18446744073709551615"),
            ("20852163", "0"),
            ("q2I=", "q2J="),
            ("q2I=", "q2I"),
            ("example.com/behind-the-sofa", ""),
        ] {
            Checkpoint::parse(&EXAMPLE.replace(from, to)).unwrap_err();
        }
    }
}
