//! The review predicate: "I read this commit". Documented in `docs/predicates/review-v1.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{Commit, Digest, Tree};
use crate::foreign::Foreign;
use crate::keys::KeyId;
use crate::through_text::through_text;

/// The URI that names a review.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/review/v1";
/// What every version of it begins with.
pub(crate) const PREDICATE_TYPES: &str = "https://countersign.dev/review/";

/// What a reviewer signs about a commit, which is the statement's one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Review {
    /// The commit's tree: what was read.
    pub tree: Tree,
    /// What the reviewer found.
    pub verdict: Verdict,
    /// What it was read for.
    #[serde(default, skip_serializing_if = "Role::is_code")]
    pub role: Role,
    /// How much was read.
    pub scope: Scope,
    /// Who read it. A name for people: who counts is decided by the key.
    pub reviewer: Person,
    /// Who wrote or committed what was read.
    pub authors: Vec<Person>,
    /// The SSH keys that commits of what was read are signed with.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub author_keys: BTreeSet<KeyId>,
    /// When.
    pub reviewed_on: Timestamp,
    /// From when on an approval does not count any more. A rejection has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<Timestamp>,
    /// How it is to be built, where the reviewer says so: an approval counts then for no other build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
    /// The lock of bases and packages that was read with it: an approval counts then only for builds that used exactly
    /// these. See [`crate::provenance::lock_digest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Digest>,
    /// Anything the reviewer wants to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How a commit is to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    /// The Dockerfile's path in the tree.
    pub dockerfile: String,
    /// The context's path in the tree; `.` is the whole.
    pub context: String,
    /// The stage to build, when it is not the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Arguments of the build.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// The bases by their names in the Dockerfile, where they are known by digest; none other may be used then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bases: Option<BTreeMap<String, Digest>>,
}

/// What a reviewer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It may run.
    Approved,
    /// It must not.
    Rejected,
}

/// How much of a commit was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Scope {
    /// Every file of the tree.
    Tree,
    /// What changed since another commit, which counts only if that one was reviewed as well.
    #[serde(rename_all = "camelCase")]
    Changes {
        /// The commit reviewed before.
        since: Commit,
        /// Its tree: what the changes were held against.
        since_tree: Tree,
    },
}

/// What a commit is read for. Which roles there are is the policy's choice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Role(String);

impl Role {
    /// The longest name, in bytes.
    const MAX_LENGTH: usize = 32;

    /// What the code does: the role of a review that names none.
    pub fn code() -> Self {
        Self("code".to_owned())
    }

    /// Whether it is [`Role::code`].
    pub fn is_code(&self) -> bool {
        self.0 == "code"
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Role {
    fn default() -> Self {
        Self::code()
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(name: &str) -> Result<Self, RoleError> {
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_name = name.starts_with(|it: char| it.is_ascii_lowercase()) && name.bytes().all(known);
        match is_name && name.len() <= Self::MAX_LENGTH {
            true => Ok(Self(name.to_owned())),
            false => Err(RoleError(Foreign::new(name))),
        }
    }
}

through_text!(Role: RoleError);

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no role's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: write a small letter, then small letters, digits and `-`, 32 at most")]
pub struct RoleError(Foreign);

/// A person as git knows them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Their name.
    pub name: String,
    /// Their address.
    pub email: String,
}

/// Whether a review counts of what its reviewer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnWork {
    /// It does.
    Counts,
    /// It does not.
    Ignored,
}

/// What counts once, however many approvals come from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountedOnce {
    /// Each person.
    #[default]
    Person,
    /// Each organisation, however many of its people approve.
    Organisation,
}

impl CountedOnce {
    /// Several of them.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Person => "reviewer(s)",
            Self::Organisation => "organisation(s)",
        }
    }
}
