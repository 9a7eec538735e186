//! Whether an image may run: one policy, one question, the evidence at hand, one moment.

mod builds;
mod evidence;
mod few;
mod materials;
mod reviews;
mod unmet;

use jiff::Timestamp;
use serde::Serialize;

use crate::digest::{Commit, Digest};
use crate::policy::{Allowed, Policy};
use crate::reference::{Pinned, Reference};

pub use few::Few;
pub use unmet::{Denial, Ignored, Unmet};

/// The most bundles that are looked at. More deny: a choice among them could leave out a veto.
pub const MAX_EVIDENCE: usize = 512;

/// What is asked.
#[derive(Debug, Clone, Serialize)]
pub struct Question {
    /// The reference as it was asked for.
    pub asked: Reference,
    /// The digest of the manifest it resolved to.
    pub digest: Digest,
    /// The function to be called, where it is known.
    pub function: Option<String>,
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

/// The proof that every condition of the policy is met for one digest. Only [`decide`] makes it.
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
    functions: Allowed<String>,
    rule: String,
    reviews: Vec<String>,
    builds: Vec<String>,
    decided_at: Timestamp,
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

    /// Whether this function may be called.
    pub fn permits(&self, function: &str) -> bool {
        self.functions.permits(&function.to_owned())
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

    /// When this was decided.
    pub fn decided_at(&self) -> Timestamp {
        self.decided_at
    }
}

/// What one group of builds lacks, what was not counted for it, the group, and who approved its commit.
type Candidate = (Vec<Unmet>, Vec<Ignored>, builds::Group, Vec<String>);

/// Decides by `policy`. The order of the evidence changes nothing, and evidence that does not count is reported.
pub fn decide(policy: &Policy, question: &Question, evidence: &[Evidence], now: Timestamp) -> Decision {
    let mut unmet = Vec::new();
    let pinned = question.asked.pin(question.digest);
    if pinned.is_err() {
        unmet.push(Unmet::OtherDigest { asked: question.asked.to_string(), found: question.digest });
    }
    if policy.revoked.contains(&question.digest) {
        unmet.push(Unmet::Revoked { digest: question.digest });
    }
    let denied = |unmet, ignored| Decision::Denied(Denial { question: question.clone(), unmet, ignored });
    let Some(rule) = policy.rule_for(question.asked.repository(), &question.digest) else {
        unmet.push(Unmet::NoRule { repository: question.asked.repository().to_string() });
        return denied(unmet, Vec::new());
    };
    if let Some(function) = question.function.as_ref().filter(|name| !rule.functions.permits(name)) {
        unmet.push(Unmet::Function { function: function.clone() });
    }
    if evidence.len() > MAX_EVIDENCE {
        unmet.push(Unmet::TooMuchEvidence { count: evidence.len() });
        return denied(unmet, Vec::new());
    }
    let mut sorted = evidence::sort(policy, rule, &question.digest, evidence, now);
    unmet.extend(sorted.unreadable.iter().map(|(by, origin, reason)| Unmet::Unreadable {
        by: by.clone(),
        origin: origin.clone(),
        reason: reason.clone(),
    }));
    let groups = builds::groups(policy, rule, &question.digest, &mut sorted, &mut unmet);
    let mut best: Option<Candidate> = None;
    for group in groups {
        let mut own = group.unmet(rule);
        let mut ignored = Vec::new();
        let reviews =
            reviews::count(policy, rule, &group, &sorted.reviews, &sorted.rejections, &mut own, &mut ignored);
        if best.as_ref().is_none_or(|(least, ..)| own.len() < least.len()) {
            best = Some((own, ignored, group, reviews));
        }
    }
    let mut ignored = sorted.ignored;
    let Some((own, more, group, reviews)) = best else {
        ignored.sort();
        unmet.push(Unmet::builds(rule, None, Vec::new()));
        unmet.push(Unmet::reviews(rule, None, Vec::new()));
        return denied(unmet, ignored);
    };
    ignored.extend(more);
    ignored.sort();
    unmet.extend(own);
    match pinned {
        Ok(pinned) if unmet.is_empty() => Decision::Admitted(Admitted {
            pinned,
            commit: group.commit().clone(),
            config_digest: group.config_digest(),
            functions: rule.functions.clone(),
            rule: rule.selector(),
            reviews,
            builds: group.names(),
            decided_at: now,
        }),
        _ => denied(unmet, ignored),
    }
}
