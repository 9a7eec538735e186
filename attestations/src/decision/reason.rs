//! Why one bundle does not count: a type, which code may ask; its words are for people alone.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::Unmet;
use crate::bundle::BundleError;
use crate::digest::{Commit, Digest, Tree};
use crate::foreign::Foreign;
use crate::review::Role;

/// Evidence that was not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Where it came from.
    pub origin: Foreign,
    /// Why it does not count.
    pub reason: Reason,
}

impl Ignored {
    pub(crate) fn new(origin: &str, reason: Reason) -> Self {
        Self { origin: Foreign::new(origin), reason }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.reason)
    }
}

/// Why evidence was not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It is no bundle, or its signed bytes are no statement that can be read here.
    #[error(transparent)]
    Unreadable(#[from] BundleError),
    /// Nobody known signed it.
    #[error("no key of this policy signed it")]
    UnknownKey,
    /// A builder signed a review.
    #[error("no key of the policy's people signed it, but that of the builder {builder}")]
    KeyOfBuilder {
        /// Its name in the policy.
        builder: String,
    },
    /// A person signed provenance.
    #[error("no key of the policy's builders signed it, but that of {person}")]
    KeyOfPerson {
        /// Their name in the policy.
        person: String,
    },
    /// A statement of another kind.
    #[error("a predicate that never counts: {0}")]
    OtherPredicate(Foreign),
    /// A review that is about more than one thing.
    #[error("a review of several subjects")]
    ReviewOfSeveral,
    /// A review whose subject has no well-formed commit id.
    #[error("a review of no commit")]
    ReviewOfNoCommit,
    /// A person whose reviews are not asked for in this role.
    #[error("{person} is no reviewer of this rule for {role}")]
    NoReviewer {
        /// Their name.
        person: Foreign,
        /// The role of their review.
        role: Role,
    },
    /// A review that is dated later than now.
    #[error("reviewed in the future, at {at}")]
    ReviewedLater {
        /// Its date.
        at: Timestamp,
    },
    /// A review that has come to its end.
    #[error("the review expired at {at}")]
    ReviewExpired {
        /// Its end.
        at: Timestamp,
    },
    /// A review that names how the commit is to be built, and the build is another one.
    #[error("it approves a build with another {what}")]
    OtherBuild {
        /// What differs.
        what: &'static str,
    },
    /// A review of a commit that nothing asked here stands on.
    #[error("it is about commit {commit}")]
    OtherCommit {
        /// The commit.
        commit: Commit,
    },
    /// A review that names another tree than the commit has.
    #[error("the tree it names is not the one that was built")]
    OtherTree,
    /// The reviewer wrote or committed what was reviewed.
    #[error("{person} is an author or committer of the commit")]
    Author {
        /// Their name.
        person: Foreign,
    },
    /// A review of changes since a commit that was rejected, lacks reviews itself, or has another tree.
    #[error("it covers the changes since {since} with the tree {tree}, which lacks reviews")]
    Since {
        /// The commit before.
        since: Commit,
        /// The tree that the review says it has.
        tree: Tree,
    },
    /// Provenance that is about more than one image.
    #[error("provenance of several subjects")]
    ProvenanceOfSeveral,
    /// A builder whose builds are not asked for.
    #[error("{builder} is no builder of this rule")]
    NoBuilder {
        /// Its name in the policy.
        builder: String,
    },
    /// Provenance that names another builder than signed it.
    #[error("signed by {builder}, but it says the builder is {claimed}")]
    OtherBuilder {
        /// Who signed it.
        builder: String,
        /// Who it says built.
        claimed: Foreign,
    },
    /// Provenance that is dated later than now.
    #[error("built in the future")]
    BuiltLater,
    /// A yes that is older than the rule allows.
    #[error("it is of {at}, which is too long ago for this rule")]
    TooOld {
        /// Its date.
        at: Timestamp,
    },
    /// A yes from outside the time in which the key is believed.
    #[error("it is of {at}, and the policy does not believe its key then")]
    KeyNotValid {
        /// Its date.
        at: Timestamp,
    },
    /// A yes by a key that is not believed any more.
    #[error("its key is revoked{}", since(.from))]
    KeyRevoked {
        /// From when on; none for all that it ever signed.
        from: Option<Timestamp>,
    },
    /// A yes that the policy revokes by its digest.
    #[error("the policy revokes this statement, {digest}")]
    StatementRevoked {
        /// The digest of the signed bytes.
        digest: Digest,
    },
    /// A no that was taken back.
    #[error("{by} withdrew it")]
    Withdrawn {
        /// Who.
        by: String,
    },
    /// The withdrawal of a no.
    #[error("it takes back another statement")]
    Withdrawal,
    /// A rebuild that came to nothing, which is neither a yes nor a no.
    #[error("a rebuild that could not be finished: {reason}")]
    IncompleteRebuild {
        /// Why not.
        reason: Foreign,
    },
    /// A build of something else.
    #[error("it is about another image")]
    OtherImage,
    /// A rebuild that does not speak for this image.
    #[error("a rebuild of another image, or one that differs")]
    OtherRebuild,
    /// Something entered the build that is not understood here.
    #[error("a dependency of an unknown kind")]
    UnknownDependency,
    /// Provenance whose source contradicts its parameters.
    #[error("its source is not the commit it says")]
    OtherSource,
    /// Provenance without the one tree of its commit.
    #[error("it does not name the one tree of its commit")]
    NoTree,
    /// Provenance that hides its base.
    #[error("it has layers of a base that it does not name")]
    NoBase,
    /// A build that lacks what the rule asks of it.
    #[error("{}", wanted(.0))]
    Lacks(Vec<Unmet>),
    /// What looks like evidence and is in a form that is not read.
    #[error("seen, and not used: {0}")]
    NotRead(Foreign),
    /// Evidence about a base.
    #[error("of base {base}: {reason}")]
    OfBase {
        /// The base's digest.
        base: Digest,
        /// Why it does not count for it.
        reason: Box<Reason>,
    },
}

impl Ignored {
    /// Whether people who ask why an image was denied should hear of it. What somebody known signed about other things,
    /// such as the list of the image's packages, is no answer to that.
    pub fn is_remark(&self) -> bool {
        !matches!(self.reason, Reason::OtherPredicate(_))
    }
}

impl Reason {
    /// Whether it is about something else altogether, which is no remark on what was asked.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::OtherImage | Self::OtherCommit { .. })
    }
}

fn since(from: &Option<Timestamp>) -> String {
    from.map_or_else(String::new, |from| format!(" from {from} on"))
}

fn wanted(unmet: &[Unmet]) -> String {
    let each: Vec<String> =
        unmet.iter().map(|it| format!("wanted {}: {}", it.condition(), it.found())).collect();
    each.join("; ")
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
