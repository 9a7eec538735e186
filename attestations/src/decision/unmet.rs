//! What is reported of a denial: each unmet condition, its code, and its form in JSON.

mod text;

use std::fmt;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{Asked, Few, Ignored};
use crate::bundle::BundleError;
use crate::digest::{Commit, Digest};
use crate::foreign::Foreign;
use crate::policy::Demands;
use crate::policy_release::FederationName;
use crate::review::{CountedOnce, Role};

/// A refusal with each unmet condition.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Denial {
    /// What was asked.
    pub question: Asked,
    /// Each unmet condition.
    pub unmet: Vec<Unmet>,
    /// The evidence that was not counted, and why.
    pub ignored: Vec<Ignored>,
}

/// One condition that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unmet {
    /// The reference names another digest than was found.
    OtherDigest {
        /** What was asked. */
        asked: String,
        /** What was found. */
        found: Digest,
    },
    /// The policy revokes it.
    Revoked {
        /** The digest. */
        digest: Digest,
    },
    /// No rule is about it.
    NoRule {
        /** Its repository. */
        repository: String,
    },
    /// The function is not allowed.
    Function {
        /** Its name. */
        function: Foreign,
    },
    /// The arguments are not what the function may be called with.
    Arguments {
        /** The function. */
        function: Foreign,
        /** The places that do not fit, and the keyword of the schema that each fails. */
        found: Few,
    },
    /// Databases that are not allowed.
    Database {
        /** Their labels. */
        found: Few,
    },
    /// Whoever asks may not.
    Caller {
        /** Who. */
        caller: Foreign,
    },
    /// A build is from a repository that is not allowed.
    Source {
        /** The repository. */
        source: Foreign,
    },
    /// A build stands on a base that is not allowed.
    Base {
        /** Its digest, where it has one. */
        base: Option<Digest>,
    },
    /// Too few builders.
    Builds {
        /** How many are wanted. */
        wanted: usize,
        /** Of whom. */
        from: Vec<String>,
        /** Who counted. */
        counted: Vec<String>,
        /** For which commit. */
        commit: Option<Commit>,
    },
    /// Too few reviewers.
    Reviews {
        /** In which role. */
        role: Role,
        /** How many are wanted. */
        wanted: usize,
        /** How many of what. */
        once: CountedOnce,
        /** Of whom. */
        from: Vec<String>,
        /** Who counted. */
        counted: Vec<String>,
        /** For which commit. */
        commit: Option<Commit>,
    },
    /// A reviewer said no.
    Rejected {
        /** Who. */
        by: String,
        /** To which commit. */
        commit: Commit,
    },
    /// A rebuild came out otherwise.
    FailedRebuild {
        /** Whose. */
        by: String,
    },
    /// Trusted builders say different things of one image.
    Disagreement {
        /** What each says. */
        stories: Vec<String>,
    },
    /// Somebody of the policy signed what cannot be read here: it may be a no.
    Unreadable {
        /** Who. */
        by: String,
        /** Where it came from. */
        origin: Foreign,
        /** Why it cannot be read. */
        reason: BundleError,
    },
    /// A build took in something that its materials do not name.
    IncompleteMaterials {
        /** Which steps, and why. */
        reasons: Few,
    },
    /// A build reached hosts that are not allowed.
    Hosts {
        /** Which, and in which step; whole URLs whose host cannot be read. */
        found: Few,
    },
    /// A build has records of packages that its builder could not read, or did not look for.
    IncompletePackages {
        /** Which, and why. */
        reasons: Few,
    },
    /// A build fetched packages that it must not.
    FetchedPackages {
        /** Which, in which step, and the pattern that forbids each. */
        found: Few,
    },
    /// A build lacks packages that it must have.
    MissingPackages {
        /** The patterns that nothing in it matches. */
        wanted: Few,
    },
    /// A build has packages that it must not have.
    ForbiddenPackages {
        /** Which, in which step, and the pattern that forbids each. */
        found: Few,
    },
    /// A build has packages whose names cannot be held against patterns.
    PackageNames {
        /** The names, and the steps. */
        found: Few,
    },
    /// Too few operators saw for themselves what entered the build.
    IndependentMaterials {
        /** How many are wanted. */
        wanted: usize,
        /** Of whom. */
        from: Vec<String>,
        /** Who counted. */
        counted: Vec<String>,
    },
    /// A builder asked the servers again, and they give another thing than was recorded.
    MaterialsDiffer {
        /** Whose finding it is. */
        by: String,
        /** What differs. */
        found: Few,
    },
    /// Builders that must have come to a verdict have not.
    MustHear {
        /** Which. */
        silent: Vec<String>,
    },
    /// Somebody chose parameters that the reviewed tree does not give.
    Parameters {
        /** Which, with their values. */
        found: Few,
    },
    /// Evidence that would count if it were younger.
    Stale {
        /** Which. */
        found: Few,
    },
    /// A newer image ran here before.
    OlderThanSeen {
        /** The time of this image's commit. */
        found: Timestamp,
        /** The time of the newest one's. */
        seen: Timestamp,
        /** The newest image that ran. */
        newest: Digest,
    },
    /// The policy has ended.
    PolicyExpired {
        /** When. */
        expired: Timestamp,
    },
    /// The clock is behind an earlier decision.
    ClockSetBack {
        /** What it says. */
        now: Timestamp,
        /** The latest moment at which something was decided. */
        seen: Timestamp,
    },
    /// More evidence than is looked at.
    TooMuchEvidence {
        /** How many bundles. */
        count: usize,
    },
    /// More bytes of evidence than are read for one decision.
    EvidenceSize {
        /** The bytes that there are at least. */
        size: u64,
        /** The most that are read. */
        limit: u64,
    },
    /// Evidence is listed and not there any more: it may have been a no.
    EvidenceGone {
        /** Where it should be. */
        origin: Foreign,
        /** What the list says it is. */
        kind: Foreign,
    },
    /// A base is not listed, and its own evidence lacks something.
    OfBase {
        /** Its digest. */
        base: Digest,
        /** What it lacks. */
        unmet: Box<Unmet>,
    },
    /// What is attached to a base could not be asked for. It stands in [`Unmet::OfBase`].
    BaseEvidence {
        /** Why. */
        reason: Foreign,
    },
    /// More bases than are judged by their own evidence.
    TooManyBases {
        /** How many. */
        count: usize,
    },
    /// A condition of the federation's policy.
    OfFederation {
        /** Whose. */
        federation: FederationName,
        /** What is not met. */
        unmet: Box<Unmet>,
    },
}

impl Unmet {
    pub(super) fn builds(demands: &Demands, commit: Option<Commit>, counted: Vec<String>) -> Self {
        Self::Builds { wanted: demands.builds.threshold, from: demands.builds.from.clone(), counted, commit }
    }

    /// Whether it says that too few said yes.
    pub(super) fn is_of_number(&self) -> bool {
        matches!(self, Self::Builds { .. } | Self::Reviews { .. } | Self::IndependentMaterials { .. })
    }

    /// Whether it is the same by every policy.
    pub(super) fn is_of_any_policy(&self) -> bool {
        matches!(
            self,
            Self::OtherDigest { .. }
                | Self::TooMuchEvidence { .. }
                | Self::EvidenceSize { .. }
                | Self::EvidenceGone { .. }
                | Self::ClockSetBack { .. }
        )
    }

    /// The kind of condition, for machines; it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherDigest { .. } => "other-digest",
            Self::Revoked { .. } => "revoked",
            Self::NoRule { .. } => "no-rule",
            Self::Function { .. } => "function",
            Self::Arguments { .. } => "arguments",
            Self::Database { .. } => "database",
            Self::Caller { .. } => "caller",
            Self::Source { .. } => "source",
            Self::Base { .. } => "base",
            Self::Builds { .. } => "builds",
            Self::Reviews { .. } => "reviews",
            Self::Rejected { .. } => "rejected",
            Self::FailedRebuild { .. } => "failed-rebuild",
            Self::Disagreement { .. } => "disagreement",
            Self::Unreadable { .. } => "unreadable",
            Self::IncompleteMaterials { .. } => "incomplete-materials",
            Self::Hosts { .. } => "hosts",
            Self::IncompletePackages { .. } => "incomplete-packages",
            Self::FetchedPackages { .. } => "fetched-packages",
            Self::MissingPackages { .. } => "missing-packages",
            Self::ForbiddenPackages { .. } => "forbidden-packages",
            Self::PackageNames { .. } => "package-names",
            Self::IndependentMaterials { .. } => "independent-materials",
            Self::MaterialsDiffer { .. } => "materials-differ",
            Self::MustHear { .. } => "must-hear",
            Self::Parameters { .. } => "parameters",
            Self::Stale { .. } => "stale",
            Self::OlderThanSeen { .. } => "older-than-seen",
            Self::PolicyExpired { .. } => "policy-expired",
            Self::ClockSetBack { .. } => "clock-set-back",
            Self::TooMuchEvidence { .. } => "too-much-evidence",
            Self::EvidenceSize { .. } => "evidence-size",
            Self::EvidenceGone { .. } => "evidence-gone",
            Self::OfBase { .. } => "built-base",
            Self::BaseEvidence { .. } => "base-evidence",
            Self::TooManyBases { .. } => "too-many-bases",
            Self::OfFederation { .. } => "federation-policy",
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wanted: {}; found: {}; remedy: {}", self.condition(), self.found(), self.remedy())
    }
}

impl Serialize for Unmet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Unmet", 4)?;
        if let Self::OfBase { base, unmet } = self {
            fields.serialize_field("base", base)?;
            fields.serialize_field("baseCode", unmet.code())?;
        }
        if let Self::OfFederation { federation, unmet } = self {
            fields.serialize_field("federation", federation)?;
            fields.serialize_field("federationCode", unmet.code())?;
        }
        if let Self::Reviews { role, .. } = self {
            fields.serialize_field("role", role)?;
        }
        fields.serialize_field("code", self.code())?;
        fields.serialize_field("condition", &self.condition())?;
        fields.serialize_field("found", &self.found())?;
        fields.serialize_field("remedy", &self.remedy())?;
        fields.end()
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "denied: {}", self.question)?;
        for unmet in &self.unmet {
            writeln!(f, "  {unmet}")?;
        }
        for it in self.ignored.iter().filter(|it| it.is_remark()) {
            writeln!(f, "  not counted: {it}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
