//! in-toto Statement v1 (in-toto/attestation `spec/v1/statement.md`). Version 0.1, which has the same four fields, is read too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::digest::{Commit, Digest};
use crate::foreign::Foreign;
use crate::incomplete::{self, Incomplete};
use crate::policy_release::{self, PolicyRelease};
use crate::provenance::{self, Provenance};
use crate::review::{self, Review};
use crate::run::{self, Run};
use crate::withdrawal::{self, Withdrawal};

/// The payload type of a statement in an envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The type of statements as they are written here.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The type before it, in which `cosign attest` still signs.
const STATEMENT_TYPE_0_1: &str = "https://in-toto.io/Statement/v0.1";

/// What the predicate types of this project begin with, provenance apart.
const OURS: [&str; 5] = [
    review::PREDICATE_TYPES,
    incomplete::PREDICATE_TYPES,
    withdrawal::PREDICATE_TYPES,
    run::PREDICATE_TYPES,
    policy_release::PREDICATE_TYPES,
];

/// What somebody says, and what about.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it is about; matched by digest only, never by name.
    pub subject: Vec<Subject>,
    /// What is said.
    pub predicate: Predicate,
}

/// One thing a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// A name for people. Nothing is decided by it.
    #[serde(default)]
    pub name: String,
    /// Its digests by algorithm: `sha256`, `gitCommit`.
    #[serde(deserialize_with = "crate::digest::set")]
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// An image, by the digest of its manifest.
    pub fn image(name: impl Into<String>, digest: &Digest) -> Self {
        Self { name: name.into(), digest: BTreeMap::from([("sha256".to_owned(), digest.hex())]) }
    }

    /// A signed statement, by the digest of its bytes.
    pub fn statement(name: impl Into<String>, payload: &Digest) -> Self {
        Self::image(name, payload)
    }

    /// A policy, by the digest of its text.
    pub fn policy(text: &str) -> Self {
        Self::image("policy.toml", &Digest::of(text.as_bytes()))
    }

    /// A commit of a repository.
    pub fn commit(repository: impl Into<String>, commit: &Commit) -> Self {
        Self {
            name: repository.into(),
            digest: BTreeMap::from([("gitCommit".to_owned(), commit.to_string())]),
        }
    }

    /// The SHA-256 digest, if it has a well-formed one.
    pub fn sha256(&self) -> Option<Digest> {
        Digest::from_hex(self.digest.get("sha256")?).ok()
    }

    /// The commit, if it has a well-formed one.
    pub fn git_commit(&self) -> Option<Commit> {
        self.digest.get("gitCommit")?.parse().ok()
    }
}

/// What a statement says, by its predicate type.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// Somebody read a commit.
    Review(Box<Review>),
    /// Somebody built an image.
    Provenance(Box<Provenance>),
    /// Somebody could not repeat a build.
    Incomplete(Incomplete),
    /// Somebody takes back what they signed.
    Withdrawal(Withdrawal),
    /// A node wrote down what it did. It never counts for admission.
    Run(Box<Run>),
    /// A federation issues a policy. It never counts for admission.
    PolicyRelease(PolicyRelease),
    /// Something else, kept as it came. It never counts for admission.
    Other {
        /// Its type.
        predicate_type: String,
        /// Its content.
        value: Value,
    },
}

impl Predicate {
    /// The review, if it is one.
    pub fn review(&self) -> Option<&Review> {
        match self {
            Self::Review(review) => Some(review),
            _ => None,
        }
    }

    /// The provenance, if it is some.
    pub fn provenance(&self) -> Option<&Provenance> {
        match self {
            Self::Provenance(provenance) => Some(provenance),
            _ => None,
        }
    }

    /// The provenance alone, if it is some.
    pub fn into_provenance(self) -> Option<Provenance> {
        match self {
            Self::Provenance(provenance) => Some(*provenance),
            _ => None,
        }
    }

    /// The record of a run, if it is one.
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Run(run) => Some(run),
            _ => None,
        }
    }

    /// The URI that names the kind of predicate.
    pub fn predicate_type(&self) -> &str {
        match self {
            Self::Review(_) => review::PREDICATE_TYPE,
            Self::Provenance(_) => provenance::PREDICATE_TYPE,
            Self::Incomplete(_) => incomplete::PREDICATE_TYPE,
            Self::Withdrawal(_) => withdrawal::PREDICATE_TYPE,
            Self::Run(_) => run::PREDICATE_TYPE,
            Self::PolicyRelease(_) => policy_release::PREDICATE_TYPE,
            Self::Other { predicate_type, .. } => predicate_type,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Box<RawValue>,
}

impl Statement {
    /// The bytes that are signed.
    ///
    /// # Errors
    /// When a number in it is not the same for every reader; otherwise never for the predicates defined here.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StatementError> {
        let predicate = match &self.predicate {
            Predicate::Review(review) => serde_json::to_value(review)?,
            Predicate::Provenance(provenance) => serde_json::to_value(provenance)?,
            Predicate::Incomplete(incomplete) => serde_json::to_value(incomplete)?,
            Predicate::Withdrawal(withdrawal) => serde_json::to_value(withdrawal)?,
            Predicate::Run(run) => serde_json::to_value(run)?,
            Predicate::PolicyRelease(release) => serde_json::to_value(release)?,
            Predicate::Other { value, .. } => value.clone(),
        };
        if let Some(number) = inexact(&predicate) {
            return Err(StatementError::Number(number));
        }
        let wire = Wire {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: self.subject.clone(),
            predicate_type: self.predicate.predicate_type().to_owned(),
            predicate: serde_json::value::to_raw_value(&predicate)?,
        };
        Ok(serde_json::to_vec(&wire)?)
    }

    /// Parses a statement. This checks no signature: use [`crate::Bundle::verify`] for foreign bytes.
    ///
    /// A predicate of a type known here must have exactly its shape; what it is cannot be guessed from its content.
    ///
    /// # Errors
    /// When the JSON is not a Statement v1 or v0.1, has no subject, or its predicate is not of the shape its type names.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StatementError> {
        let wire: Wire = serde_json::from_slice(bytes)?;
        if ![STATEMENT_TYPE, STATEMENT_TYPE_0_1].contains(&wire.statement_type.as_str()) {
            return Err(StatementError::Type(Foreign::new(&wire.statement_type)));
        }
        if wire.subject.is_empty() {
            return Err(StatementError::NoSubject);
        }
        // The typed forms are parsed from the text itself, where a key that stands twice is an error.
        let text = wire.predicate.get();
        let predicate = match wire.predicate_type.as_str() {
            review::PREDICATE_TYPE => Predicate::Review(serde_json::from_str(text)?),
            incomplete::PREDICATE_TYPE => Predicate::Incomplete(serde_json::from_str(text)?),
            withdrawal::PREDICATE_TYPE => Predicate::Withdrawal(serde_json::from_str(text)?),
            run::PREDICATE_TYPE => Predicate::Run(Box::new(serde_json::from_str(text)?)),
            policy_release::PREDICATE_TYPE => Predicate::PolicyRelease(serde_json::from_str(text)?),
            provenance::PREDICATE_TYPE => match provenance::build_type(text)?.as_str() {
                provenance::BUILD_TYPE => Predicate::Provenance(Box::new(serde_json::from_str(text)?)),
                later if later.starts_with(provenance::BUILD_TYPES) => {
                    return Err(StatementError::Version(Foreign::new(later)));
                }
                _ => Predicate::Other {
                    value: serde_json::from_str(text)?,
                    predicate_type: wire.predicate_type,
                },
            },
            later if OURS.iter().any(|ours| later.starts_with(ours)) => {
                return Err(StatementError::Version(Foreign::new(later)));
            }
            _ => Predicate::Other { value: serde_json::from_str(text)?, predicate_type: wire.predicate_type },
        };
        Ok(Self { subject: wire.subject, predicate })
    }
}

/// The largest integer that every reader of JSON reads as it stands (RFC 8259, section 6; I-JSON, RFC 7493): many hold numbers
/// as 64-bit floats.
const LARGEST_INTEGER: u64 = (1 << 53) - 1;

/// A number in `value` that some readers round.
fn inexact(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let size = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            size.is_some_and(|size| size > LARGEST_INTEGER).then(|| number.to_string())
        }
        Value::Array(items) => items.iter().find_map(inexact),
        Value::Object(fields) => fields.values().find_map(inexact),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

/// Whether signed bytes may be a statement of a kind known here, in whatever version. Where two fields contradict each other,
/// and where an envelope of statements holds no JSON, it may be anything.
pub(crate) fn may_be_ours(payload_type: &str, payload: &[u8]) -> bool {
    let Ok(kind) = serde_json::from_slice::<Kind>(payload) else {
        return payload_type == PAYLOAD_TYPE || serde_json::from_slice::<Value>(payload).is_ok();
    };
    let named = kind.predicate_type.as_ref().and_then(Value::as_str).unwrap_or_default();
    let build = kind.predicate.pointer("/buildDefinition/buildType").and_then(Value::as_str);
    OURS.iter().any(|ours| named.starts_with(ours))
        || build.is_some_and(|build| build.starts_with(provenance::BUILD_TYPES))
}

/// What tells the kind of a statement. A field that stands twice is an error.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "predicateType", default)]
    predicate_type: Option<Value>,
    #[serde(default)]
    predicate: Value,
}

/// Why bytes are no statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not JSON, or not of the shape that its types promise.
    #[error("not a well-formed statement: {0}")]
    Json(Foreign),
    /// Another version of Statement, or something else.
    #[error("`{0}` is not {STATEMENT_TYPE}")]
    Type(Foreign),
    /// A review or a build in a version that is not known here.
    #[error("`{0}` is of a version that this program cannot read; a newer one may")]
    Version(Foreign),
    /// A statement about nothing.
    #[error("the statement has no subject")]
    NoSubject,
    /// A statement that is to be signed holds an integer beyond 2^53 - 1.
    #[error("{0} is beyond 2^53 - 1, and readers of JSON differ in such numbers")]
    Number(String),
}

impl From<serde_json::Error> for StatementError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(Foreign::error(&error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn statement(value: Value) -> Statement {
        let subject = vec![Subject::image("x", &Digest::of(b"x"))];
        Statement {
            subject,
            predicate: Predicate::Other { predicate_type: "https://example.com/x".into(), value },
        }
    }

    #[test]
    fn no_number_is_signed_that_some_readers_round() {
        for exact in [json!(LARGEST_INTEGER), json!(-(LARGEST_INTEGER as i64)), json!(1e300), json!("2^60")] {
            assert!(statement(json!({ "a": [exact.clone()] })).to_bytes().is_ok(), "{exact}");
        }
        for rounded in [json!(1_u64 << 53), json!(-(1_i64 << 53)), json!(i64::MIN), json!(u64::MAX)] {
            let found = statement(json!({ "a": [{ "b": rounded.clone() }] })).to_bytes();
            assert_eq!(found, Err(StatementError::Number(rounded.to_string())));
        }
    }
}
