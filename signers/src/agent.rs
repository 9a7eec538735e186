//! Keys that an SSH agent holds (draft-ietf-sshm-ssh-agent): it signs, and the key never leaves it.
//!
//! An agent signs the very bytes that it is given, so what it makes with Ed25519 and P-256 is what a key file would have
//! made. Keys of security keys (`sk-…`) sign a counter and the touch as well, which no verifier of signed statements knows.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attestations::Foreign;
use attestations::keys::{Algorithm, PublicKey, SignError, Signer};

use super::Error;

/// How a key in an agent is named where a key file would be: alone, or with a public key's file or a comment after it.
const PREFIX: &str = "ssh-agent:";
/// The most bytes of one answer, as OpenSSH's own agent has it.
const MAX_ANSWER: usize = 256 << 10;
/// The most keys of an agent.
const MAX_KEYS: usize = 1024;
/// An agent may ask a person first (`ssh-add -c`).
const PATIENCE: Duration = Duration::from_secs(120);

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Which of an agent's keys is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The only one that can be used.
    Only,
    /// The one with this public key, which is in a file; or with this comment.
    Named(String),
}

/// Which key of an agent `path` names; none where it is the path of a file.
pub(crate) fn choice(path: &Path) -> Option<Choice> {
    let name = path.to_str()?;
    let name = name.strip_prefix(PREFIX).or_else(|| (name == "ssh-agent").then_some(""))?;
    Some(if name.is_empty() { Choice::Only } else { Choice::Named(name.to_owned()) })
}

/// Finds the key in the agent at `socket`, which is what `SSH_AUTH_SOCK` says.
pub(crate) fn open(choice: &Choice, socket: Option<OsString>) -> Result<Box<dyn Signer>, Error> {
    let socket = socket.filter(|it| !it.is_empty()).map(PathBuf::from);
    let socket = socket.ok_or_else(|| problem("SSH_AUTH_SOCK does not name one".to_owned()))?;
    let keys = identities(&socket).map_err(|cause| problem(cause.to_string()))?;
    let wanted = match choice {
        Choice::Only => None,
        Choice::Named(name) => Some((name, key_in(name)?)),
    };
    let is_meant = |one: &&Identity| match &wanted {
        None => one.key().is_ok(),
        Some((_, Some(key))) => one.key().is_ok_and(|own| own.spki_der() == key.spki_der()),
        Some((name, None)) => one.comment == **name,
    };
    let found: Vec<&Identity> = keys.iter().filter(is_meant).collect();
    match found[..] {
        [one] => {
            let public = one.key().map_err(problem)?;
            Ok(Box::new(AgentKey { socket, blob: one.blob.clone(), public }))
        }
        [] => Err(problem(format!("it has no such key; it has {}", listed(&keys)))),
        _ => {
            Err(problem(format!("it has several such keys: {}; name one as {PREFIX}FILE.pub", listed(&keys))))
        }
    }
}

/// The public key in a file, where the name is that of one.
fn key_in(name: &str) -> Result<Option<PublicKey>, Error> {
    let path = Path::new(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = super::read(path)?;
    let malformed = |cause: attestations::KeyError| Error::Malformed {
        path: path.to_owned(),
        problem: cause.to_string(),
    };
    PublicKey::parse(&text).map(Some).map_err(malformed)
}

fn listed(keys: &[Identity]) -> String {
    let each: Vec<String> = keys
        .iter()
        .map(|one| {
            let comment = Foreign::new(&one.comment);
            match one.key() {
                Ok(key) => format!("`{comment}` ({})", key.algorithm()),
                Err(reason) => format!("`{comment}` ({reason})"),
            }
        })
        .collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

fn problem(problem: String) -> Error {
    Error::Agent { problem }
}

/// A key as the agent lists it.
#[derive(Debug)]
struct Identity {
    blob: Vec<u8>,
    comment: String,
}

impl Identity {
    /// The public key, or why it cannot be used.
    fn key(&self) -> Result<PublicKey, String> {
        let kind = Fields(&self.blob).next().map_err(|_| "it cannot be read".to_owned())?;
        let shown = Foreign::new(&String::from_utf8_lossy(kind));
        match kind {
            b"ssh-ed25519" | b"ecdsa-sha2-nistp256" => {
                PublicKey::from_ssh_blob(&self.blob).map_err(|cause| cause.to_string())
            }
            [b's', b'k', b'-', ..] => Err(format!(
                "{shown}: a security key signs a counter and the touch as well, which verifiers of signed statements \
                 do not know"
            )),
            _ => Err(format!("{shown}: only Ed25519 and P-256 can be used")),
        }
    }
}

/// A key in an agent. It is asked anew for each signature.
struct AgentKey {
    socket: PathBuf,
    blob: Vec<u8>,
    public: PublicKey,
}

impl Signer for AgentKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |cause: io::Error| SignError(format!("the SSH agent: {cause}"));
        let mut request = vec![SIGN_REQUEST];
        push(&mut request, &self.blob);
        push(&mut request, message);
        request.extend([0; 4]);
        let answer = ask(&self.socket, &request).map_err(failed)?;
        let signature = signature_of(&answer, self.public.algorithm()).map_err(failed)?;
        // What the agent says is checked: a wrong signature is not handed out.
        self.public
            .verify(message, &signature)
            .map_err(|_| SignError("the SSH agent gave a signature that is not of this key".to_owned()))?;
        Ok(signature)
    }
}

/// The signature in an answer: for P-256 as DER, and otherwise as it is.
fn signature_of(answer: &[u8], algorithm: Algorithm) -> io::Result<Vec<u8>> {
    let rest = answer.strip_prefix(&[SIGN_RESPONSE]).ok_or_else(|| bad("it refuses to sign"))?;
    let mut fields = Fields(Fields(rest).next()?);
    match (algorithm, fields.next()?) {
        (Algorithm::Ed25519, b"ssh-ed25519") => Ok(fields.next()?.to_vec()),
        (Algorithm::EcdsaP256, b"ecdsa-sha2-nistp256") => {
            let mut pair = Fields(fields.next()?);
            // SSH writes these numbers as DER does; each is short enough for a length of one byte.
            let integer = |bytes: &[u8]| [&[0x02, bytes.len() as u8], bytes].concat();
            let (r, s) = (pair.next()?, pair.next()?);
            if r.len() > 33 || s.len() > 33 {
                return Err(bad("its signature is too long"));
            }
            let both = [integer(r), integer(s)].concat();
            Ok([&[0x30, both.len() as u8], &both[..]].concat())
        }
        _ => Err(bad("its signature is of another kind than the key")),
    }
}

fn identities(socket: &Path) -> io::Result<Vec<Identity>> {
    let answer = ask(socket, &[REQUEST_IDENTITIES])?;
    let rest = answer.strip_prefix(&[IDENTITIES_ANSWER]).ok_or_else(|| bad("it does not list its keys"))?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("its list is cut off"))?;
    let count = u32::from_be_bytes(*count) as usize;
    if count > MAX_KEYS {
        return Err(bad("it has too many keys"));
    }
    let mut fields = Fields(rest);
    let mut keys = Vec::new();
    for _ in 0..count {
        let (blob, comment) = (fields.next()?.to_vec(), fields.next()?);
        keys.push(Identity { blob, comment: String::from_utf8_lossy(comment).into_owned() });
    }
    Ok(keys)
}

/// Sends one request, and reads the answer.
fn ask(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut framed = Vec::new();
    push(&mut framed, request);
    stream.write_all(&framed)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_ANSWER {
        return Err(bad("its answer is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Fields with their lengths before them.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> io::Result<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or_else(|| bad("its answer is cut off"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (field, rest) = rest.split_at_checked(length).ok_or_else(|| bad("its answer is cut off"))?;
        self.0 = rest;
        Ok(field)
    }
}
