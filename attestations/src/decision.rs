//! Whether an image may run: one policy, one question, the evidence at hand, one moment.

mod asked;
mod bases;
mod builds;
mod cache;
pub mod count;
mod counted;
mod evidence;
mod few;
mod joint;
mod judge;
mod levels;
mod materials;
mod noticed;
mod parameters;
mod privileges;
mod reason;
mod remembered;
mod reviews;
mod sort;
mod unmet;
mod weigh;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::call::Call;
use crate::digest::{Commit, Digest};
use crate::policy::{Issuer, Policy, Privileges, Rule};
use crate::reference::{Pinned, Reference};

use bases::{Bases, Built};
use evidence::Checked;

pub use asked::Asked;
pub use bases::{BuiltBase, Gathered, MAX_BASES, WantedBase};
pub use cache::Cache;
pub use counted::Counted;
pub use evidence::is_signed;
pub use few::Few;
pub use levels::Level;
pub use noticed::{GoneEvidence, Noticed, UnusedEvidence};
pub use reason::{Ignored, Reason};
pub use remembered::{About, No, Older, Remembered, Seen};
pub use unmet::{Denial, Unmet};
pub use weigh::{Weighed, Weight};

/// The most bundles that are looked at. More deny: a choice among them could leave out a veto.
pub const MAX_EVIDENCE: usize = 512;

/// What is asked.
#[derive(Debug, Clone, Serialize)]
pub struct Question {
    /// The reference as it was asked for.
    pub asked: Reference,
    /// The digest of the manifest it resolved to.
    pub digest: Digest,
    /// What is to be done with it, as far as it is known.
    #[serde(flatten)]
    pub call: Call,
}

/// One bundle as it came, and where from.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Where it came from, for people.
    pub origin: String,
    /// The bundle's bytes.
    pub bytes: Vec<u8>,
}

/// The answer.
#[derive(Debug, Clone)]
pub enum Decision {
    /// It may run.
    Admitted(Admitted),
    /// It may not, for every reason inside.
    Denied(Denial),
}

/// The proof that every condition of the policy is met for one digest. Only [`Case::decide`] makes it, which [`decide`]
/// calls too.
///
/// ```compile_fail,E0451
/// fn forge(it: attestations::Admitted, pinned: attestations::Pinned) -> attestations::Admitted {
///     attestations::Admitted { pinned, ..it }
/// }
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Admitted {
    pinned: Pinned,
    commit: Commit,
    config_digest: Digest,
    privileges: Box<Privileges>,
    rule: String,
    reviews: Vec<String>,
    builds: Vec<String>,
    bases: Vec<BuiltBase>,
    policy: Digest,
    evidence: Vec<Counted>,
    commit_time: Timestamp,
    older: Older,
    levels: Vec<Level>,
    decided_at: Timestamp,
    issuer: Issuer,
    /// The yes of the federation's policy, where the node has one of its own besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    also: Option<Box<Admitted>>,
    #[serde(skip)]
    ignored: Vec<Ignored>,
}

impl Admitted {
    /// The one image that may run.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// The commit it was built from.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The digest of its config, as every counted builder has it.
    pub fn config_digest(&self) -> &Digest {
        &self.config_digest
    }

    /// What it may do: what the rule allows, and of what was asked for that alone.
    pub fn privileges(&self) -> &Privileges {
        &self.privileges
    }

    /// What selects the rule that admitted it.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The people whose reviews counted.
    pub fn reviews(&self) -> &[String] {
        &self.reviews
    }

    /// The builders whose builds counted.
    pub fn builds(&self) -> &[String] {
        &self.builds
    }

    /// The bases that no list names and that counted by their own evidence.
    pub fn bases(&self) -> &[BuiltBase] {
        &self.bases
    }

    /// Whose policy admitted it.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The digest of the policy that admitted it.
    pub fn policy(&self) -> &Digest {
        &self.policy
    }

    /// The statements about the image that counted; those about its bases stand with these.
    pub fn counted(&self) -> &[Counted] {
        &self.evidence
    }

    /// The time of its commit.
    pub fn commit_time(&self) -> Timestamp {
        self.commit_time
    }

    /// Whether it was allowed although a newer image ran before.
    pub fn older(&self) -> Older {
        self.older
    }

    /// What it has of SLSA's levels.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// What was not counted, and why.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// When this was decided.
    pub fn decided_at(&self) -> Timestamp {
        self.decided_at
    }
}

/// Decides by `policy`, where nothing was asked about bases: then those that are listed are allowed, and no others. The order
/// of the evidence changes nothing, and evidence that does not count is reported. The proof is made by [`Case::decide`].
pub fn decide(policy: &Policy, question: &Question, evidence: &[Evidence], now: Timestamp) -> Decision {
    Case::open(policy, question, evidence, now).decide(&BTreeMap::new(), &Remembered::default())
}

/// The noes in evidence, and the withdrawals of noes, as [`Case::noes`] finds them: for evidence about a base, whose signatures
/// the decision then need not check again.
pub fn noes<'a>(policy: &'a Policy, evidence: &'a [Evidence], cache: &Cache) -> Vec<No<'a>> {
    remembered::noes(&evidence::check(policy, evidence, Some(cache)))
}

/// One question with the evidence about its image, of which every signature is checked; not decided yet.
///
/// Only now is known which bases trusted builders name. Whoever decides asks for the evidence about those of [`Case::bases`] and
/// gives it to [`Case::decide`]; what was not asked for is an unmet condition.
pub struct Case<'a> {
    policy: &'a Policy,
    question: &'a Question,
    now: Timestamp,
    count: usize,
    rule: Option<&'a Rule>,
    /// None where no rule is about the image or the evidence is too much.
    checked: Option<Vec<Checked<'a>>>,
    bases: Vec<WantedBase>,
    cache: Option<&'a Cache>,
    noticed: Noticed,
}

impl<'a> Case<'a> {
    /// Checks the signatures of the evidence about the image.
    pub fn open(
        policy: &'a Policy,
        question: &'a Question,
        evidence: &'a [Evidence],
        now: Timestamp,
    ) -> Self {
        Self::open_with(policy, question, evidence, now, None)
    }

    /// As [`Case::open`]; a signature that `cache` knows is not checked again.
    pub fn open_with(
        policy: &'a Policy,
        question: &'a Question,
        evidence: &'a [Evidence],
        now: Timestamp,
        cache: Option<&'a Cache>,
    ) -> Self {
        let rule = policy.rule_for(question.asked.repository(), &question.digest);
        let few = rule.filter(|_| evidence.len() <= MAX_EVIDENCE);
        let checked = few.map(|_| evidence::check(policy, evidence, cache));
        let (count, bases, noticed) = (evidence.len(), Vec::new(), Noticed::default());
        let mut case = Self { policy, question, now, count, rule, checked, bases, cache, noticed };
        case.bases = case.wanted();
        case
    }

    /// The same, knowing what was noticed besides the bundles.
    #[must_use]
    pub fn noticing(self, noticed: Noticed) -> Self {
        Self { noticed, ..self }
    }

    fn wanted(&self) -> Vec<WantedBase> {
        let (Some(rule), Some(checked)) = (self.rule, &self.checked) else { return Vec::new() };
        let Some(built) = &rule.built_bases else { return Vec::new() };
        let sorted = sort::sort(self.policy, &rule.image, &self.question.digest, checked, self.now);
        bases::wanted(self.policy, &rule.image, built, &self.question.digest, &sorted)
    }

    /// The bases whose own evidence decides. None where the rule does not ask, and where there are more than [`MAX_BASES`]:
    /// those deny whatever is found.
    pub fn bases(&self) -> &[WantedBase] {
        if self.bases.len() > MAX_BASES { &[] } else { &self.bases }
    }

    /// All that the evidence is about. A no to any of it would bear on the decision, wherever that no was seen.
    pub fn about(&self) -> BTreeSet<About> {
        let images = self.bases.iter().map(|base| base.digest).chain([self.question.digest]);
        remembered::about(self.checked.as_deref().unwrap_or_default(), images)
    }

    /// The noes in the evidence, and the withdrawals of noes: a node keeps them, since whoever they are about may be able to
    /// take them away from where they were found.
    pub fn noes(&self) -> Vec<No<'a>> {
        remembered::noes(self.checked.as_deref().unwrap_or_default())
    }

    /// What selects the rule that the decision is made by.
    pub fn rule(&self) -> Option<String> {
        self.rule.map(Rule::selector)
    }

    /// What is remembered and not at hand as well.
    fn kept<'b>(&'b self, remembered: &'b Remembered) -> Vec<Checked<'b>> {
        let known: BTreeSet<&[u8]> = self.checked.iter().flatten().map(|one| one.bytes).collect();
        let mut kept = evidence::check(self.policy, &remembered.noes, self.cache);
        kept.retain(|one| !known.contains(one.bytes));
        kept
    }

    /// Decides, with what was found out about the bases, and what the node remembers.
    pub fn decide(&self, gathered: &BTreeMap<Digest, Gathered>, remembered: &Remembered) -> Decision {
        let Self { policy, question, now, count, rule, checked, bases: wanted, .. } = self;
        let (now, count) = (*now, *count);
        let mut unmet = remembered.against(policy, now);
        let pinned = question.asked.pin(question.digest);
        if pinned.is_err() {
            unmet.push(Unmet::OtherDigest { asked: question.asked.to_string(), found: question.digest });
        }
        if policy.revoked.contains(&question.digest) {
            unmet.push(Unmet::Revoked { digest: question.digest });
        }
        let denied = |unmet, ignored| {
            let unmet = policy.deny(unmet);
            Decision::Denied(Denial { question: (*question).clone().into(), unmet, ignored })
        };
        let Some(rule) = rule else {
            unmet.push(Unmet::NoRule { repository: question.asked.repository().to_string() });
            return denied(unmet, Vec::new());
        };
        unmet.extend(rule.privileges.unmet(&question.call));
        unmet.extend(self.noticed.unmet());
        let Some(checked) = checked else {
            unmet.push(Unmet::TooMuchEvidence { count });
            return denied(unmet, Vec::new());
        };
        if wanted.len() > MAX_BASES {
            unmet.push(Unmet::TooManyBases { count: wanted.len() });
            return denied(unmet, Vec::new());
        }
        let kept = self.kept(remembered);
        let at_hand: Vec<&Checked<'_>> = checked.iter().chain(&kept).collect();
        let built = rule.built_bases.as_ref().map(|rule| Built {
            rule,
            at_hand: &at_hand,
            gathered,
            cache: self.cache,
            now,
        });
        let mut bases = Bases::new(built);
        let sorted = sort::sort(policy, &rule.image, &question.digest, at_hand.iter().copied(), now);
        let judged = judge::judge(policy, &rule.image, &question.digest, sorted, &mut bases);
        if let Ok(met) = &judged.met {
            unmet.extend(remembered.older(&question.digest, met.group().commit_time()));
        }
        match (pinned, judged.met) {
            (Ok(pinned), Ok(met)) if unmet.is_empty() => Decision::Admitted(Admitted {
                pinned,
                commit: met.group().commit().clone(),
                config_digest: met.group().config_digest(),
                privileges: Box::new(rule.privileges.granted(&question.call)),
                rule: rule.selector(),
                reviews: met.reviews().to_vec(),
                builds: met.group().names(),
                bases: bases.built(met.group().bases()),
                policy: policy.digest(),
                evidence: met.counted().to_vec(),
                commit_time: remembered::moment(met.group().commit_time()),
                older: remembered.older,
                levels: levels::of(policy, &rule.image, met.group(), met.reviews()),
                decided_at: now,
                issuer: policy.issuer().clone(),
                also: None,
                ignored: judged.ignored.into_iter().chain(self.noticed.ignored()).collect(),
            }),
            (_, met) => {
                unmet.extend(met.err().unwrap_or_default());
                let mut ignored = judged.ignored;
                ignored.extend(self.noticed.ignored());
                ignored.extend(bases.into_ignored());
                ignored.sort_by_cached_key(ToString::to_string);
                denied(unmet, ignored)
            }
        }
    }
}
