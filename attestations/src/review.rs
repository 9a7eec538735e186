//! The review predicate: "I read this commit". Documented in `docs/predicates/review-v1.md`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{Commit, Tree};

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
    /// How much was read.
    pub scope: Scope,
    /// Who read it. A name for people: who counts is decided by the key.
    pub reviewer: Person,
    /// Who wrote what was read.
    pub authors: Vec<Person>,
    /// When.
    pub reviewed_on: Timestamp,
    /// Anything the reviewer wants to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
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
    Changes {
        /// The commit reviewed before.
        since: Commit,
    },
}

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
