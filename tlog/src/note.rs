//! Signed notes (`c2sp.org/signed-note`): a text, an empty line, and a line for each signature.

use std::fmt;

use attestations::{Algorithm, Digest, Foreign, PublicKey, Signer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};

/// The most bytes of a note.
pub const MAX_NOTE: usize = 64 << 10;
/// The most signatures of a note.
const MAX_SIGNATURES: usize = 128;
/// The most bytes of the name of a key.
const MAX_NAME: usize = 255;
/// What a line with a signature begins with.
const DASH: &str = "\u{2014} ";

/// What a key is for, which its verifier key says by one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Signing a log's checkpoints (`0x01`).
    Log,
    /// Cosigning the checkpoints of others, with the time (`0x04`).
    Witness,
}

impl Purpose {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }
}

/// A public key with the name it signs under, as `name+id+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    purpose: Purpose,
    key: PublicKey,
}

impl VerifierKey {
    /// A key under a name.
    ///
    /// # Errors
    /// When the name holds blanks, `+` or control characters, or the key is no Ed25519 key.
    pub fn new(name: &str, purpose: Purpose, key: &PublicKey) -> Result<Self> {
        if !is_name(name) {
            let problem = format!("`{}` is no name: blanks and `+` are not allowed", Foreign::new(name));
            return Err(Error::malformed("verifier key", problem));
        }
        match key.algorithm() {
            Algorithm::Ed25519 => Ok(Self { name: name.to_owned(), purpose, key: key.clone() }),
            other => Err(Error::Algorithm(other)),
        }
    }

    /// Parses `name+id+base64`.
    ///
    /// # Errors
    /// When it has another form, is of another kind, or its id is not that of its name and key.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::malformed("verifier key", problem);
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("it is not of the form name+id+base64"));
        };
        let bytes = STANDARD.decode(body).map_err(|_| wrong("its last part is not base64"))?;
        let (purpose, raw) = match bytes.split_first() {
            Some((0x01, raw)) => (Purpose::Log, raw),
            Some((0x04, raw)) => (Purpose::Witness, raw),
            _ => return Err(wrong("only Ed25519 keys, of types 1 and 4, are known here")),
        };
        let key = PublicKey::from_raw(Algorithm::Ed25519, raw).map_err(|cause| wrong(&cause.to_string()))?;
        let new = Self::new(name, purpose, &key)?;
        if hex::encode(new.id()) != id {
            return Err(wrong("its id is not that of its name and key"));
        }
        Ok(new)
    }

    /// The name it signs under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The key itself.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What its signatures are found by. A hint, never proof.
    pub fn id(&self) -> [u8; 4] {
        let digest = Digest::of(&[self.name.as_bytes(), b"\n", &self.body()].concat());
        let [a, b, c, d, ..] = *digest.as_bytes();
        [a, b, c, d]
    }

    fn body(&self) -> Vec<u8> {
        let spki = self.key.spki_der();
        // An Ed25519 key is the last 32 bytes of its SubjectPublicKeyInfo (RFC 8410).
        let raw = &spki[spki.len().saturating_sub(32)..];
        [&[self.purpose.byte()], raw].concat()
    }

    /// Signs under this name.
    pub(crate) fn sign(&self, signer: &dyn Signer, message: &[u8]) -> Result<Signature> {
        self.sign_with(signer, message, &[])
    }

    /// Signs under this name; `prefix` stands before the signature's own bytes.
    pub(crate) fn sign_with(&self, signer: &dyn Signer, message: &[u8], prefix: &[u8]) -> Result<Signature> {
        let bytes = [prefix, &signer.sign(message)?].concat();
        Ok(Signature { name: self.name.clone(), id: self.id(), bytes })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(self.body()))
    }
}

/// One signature of a note, which nobody has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl Signature {
    /// The bytes of the signature itself.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it says that this key made it.
    pub fn names(&self, key: &VerifierKey) -> bool {
        self.name == key.name && self.id == key.id()
    }

    fn parse(line: &str) -> Result<Self> {
        let wrong = || Error::malformed("signed note", "a line that is no signature");
        let (name, body) = line.strip_prefix(DASH).and_then(|it| it.split_once(' ')).ok_or_else(wrong)?;
        let bytes = STANDARD.decode(body).map_err(|_| wrong())?;
        match bytes.split_first_chunk::<4>() {
            Some((id, bytes)) if is_name(name) && !bytes.is_empty() => {
                Ok(Self { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
            }
            _ => Err(wrong()),
        }
    }

    /// Parses lines with signatures alone, as a witness answers with.
    ///
    /// # Errors
    /// When a line is none, or there are too many.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        let all: Vec<_> = text.lines().take(MAX_SIGNATURES + 1).map(Self::parse).collect::<Result<_>>()?;
        if all.len() > MAX_SIGNATURES {
            return Err(Error::malformed("signed note", format!("more than {MAX_SIGNATURES} signatures")));
        }
        Ok(all)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{DASH}{} {}", self.name, STANDARD.encode([&self.id[..], &self.bytes].concat()))
    }
}

/// A note that is well formed. Nothing in it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// A text with signatures over it. The text ends with a line feed.
    pub(crate) fn new(text: String, signatures: Vec<Signature>) -> Self {
        Self { text, signatures }
    }

    /// Parses a note of at most [`MAX_NOTE`] bytes.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |problem: &str| Error::malformed("signed note", problem);
        if bytes.len() > MAX_NOTE {
            return Err(wrong("it has more than 64 KiB"));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| wrong("it is not text in UTF-8"))?;
        if all.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(wrong("it holds control characters"));
        }
        let (text, signatures) = all.rsplit_once("\n\n").ok_or_else(|| wrong("it has no empty line"))?;
        if text.is_empty() || !signatures.ends_with('\n') {
            return Err(wrong("its text or its last line is missing"));
        }
        let signatures = Signature::parse_all(signatures)?;
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// What is signed, with its last line feed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Leaves only the signatures that name one of these keys.
    pub(crate) fn keep(&mut self, keys: &[VerifierKey]) {
        self.signatures.retain(|signature| keys.iter().any(|key| signature.names(key)));
    }

    /// Adds signatures; of one that is there already, the newer stays.
    pub(crate) fn add(&mut self, new: Vec<Signature>) {
        self.signatures.retain(|old| !new.iter().any(|it| it.name == old.name && it.id == old.id));
        self.signatures.extend(new);
    }

    /// The signature by this key, over a message that is made from the text and the signature. One that names the key and is
    /// not its own makes the whole note worthless, as the specification has it.
    pub(crate) fn signed_by<'a>(
        &'a self,
        key: &VerifierKey,
        message: impl Fn(&'a Signature) -> Result<(Vec<u8>, &'a [u8])>,
    ) -> Result<&'a Signature> {
        let mut found = None;
        for signature in self.signatures.iter().filter(|signature| signature.names(key)) {
            let (message, bytes) = message(signature)?;
            key.key.verify(&message, bytes).map_err(|_| Error::Forged(key.name.clone()))?;
            found = Some(signature);
        }
        found.ok_or_else(|| Error::Unsigned(key.name.clone()))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| write!(f, "{signature}"))
    }
}

/// Whether a text may be the name of a key.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.chars().any(|it| it.is_whitespace() || it.is_control() || it == '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
                        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn verify(note: &str, key: &VerifierKey) -> Result<()> {
        let note = Note::parse(note.as_bytes())?;
        note.signed_by(key, |it| Ok((note.text().as_bytes().to_vec(), it.bytes()))).map(|_| ())
    }

    #[test]
    fn the_example_of_the_specification_verifies_and_no_other_does() {
        let key = VerifierKey::parse(KEY).unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(Note::parse(NOTE.as_bytes()).unwrap().to_string(), NOTE);
        verify(NOTE, &key).unwrap();
        assert!(matches!(verify(&NOTE.replace("This", "That"), &key), Err(Error::Forged(_))));
        assert!(matches!(verify(&NOTE.replace("foo Uw", "fou Uw"), &key), Err(Error::Unsigned(_))));
    }

    #[test]
    fn what_is_no_note_or_key_is_refused() {
        for text in [
            "",
            "\n\n",
            "text\n",
            "text\n\n",
            "text\n\n\u{2014} a AAAA\n",
            "a\tb\n\n",
            "text\n\n- a AAAAAAA=\n",
        ] {
            Note::parse(text.as_bytes()).unwrap_err();
        }
        Note::parse(&vec![b'a'; MAX_NOTE + 1]).unwrap_err();
        for key in ["", "a+b", "a b+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"] {
            VerifierKey::parse(key).unwrap_err();
        }
        VerifierKey::parse(&KEY.replace("530d", "530e")).unwrap_err();
        VerifierKey::parse(&KEY.replace("+Ae", "+Be")).unwrap_err();
    }
}
