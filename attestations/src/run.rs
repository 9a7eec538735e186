//! The run predicate: what a node did with an image. Documented in `docs/predicates/run-v1.md`.
//!
//! It is made to be kept for ever and read by many, so nothing in it is about a person: inputs, results and callers are named
//! by digests with a salt ([`Salted`]), which whoever erases the salt turns into noise.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{Commit, Digest, NotADigest};
use crate::through_text::through_text;

/// The URI that names a record of a run.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/run/v1";
/// What every version of it begins with.
pub(crate) const PREDICATE_TYPES: &str = "https://countersign.dev/run/";

/// What a node signs about an image, which is the statement's one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// When it was written down.
    pub at: Timestamp,
    /// The number of the task in the node's queue, where it came through that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Event {
    /// The policy said no, and nothing ran.
    Denied(Denied),
    /// The image was admitted and is about to run.
    Started(Box<Started>),
    /// A run is over.
    Ended(Box<Ended>),
    /// A result left the node.
    Released(Released),
    /// Input, result, output and salt of a task were erased.
    Erased(Erased),
}

impl Event {
    /// The word that names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Started(_) => "started",
            Self::Ended(_) => "ended",
            Self::Released(_) => "released",
            Self::Erased(_) => "erased",
        }
    }
}

/// A no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Denied {
    /// The codes of the conditions that were not met. Their texts may name people, and stay out.
    pub unmet: Vec<String>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Salted>,
}

/// A run that is about to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Started {
    /// Why it may.
    pub admission: Admission,
    /// The function that is called.
    pub function: String,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Salted>,
    /// The labels of the databases that it sees.
    pub databases: Vec<String>,
    /// The input.
    pub input: Salted,
    /// What it may use.
    pub limits: RunLimits,
    /// What starts it.
    pub engine: Engine,
}

/// Why an image may run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Admission {
    /// The commit that it was built from.
    pub commit: Commit,
    /// What selects the rule that admitted it.
    pub rule: String,
    /// The digest of the policy that the rule stands in.
    pub policy: Digest,
    /// The digest of the federation's policy that admitted it, too, where the node has one of its own besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation_policy: Option<Digest>,
    /// The digests of the bundles about the image that counted.
    pub evidence: Vec<Digest>,
    /// What an administrator allowed for this run alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
    /// When that was decided.
    pub decided_at: Timestamp,
}

/// What an administrator allowed for one run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exception {
    /// An image that is older than one that ran before.
    OlderThanSeen,
}

/// What a run may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// Processes and threads at one time.
    pub pids: u64,
    /// Processors' worth of time.
    pub cpus: f64,
    /// Seconds from start to end.
    pub wall_seconds: u64,
    /// Bytes of the result.
    pub result: u64,
    /// Whether it may write to its own root.
    pub writable_root: bool,
}

/// What starts containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Engine {
    /// `oci` or `docker`.
    pub name: String,
    /// Its version, as it tells it.
    pub version: String,
    /// The version of the program that wrote this.
    pub runner: String,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ended {
    /// The entry of the log that says that it started.
    pub start: u64,
    /// When the container started.
    pub started_at: Timestamp,
    /// How it ended.
    pub ending: Ending,
    /// The result, when it ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Salted>,
    /// What it asked of the outside.
    pub egress: Egress,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Ending {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal.
    Signal(i32),
    /// Its time was over.
    TimedOut,
    /// It wanted more memory than it may have.
    OutOfMemory,
    /// It was told to.
    Cancelled,
    /// The policy came to revoke what it stood on.
    Revoked,
    /// The node failed to run it, or to get its result.
    Failed,
}

/// What a run asked of the outside: how often what was asked, without numbers and values in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    /// The requests.
    pub requests: Vec<RequestCount>,
    /// How many more there were, which are not in the list.
    pub unlisted: u64,
    /// Bytes of bodies towards the server.
    pub bytes_sent: u64,
    /// Bytes of bodies towards the algorithm.
    pub bytes_received: u64,
}

/// Requests that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestCount {
    /// Their method.
    pub method: String,
    /// Their path; `{}` stands for each part that names one thing.
    pub path: String,
    /// What became of them: the server's status, `refused`, or `failed`.
    pub outcome: String,
    /// How many there were.
    pub count: u64,
}

/// A result that left the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Released {
    /// The entry of the log that says how the run ended; none where an older program ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// The result.
    pub output: Salted,
}

/// That what a task held was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Erased {
    /// Why.
    pub reason: Erasure,
}

/// Why a task was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Erasure {
    /// Somebody asked for it.
    Asked,
    /// The time that the node keeps tasks for was over.
    Retention,
}

/// What makes digests say nothing to whoever does not have it: 32 random bytes, kept beside the data and erased with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// The salt of these bytes, which have to be random.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digits that it is written with.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// HMAC-SHA-256 of some data, with the salt as its key.
    pub fn digest(&self, data: &[u8]) -> Salted {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), data);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Salted(Digest::from_bytes(bytes))
    }
}

impl FromStr for Salt {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        Digest::from_hex(text).map(|digest| Self(*digest.as_bytes()))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// HMAC-SHA-256 of data with a [`Salt`], written `hmac-sha256:` and 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salted(Digest);

const SALTED: &str = "hmac-sha256:";

impl FromStr for Salted {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        Digest::from_hex(text.strip_prefix(SALTED).unwrap_or_default()).map(Self)
    }
}

impl fmt::Display for Salted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SALTED}{}", self.0.hex())
    }
}

impl fmt::Debug for Salted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

through_text!(Salted: NotADigest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salted_digest_is_the_hmac_of_rfc_4231_and_says_nothing_without_its_salt() {
        // RFC 4231, test case 1, whose key is 20 bytes: HMAC fills it up with zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let salted = Salt::from_bytes(key).digest(b"Hi There");
        let text = "hmac-sha256:b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(salted.to_string(), text);
        assert_eq!(text.parse::<Salted>().unwrap(), salted);
        assert_ne!(Salt::from_bytes([1; 32]).digest(b"Hi There"), salted);
        text.replace("hmac-", "").parse::<Salted>().unwrap_err();
        assert_eq!(format!("{:?}", Salt::from_bytes(key)), "Salt(…)");
    }

    #[test]
    fn each_event_is_read_as_it_is_written_and_unknown_fields_are_not() {
        let salted = Salt::from_bytes([7; 32]).digest(b"x");
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let ended = Ended {
            start: 3,
            started_at: at,
            ending: Ending::Exited(0),
            output: Some(salted),
            egress: Egress {
                requests: vec![RequestCount {
                    method: "GET".into(),
                    path: "/task/{}".into(),
                    outcome: "200".into(),
                    count: 2,
                }],
                ..Egress::default()
            },
        };
        let released = Released { end: Some(4), output: salted };
        for event in [
            Event::Ended(Box::new(ended)),
            Event::Released(released),
            Event::Erased(Erased { reason: Erasure::Asked }),
        ] {
            let run = Run { at, task: Some(1), event };
            let text = serde_json::to_string(&run).unwrap();
            assert_eq!(serde_json::from_str::<Run>(&text).unwrap(), run);
            serde_json::from_str::<Run>(&text.replacen("\"at\"", "\"more\":1,\"at\"", 1)).unwrap_err();
        }
    }
}
