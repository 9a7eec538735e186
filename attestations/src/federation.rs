//! A policy that comes from a federation: whose keys are trusted, and when a release of theirs may be used. The rules, and
//! where they are from, are in `docs/federation.md`.
//!
//! Each rule gives out what the next one needs: [`Trust::check`] a text that enough keys signed, [`Signed::follow`] one that
//! does not go back, [`Followed::in_force`] one that has not expired and is a policy.

mod error;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::Bundle;
use crate::clock;
use crate::decision::{Evidence, Few};
use crate::digest::Digest;
use crate::foreign::Foreign;
use crate::policy::{Issuer, Policy};
use crate::policy_release::FederationName;
use crate::statement::Predicate;

pub use error::{ReleaseError, TrustError};
pub use trust::Trust;

/// The most bundles that are looked at beside one text.
pub const MAX_SIGNATURES: usize = 64;

/// What names one release of a federation. Two releases with one version are never the same federation's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edition {
    /// Its version.
    pub version: NonZeroU32,
    /// The digest of the policy's text.
    pub policy: Digest,
    /// When it expires.
    pub expires: Timestamp,
}

/// A text that enough keys of the federation signed as one release. Whether it may be used is not said yet.
#[derive(Debug, Clone)]
pub struct Signed<'a> {
    text: &'a str,
    federation: FederationName,
    edition: Edition,
    signers: BTreeSet<String>,
}

/// A release that is no step back.
#[derive(Debug, Clone)]
pub struct Followed<'a>(Signed<'a>);

/// A release by which can be decided now. Only [`Followed::in_force`] makes one.
///
/// ```compile_fail,E0451
/// fn forge(it: attestations::federation::Release, policy: attestations::Policy) -> attestations::federation::Release {
///     attestations::federation::Release { policy, ..it }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Release {
    federation: FederationName,
    policy: Policy,
    edition: Edition,
    signers: BTreeSet<String>,
}

impl Trust {
    /// Whether enough of these bundles are signatures of the federation over this text, as one release. Of several releases
    /// of one text the highest version is taken. One key counts once.
    ///
    /// # Errors
    /// When too few are, with why each other bundle does not count; and when one version was signed twice.
    pub fn check<'a>(
        &self,
        text: &'a str,
        bundles: &[Evidence],
        now: Timestamp,
    ) -> Result<Signed<'a>, ReleaseError> {
        if bundles.len() > MAX_SIGNATURES {
            return Err(ReleaseError::TooManySignatures { count: bundles.len() });
        }
        let policy = Digest::of(text.as_bytes());
        let mut editions: BTreeMap<Edition, BTreeSet<String>> = BTreeMap::new();
        let mut not_counted = BTreeSet::new();
        for bundle in bundles {
            match self.signature(&bundle.bytes, policy, now) {
                Ok((edition, signer)) => drop(editions.entry(edition).or_default().insert(signer.to_owned())),
                Err(why) => drop(not_counted.insert(format!("{}: {why}", Foreign::new(&bundle.origin)))),
            }
        }
        // The highest version comes last.
        let is_met = |(_, signers): &(&Edition, &BTreeSet<String>)| signers.len() >= self.threshold();
        let mut met = editions.iter().filter(is_met).rev();
        let Some((edition, signers)) = met.next() else {
            let most = editions.iter().max_by_key(|(edition, signers)| (signers.len(), edition.version));
            return Err(ReleaseError::Threshold {
                wanted: self.threshold(),
                keys: self.count(),
                version: most.map(|(edition, _)| edition.version),
                signed: most.map(|(_, signers)| signers.clone()).unwrap_or_default(),
                not_counted: Few::of(&not_counted),
            });
        };
        if let Some((other, _)) = met.next().filter(|(other, _)| other.version == edition.version) {
            return Err(ReleaseError::Equivocation { found: *edition, other: *other });
        }
        Ok(Signed { text, federation: self.name().clone(), edition: *edition, signers: signers.clone() })
    }

    /// The release that a bundle is a signature of, and the name of the key.
    fn signature(&self, bytes: &[u8], policy: Digest, now: Timestamp) -> Result<(Edition, &str), String> {
        let bundle = Bundle::parse(bytes).map_err(|cause| cause.to_string())?;
        let signed = self.keys().find_map(|(name, key)| Some((name, bundle.verify(key).ok()?)));
        let (signer, payload) = signed.ok_or("no key of the federation signed it")?;
        let statement = payload.statement().map_err(|cause| cause.to_string())?;
        let statement = statement.value();
        let Predicate::PolicyRelease(release) = &statement.predicate else {
            return Err(format!("{signer} signed something else than a policy"));
        };
        if release.federation != *self.name() {
            return Err(format!("{signer} signed a policy of {}", release.federation));
        }
        let [subject] = statement.subject.as_slice() else {
            return Err(format!("{signer} signed several things at once"));
        };
        if subject.sha256() != Some(policy) {
            return Err(format!("{signer} signed version {} of another text", release.version));
        }
        if clock::is_ahead(release.signed_on, now) {
            return Err(format!("{signer} signed it on {}, which is ahead of the clock", release.signed_on));
        }
        Ok((Edition { version: release.version, policy, expires: release.expires }, signer))
    }
}

impl<'a> Signed<'a> {
    /// Whether it is no step back from the highest version that was seen.
    ///
    /// # Errors
    /// When it has a lower version, or is another release under the same one.
    pub fn follow(self, seen: Option<&Edition>) -> Result<Followed<'a>, ReleaseError> {
        match seen {
            Some(seen) if seen.version > self.edition.version => {
                Err(ReleaseError::Rollback { found: self.edition.version, seen: seen.version })
            }
            Some(seen) if seen.version == self.edition.version && *seen != self.edition => {
                Err(ReleaseError::Equivocation { found: self.edition, other: *seen })
            }
            _ => Ok(Followed(self)),
        }
    }
}

impl Followed<'_> {
    /// Which release it is: from now on the highest that was seen, also where it cannot be used.
    pub fn edition(&self) -> &Edition {
        &self.0.edition
    }

    /// The release, if it can be decided by now.
    ///
    /// # Errors
    /// When it has expired, or its text is no policy.
    pub fn in_force(self, now: Timestamp) -> Result<Release, ReleaseError> {
        let Signed { text, federation, edition, signers } = self.0;
        let Edition { version, expires, .. } = edition;
        if expires <= now {
            return Err(ReleaseError::Expired { version, expired: expires });
        }
        let policy = Policy::parse(text).map_err(|cause| ReleaseError::NotAPolicy { version, cause })?;
        let policy = policy.issued_by(Issuer::Federation { name: federation.clone(), version });
        Ok(Release { federation, policy, edition, signers })
    }
}

impl Release {
    /// The policy, which knows whose it is.
    pub fn into_policy(self) -> Policy {
        self.policy
    }

    /// Whose it is.
    pub fn federation(&self) -> &FederationName {
        &self.federation
    }

    /// Which release it is.
    pub fn edition(&self) -> &Edition {
        &self.edition
    }

    /// The names of the keys that signed it, as the node's trust has them.
    pub fn signers(&self) -> &BTreeSet<String> {
        &self.signers
    }
}
