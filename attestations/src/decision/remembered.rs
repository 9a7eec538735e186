//! What a node remembers of earlier decisions, and what of this one is to be remembered.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::evidence::Checked;
use super::{Evidence, Unmet};
use crate::clock;
use crate::digest::{Commit, Digest, Tree};
use crate::policy::Policy;

/// What a node remembers that bears on one decision.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Every no, and every withdrawal of one, that it has ever seen about what is asked; listed or not any more.
    pub noes: Vec<Evidence>,
    /// The newest image that it ran by the same rule under the same name.
    pub newest: Option<Seen>,
    /// What becomes of one that is older.
    pub older: Older,
    /// The latest moment at which it decided anything.
    pub latest: Option<Timestamp>,
}

/// An image that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The time of its commit, in seconds since 1970.
    pub commit_time: i64,
}

/// What becomes of an image that is older than one that ran before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Older {
    /// It is denied.
    #[default]
    Denied,
    /// The administrator said that it may run.
    Allowed,
}

/// What a no is about, as it is looked for again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// An image, by its manifest's digest.
    Image(Digest),
    /// A commit.
    Commit(Commit),
    /// A commit's tree.
    Tree(Tree),
    /// A signed statement, by the digest of its bytes.
    Statement(Digest),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(digest) => write!(f, "image:{digest}"),
            Self::Commit(commit) => write!(f, "commit:{commit}"),
            Self::Tree(tree) => write!(f, "tree:{tree}"),
            Self::Statement(digest) => write!(f, "statement:{digest}"),
        }
    }
}

/// A no of somebody whom the policy knows, or the withdrawal of one: to be kept, whatever becomes of where it was found.
#[derive(Debug, Clone)]
pub struct No<'a> {
    /// The bundle.
    pub bundle: &'a [u8],
    /// The digest of the signed bytes.
    pub statement: Digest,
    /// All that it is about.
    pub about: BTreeSet<About>,
}

impl Remembered {
    /// What stands against any yes at `now`: a clock that was set back, a policy that has ended.
    pub(super) fn against(&self, policy: &Policy, now: Timestamp) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if let Some(seen) = self.latest.filter(|latest| clock::is_ahead(*latest, now)) {
            unmet.push(Unmet::ClockSetBack { now, seen });
        }
        if let Some(expired) = policy.expires.filter(|expires| *expires <= now) {
            unmet.push(Unmet::PolicyExpired { expired });
        }
        unmet
    }

    /// Whether this image is older than the newest that ran.
    pub(super) fn older(&self, digest: &Digest, commit_time: i64) -> Option<Unmet> {
        let newest =
            self.newest.filter(|newest| commit_time < newest.commit_time && newest.digest != *digest)?;
        (self.older == Older::Denied).then_some(Unmet::OlderThanSeen {
            found: moment(commit_time),
            seen: moment(newest.commit_time),
            newest: newest.digest,
        })
    }
}

pub(super) fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN)
}

/// Everything that the evidence at hand is about: a no to any of it would bear on the decision.
pub(super) fn about(checked: &[Checked<'_>], images: impl Iterator<Item = Digest>) -> BTreeSet<About> {
    images.map(About::Image).chain(checked.iter().flat_map(Checked::about)).collect()
}

/// The noes among them.
pub(super) fn noes<'a>(checked: &[Checked<'a>]) -> Vec<No<'a>> {
    checked.iter().filter_map(Checked::no).collect()
}
