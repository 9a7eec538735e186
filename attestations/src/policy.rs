//! What a node admits: typed TOML, checked as a whole before anything is decided by it. See `docs/policy.md`.

mod age;
mod bases;
mod budget;
mod callers;
mod check;
mod demands;
mod functions;
mod json;
mod materials;
mod parameters;
mod pattern;
mod privileges;
mod read;
mod requests;
mod reviews;
mod schema;
mod text;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::Serialize;

use crate::digest::Digest;
use crate::keys::{KeyId, PublicKey};
use crate::policy_release::FederationName;
use crate::reference::{Reference, Repository};
use crate::review::{CountedOnce, OwnWork, Role};

pub(crate) use age::{MaxAge, Validity};
pub use age::{Moment, NotAMoment};
pub(crate) use bases::BuiltBases;
pub use budget::Budget;
pub use check::{Finding, Severity};
pub(crate) use functions::Arguments;
pub(crate) use materials::{Gaps, Materials};
pub(crate) use parameters::Parameters;
pub use pattern::Pattern;
pub use privileges::Privileges;
pub use requests::{AllowedRequest, AllowedRequests, Method, NotListed, RequestError};
pub use text::PolicyError;

/// Whose policy it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Issuer {
    /// The node's own.
    Node,
    /// A federation's.
    Federation {
        /// Its name.
        name: FederationName,
        /// The version of its release.
        version: NonZeroU32,
    },
}

impl Issuer {
    /// Whether both are the node's own, or both of one federation, in whatever version.
    pub(crate) fn is_same_body(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Node, Self::Node) => true,
            (Self::Federation { name, .. }, Self::Federation { name: other, .. }) => name == other,
            _ => false,
        }
    }
}

/// A policy that was read whole and makes sense.
#[derive(Debug, Clone)]
pub struct Policy {
    digest: Digest,
    issuer: Issuer,
    pub(crate) expires: Option<Timestamp>,
    /// Repositories that are asked for evidence besides the image's own.
    pub(crate) evidence: Vec<Repository>,
    pub(crate) revoked: Vec<Digest>,
    pub(crate) revoked_keys: Vec<RevokedKey>,
    pub(crate) people: BTreeMap<String, Person>,
    pub(crate) builders: BTreeMap<String, Builder>,
    pub(crate) rules: Vec<Rule>,
}

impl Policy {
    /// A policy with every field and its meaning, which parses.
    pub const EXAMPLE: &str = include_str!("policy/example.toml");

    /// Reads a policy.
    ///
    /// # Errors
    /// On empty text, unknown fields, and anything that contradicts itself; with line, column and a hint.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        read::read(text)
    }

    /// The digest of the text it was read from, which names it in what is recorded.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whose it is: the node's own, until a federation's signatures say otherwise.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(crate) fn issued_by(self, issuer: Issuer) -> Self {
        Self { issuer, ..self }
    }

    /// From when on this key is not believed, if that is so at `time`.
    pub(crate) fn key_revoked(&self, key: &PublicKey, time: Timestamp) -> Option<Timestamp> {
        let from = self.revoked_keys.iter().filter(|it| it.key == *key).map(|it| it.from).min()?;
        (from <= time).then_some(from)
    }

    /// Repositories that are asked for evidence about each image, besides the image's own.
    pub fn evidence_repositories(&self) -> &[Repository] {
        &self.evidence
    }

    /// The rule for this image: one by digest goes before one by name, that before the first pattern in the file.
    pub fn rule_for(&self, repository: &Repository, digest: &Digest) -> Option<&Rule> {
        let name = repository.to_string();
        let by = |test: &dyn Fn(&Selector) -> bool| self.rules.iter().find(|rule| test(&rule.selector));
        by(&|it| matches!(it, Selector::Digest(own) if own == digest))
            .or_else(|| by(&|it| matches!(it, Selector::Name(own) if own == repository)))
            .or_else(|| by(&|it| matches!(it, Selector::Pattern(own) if own.matches(&name))))
    }
}

impl Policy {
    /// Whether a rule may be about this reference, whatever a tag in it stands for: one by its name, or by its digest.
    pub(crate) fn may_be_about(&self, reference: &Reference) -> bool {
        let name = reference.repository().to_string();
        self.rules.iter().any(|rule| match &rule.selector {
            Selector::Name(own) => own == reference.repository(),
            Selector::Pattern(own) => own.matches(&name),
            Selector::Digest(own) => reference.digest() == Some(own),
        })
    }
}

/// A person whose reviews can count.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) organisation: Option<String>,
    pub(crate) emails: Vec<String>,
    /// The ids of the keys, by which commits that are signed with one of them are told.
    pub(crate) key_ids: Vec<KeyId>,
    pub(crate) keys: Vec<HeldKey>,
}

/// A builder whose builds can count.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(crate) id: String,
    pub(crate) operator: String,
    /// The build level of SLSA that its platform has, as the administrator found it: 1 to 3.
    pub(crate) slsa_level: u8,
    pub(crate) keys: Vec<HeldKey>,
}

/// A key, and when it is believed.
#[derive(Debug, Clone)]
pub(crate) struct HeldKey {
    pub(crate) key: PublicKey,
    pub(crate) valid: Validity,
}

/// A key that is not believed from some moment on.
#[derive(Debug, Clone)]
pub(crate) struct RevokedKey {
    pub(crate) key: PublicKey,
    pub(crate) from: Timestamp,
}

/// What one `[[algorithm]]` asks.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(crate) selector: Selector,
    /// What the image may do.
    pub(crate) privileges: Privileges,
    /// What is asked of the image.
    pub(crate) image: Demands,
    /// What is asked of a base that the image's demands do not list; none where only listed ones are allowed.
    pub(crate) built_bases: Option<BuiltBases>,
}

/// What is asked of the evidence about one image. For an algorithm and for a base it stands on it is the same, and one
/// function judges by it.
#[derive(Debug, Clone)]
pub(crate) struct Demands {
    pub(crate) source: Allowed<String>,
    pub(crate) bases: Allowed<Digest>,
    pub(crate) reviews: ReviewDemands,
    pub(crate) builds: Threshold,
    pub(crate) builds_age: Option<MaxAge>,
    /// How many operators must have seen for themselves what entered over the network.
    pub(crate) independent: usize,
    /// Builders whose word on the image is waited for.
    pub(crate) must_hear: Vec<String>,
    /// What may be chosen beside the reviewed tree.
    pub(crate) parameters: Parameters,
    pub(crate) failed_rebuild: FailedRebuild,
    /// What its materials must be; none where the rule does not ask.
    pub(crate) materials: Option<Materials>,
}

impl Rule {
    /// The name, pattern or digest that selects it, as the policy has it.
    pub fn selector(&self) -> String {
        match &self.selector {
            Selector::Name(name) => name.to_string(),
            Selector::Pattern(pattern) => pattern.to_string(),
            Selector::Digest(digest) => digest.to_string(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Selector {
    Name(Repository),
    Pattern(Pattern),
    Digest(Digest),
}

/// What a rebuild that came out otherwise means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FailedRebuild {
    /// The image is denied.
    Veto,
    /// Nothing.
    Ignore,
}

/// What is asked of the reviews of one commit.
#[derive(Debug, Clone)]
pub(crate) struct ReviewDemands {
    /// In each role, how many of whom.
    pub(crate) roles: BTreeMap<Role, Threshold>,
    pub(crate) counted_once: CountedOnce,
    pub(crate) own_work: OwnWork,
    /// How old an approval may be.
    pub(crate) max_age: Option<MaxAge>,
}

/// How many of whom.
#[derive(Debug, Clone)]
pub(crate) struct Threshold {
    pub(crate) threshold: usize,
    pub(crate) from: Vec<String>,
}

/// Anything, said explicitly, or only what is listed: an empty list allows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allowed<T> {
    Any,
    Only(Vec<T>),
}

/// As in the policy: `"any"`, or the list.
impl<T: serde::Serialize> serde::Serialize for Allowed<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Only(items) => serializer.collect_seq(items),
        }
    }
}

impl<T: PartialEq> Allowed<T> {
    /// What both allow.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, other) | (other, Self::Any) => other,
            (Self::Only(mut items), other) => {
                items.retain(|item| other.permits(item));
                Self::Only(items)
            }
        }
    }

    pub(crate) fn permits(&self, item: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(items) => items.contains(item),
        }
    }
}

/// One spelling for one repository: without `git+`, a trailing slash and a trailing `.git`.
pub(crate) fn normal_source(url: &str) -> String {
    let url = url.strip_prefix("git+").unwrap_or(url).trim_end_matches('/');
    url.strip_suffix(".git").unwrap_or(url).to_owned()
}
