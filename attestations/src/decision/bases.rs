//! Bases: allowed because their digests are listed, or because they were themselves reviewed and built as the rule asks.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::cache::Cache;
use super::evidence::{self, Checked};
use super::judge::{Judged, Met, judge};
use super::sort::{Sorted, sort};
use super::{Counted, Evidence, Few, Ignored, MAX_EVIDENCE, Reason, Unmet, builds};
use crate::digest::{Commit, Digest};
use crate::foreign::Foreign;
use crate::policy::{BuiltBases, Demands, Policy};
use crate::provenance::ResourceDescriptor as Resource;
use crate::reference::{Pinned, Reference};

/// The most bases of one image that are judged by their own evidence. More deny.
pub const MAX_BASES: usize = 16;

/// A base that its rule may allow by its own evidence, and where that may be asked for.
///
/// A place is only that: what is found there counts by its signatures, and by the digest that was signed.
#[derive(Debug, Clone)]
pub struct WantedBase {
    /// The digest of its manifest, as builders of the rule signed it.
    pub digest: Digest,
    /// Where their provenance says it came from, as far as the rule lets a node ask there.
    pub places: Vec<Pinned>,
    /// The other places, each with the reason why nobody asks there.
    pub not_asked: Few,
}

/// What was found out about a base.
#[derive(Debug, Clone)]
pub enum Gathered {
    /// Everything that is attached to it, wherever it could be asked for; none is an answer.
    Bundles(Vec<Evidence>),
    /// It could not be asked for, or not everywhere. That is never the same as there being none: there may be a veto.
    Nothing {
        /** Why. */
        why: String,
    },
}

/// A base that counted by its own evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltBase {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The commit it was built from.
    pub commit: Commit,
    /// The people whose reviews counted.
    pub reviews: Vec<String>,
    /// The builders whose builds counted.
    pub builds: Vec<String>,
    /// The statements that counted.
    #[serde(rename = "evidence")]
    pub counted: Vec<Counted>,
}

/// Which bases are allowed. Each is judged once, when the first build that stands on it is looked at.
pub(super) struct Bases<'a> {
    built: Option<Built<'a>>,
    judged: BTreeMap<Digest, Judged>,
}

/// What bases that are not listed are judged by.
#[derive(Clone, Copy)]
pub(super) struct Built<'a> {
    pub(super) rule: &'a BuiltBases,
    /// What is at hand about the image: a no about its base is one wherever it hangs.
    pub(super) at_hand: &'a [&'a Checked<'a>],
    pub(super) gathered: &'a BTreeMap<Digest, Gathered>,
    pub(super) cache: Option<&'a Cache>,
    pub(super) now: Timestamp,
}

impl<'a> Bases<'a> {
    /// Those that are listed, and those that are built as `built` asks.
    pub(super) fn new(built: Option<Built<'a>>) -> Self {
        Self { built, judged: BTreeMap::new() }
    }

    /// What stands against a base; nothing when it is allowed.
    pub(super) fn against(&mut self, policy: &Policy, demands: &Demands, base: Option<Digest>) -> Vec<Unmet> {
        let Some(digest) = base else { return vec![Unmet::Base { base }] };
        if policy.revoked.contains(&digest) {
            return vec![Unmet::Revoked { digest }];
        }
        if demands.bases.permits(&digest) {
            return Vec::new();
        }
        let Some(built) = self.built else { return vec![Unmet::Base { base }] };
        let judged = self.judged.entry(digest).or_insert_with(|| built.judge(policy, &digest));
        let lacking = judged.met.as_ref().err().cloned().unwrap_or_default();
        lacking.into_iter().map(|unmet| Unmet::OfBase { base: digest, unmet: Box::new(unmet) }).collect()
    }

    /// Which of these counted by their own evidence.
    pub(super) fn built(&self, bases: &BTreeSet<Option<Digest>>) -> Vec<BuiltBase> {
        let met = |(digest, judged): (&Digest, &Judged)| {
            let met = judged.met.as_ref().ok().filter(|_| bases.contains(&Some(*digest)))?;
            Some(told(*digest, met))
        };
        self.judged.iter().filter_map(met).collect()
    }

    /// What was not counted for the bases that lack something.
    pub(super) fn into_ignored(self) -> impl Iterator<Item = Ignored> {
        self.judged.into_iter().filter(|(_, judged)| judged.met.is_err()).flat_map(|(base, judged)| {
            let own = judged.ignored.into_iter().filter(|it| !it.reason.is_elsewhere());
            own.map(move |it| Ignored { reason: Reason::OfBase { base, reason: Box::new(it.reason) }, ..it })
        })
    }
}

impl Built<'_> {
    fn judge(self, policy: &Policy, digest: &Digest) -> Judged {
        let lacks = |unmet| Judged { met: Err(vec![unmet]), ignored: Vec::new() };
        let bundles = match self.gathered.get(digest) {
            Some(Gathered::Bundles(bundles)) if bundles.len() > MAX_EVIDENCE => {
                return lacks(Unmet::TooMuchEvidence { count: bundles.len() });
            }
            Some(Gathered::Bundles(bundles)) => bundles,
            Some(Gathered::Nothing { why }) => {
                return lacks(Unmet::BaseEvidence { reason: Foreign::new(why) });
            }
            None => return lacks(Unmet::BaseEvidence { reason: Foreign::new("nobody asked for it") }),
        };
        let own = evidence::check(policy, bundles, self.cache);
        let all = own.iter().chain(self.at_hand.iter().copied());
        let sorted = sort(policy, &self.rule.base, digest, all, self.now);
        // What this base stands on is listed, or it is not allowed: there is no further level.
        judge(policy, &self.rule.base, digest, sorted, &mut Bases::new(None))
    }
}

fn told(digest: Digest, met: &Met) -> BuiltBase {
    let (commit, builds) = (met.group().commit().clone(), met.group().names());
    BuiltBase { digest, commit, reviews: met.reviews().to_vec(), builds, counted: met.counted().to_vec() }
}

/// The bases of the image `digest` that are neither listed nor revoked, by the builds that may count. What strangers signed
/// leads a node nowhere.
pub(super) fn wanted(
    policy: &Policy,
    demands: &Demands,
    rule: &BuiltBases,
    digest: &Digest,
    sorted: &Sorted<'_>,
) -> Vec<WantedBase> {
    let mut found: BTreeMap<Digest, BTreeSet<&str>> = BTreeMap::new();
    for build in sorted.builds.iter().filter(|build| builds::consistent(build, digest).is_ok()) {
        let all = build.provenance.value().build_definition.resolved_dependencies.iter();
        for base in all.filter(|it| it.is(Resource::BASE)) {
            if let Some(named) = base.sha256()
                && !demands.bases.permits(&named)
                && !policy.revoked.contains(&named)
            {
                found.entry(named).or_default().insert(base.uri.as_deref().unwrap_or("nowhere"));
            }
        }
    }
    found.into_iter().map(|(digest, uris)| WantedBase::at(digest, &uris, rule)).collect()
}

impl WantedBase {
    fn at(digest: Digest, uris: &BTreeSet<&str>, rule: &BuiltBases) -> Self {
        let (mut places, mut not_asked) = (Vec::new(), BTreeSet::new());
        for uri in uris {
            match place(uri, digest) {
                Some(place) if rule.may_ask(place.repository()) => places.push(place),
                Some(place) => {
                    not_asked.insert(format!(
                        "{} is not in repositories of [algorithm.built_bases]",
                        place.repository()
                    ));
                }
                None => _ = not_asked.insert(format!("{uri} is in no registry")),
            }
        }
        Self { digest, places, not_asked: Few::of(&not_asked) }
    }
}

/// The place in a registry that a provenance names, if it is of this very digest.
fn place(uri: &str, digest: Digest) -> Option<Pinned> {
    let reference: Reference = uri.strip_prefix("oci://")?.parse().ok()?;
    reference.pin(digest).ok()
}
