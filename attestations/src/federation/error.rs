//! Why a federation's policy is not used. Nothing is admitted meanwhile.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use jiff::Timestamp;

use super::{Edition, MAX_SIGNATURES};
use crate::decision::Few;
use crate::keys::KeyError;
use crate::policy::PolicyError;

/// Why a text does not say whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// It is not of the form.
    #[error("{0}")]
    Form(String),
    /// It is too large.
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// It is of another version.
    #[error("version {0} is not known: 1 is")]
    Version(u32),
    /// The threshold asks nothing, or what nobody can meet.
    #[error(
        "a threshold of {threshold} with {keys} keys: it is at least 1 and at most the keys, which are at most {most}"
    )]
    Threshold {
        /** The threshold. */
        threshold: usize,
        /** How many keys there are. */
        keys: usize,
        /** The most keys there can be. */
        most: usize,
    },
    /// A key cannot be used.
    #[error("the key of {holder}: {cause}")]
    Key {
        /** Whose. */
        holder: String,
        /** Why not. */
        cause: KeyError,
    },
    /// One key has two names, and would count twice.
    #[error("the key of {holder} stands under another name, too: one key counts once")]
    KeyTwice {
        /** One of the names. */
        holder: String,
    },
}

/// Why a release is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Too few keys signed this text as one release.
    #[error("{} of {keys} keys have to sign it as one release, and {} did{}", .wanted, told(.signed, *.version), reasons(.not_counted))]
    Threshold {
        /** How many are wanted. */
        wanted: usize,
        /** Of how many. */
        keys: usize,
        /** The version that most signed, if any did. */
        version: Option<NonZeroU32>,
        /** Who did. */
        signed: BTreeSet<String>,
        /** Why other bundles do not count. */
        not_counted: Few,
    },
    /// More bundles than are looked at.
    #[error("{count} bundles lie beside it: {MAX_SIGNATURES} are the most")]
    TooManySignatures {
        /** How many. */
        count: usize,
    },
    /// An older release than one that was seen.
    #[error("rollback: it is version {found}, and version {seen} was here before")]
    Rollback {
        /** The version at hand. */
        found: NonZeroU32,
        /** The highest that was seen. */
        seen: NonZeroU32,
    },
    /// Two releases with one version.
    #[error(
        "equivocation: version {} is {} until {}, and also {} until {}",
        found.version, found.policy, found.expires, other.policy, other.expires
    )]
    Equivocation {
        /** The one at hand. */
        found: Edition,
        /** The other one. */
        other: Edition,
    },
    /// It has expired: whoever delivers it may be holding a newer one back.
    #[error("freeze: version {version} expired at {expired}, and no newer release is here")]
    Expired {
        /** Its version. */
        version: NonZeroU32,
        /** When. */
        expired: Timestamp,
    },
    /// What was signed is no policy.
    #[error("version {version} is signed, and no policy: {cause}")]
    NotAPolicy {
        /** Its version. */
        version: NonZeroU32,
        /** Why not. */
        cause: PolicyError,
    },
}

impl ReleaseError {
    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Threshold { .. } => {
                "copy policy.toml and its bundles anew, or let another key holder run `countersign-builder policy sign` \
                 on the same text with the same version and expiry"
            }
            Self::TooManySignatures { .. } => "remove the bundles of earlier releases",
            Self::Rollback { .. } => {
                "get the newest release; where the federation says that the higher version was a mistake: \
                 `countersign-runner memory forget-release NAME`"
            }
            Self::Equivocation { .. } => {
                "ask the federation's key holders which one they mean, and let them sign that with the next version"
            }
            Self::Expired { .. } => {
                "get the newest release; where there is none, let the key holders sign the text again with the next \
                 version and a later expiry"
            }
            Self::NotAPolicy { .. } => {
                "let the key holders sign a text that this program can read, with the next version; or use a newer \
                 countersign-runner"
            }
        }
    }
}

/// Who signed which version.
fn told(signed: &BTreeSet<String>, version: Option<NonZeroU32>) -> String {
    let names: Vec<&str> = signed.iter().map(String::as_str).collect();
    match version {
        Some(version) => format!("{} ({}, version {version})", names.len(), names.join(", ")),
        None => "none".to_owned(),
    }
}

fn reasons(not_counted: &Few) -> String {
    match not_counted.is_empty() {
        true => String::new(),
        false => format!("; not counted: {not_counted}"),
    }
}
