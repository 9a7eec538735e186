//! How each piece of evidence weighed in a decision: for people who ask why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::evidence::Checked;
use super::{Case, Decision, Ignored, Remembered};
use crate::digest::Digest;
use crate::foreign::Foreign;
use crate::policy::Issuer;
use crate::provenance::{RebuildVerdict, Responses};
use crate::review::{Scope, Verdict};
use crate::statement::{Predicate, Statement};

/// One bundle, and how it weighed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Weighed {
    /// Where it came from.
    pub origin: Foreign,
    /// Whose policy it weighed by.
    pub policy: Issuer,
    /// Who of the policy signed it; nothing where nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The digest of what they signed, by which it is revoked or taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<Digest>,
    /// What it says.
    pub says: String,
    /// How it weighed.
    pub weight: Weight,
}

/// How a bundle weighed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "weight")]
pub enum Weight {
    /// It counted towards a yes.
    Counted,
    /// It counted against one.
    Against,
    /// It did not count.
    NotCounted {
        /// Why not.
        reason: String,
    },
}

impl Case<'_> {
    /// How each bundle about the image weighed in a decision that was made from this.
    pub fn weigh(&self, decision: &Decision, remembered: &Remembered) -> Vec<Weighed> {
        let ignored = match decision {
            Decision::Admitted(admitted) => admitted.ignored(),
            Decision::Denied(denial) => &denial.ignored,
        };
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for Ignored { origin, reason } in ignored {
            reasons.entry(origin.as_str()).or_default().push(reason.to_string());
        }
        let weigh = |one: &Checked<'_>| {
            let origin = Foreign::new(one.origin);
            let weight = match reasons.get(origin.as_str()) {
                Some(why) => Weight::NotCounted { reason: why.join("; ") },
                None if one.no().is_some() => Weight::Against,
                None => Weight::Counted,
            };
            let signed = one.found.as_ref().ok();
            let by = signed.map(|signed| signed.holder.name().to_owned());
            let statement = signed.and_then(|signed| signed.read.digests()).map(|(_, statement)| statement);
            let said = signed.and_then(|signed| signed.read.said.as_ref().ok());
            let says = said.map_or_else(|| "nothing that is known here".to_owned(), |it| says(it.value()));
            Weighed { origin, policy: self.policy.issuer().clone(), by, statement, says, weight }
        };
        let kept = self.kept(remembered);
        let unused = self.noticed.ignored().map(|it| Weighed {
            origin: it.origin,
            policy: self.policy.issuer().clone(),
            by: None,
            statement: None,
            says: "nothing that is read here".to_owned(),
            weight: Weight::NotCounted { reason: it.reason.to_string() },
        });
        let mut all: Vec<Weighed> =
            self.checked.iter().flatten().chain(&kept).map(weigh).chain(unused).collect();
        all.sort_by(|a, b| a.origin.as_str().cmp(b.origin.as_str()));
        all
    }
}

/// What a statement says, in a few words.
fn says(statement: &Statement) -> String {
    match &statement.predicate {
        Predicate::Review(review) => {
            let verdict = match review.verdict {
                Verdict::Approved => "approved",
                Verdict::Rejected => "rejected",
            };
            let scope = match &review.scope {
                Scope::Tree => "the whole of".to_owned(),
                Scope::Changes { since, .. } => format!("the changes since {since} in"),
            };
            let role = if review.role.is_code() { String::new() } else { format!(" for {}", review.role) };
            format!("{verdict} {scope} tree {}{role} on {}", review.tree, review.reviewed_on)
        }
        Predicate::Provenance(it) => {
            let internal = &it.build_definition.internal_parameters;
            let what = match internal.rebuild_of.as_ref().map(|of| &of.verdict) {
                None => "built",
                Some(RebuildVerdict::Identical) => "rebuilt the same",
                Some(RebuildVerdict::Differs) => "rebuilt, and got another image than",
            };
            let responses = match &internal.responses {
                Responses::Fetched => "fetched what entered",
                Responses::Replayed => "replayed a record of what entered",
                Responses::Confirmed(_) => "replayed and confirmed what entered",
            };
            let commit = &it.build_definition.external_parameters.commit;
            format!("{what} commit {commit} on {}, and {responses}", it.run_details.metadata.finished_on)
        }
        Predicate::Incomplete(it) => format!("could not rebuild commit {} on {}", it.commit, it.attempted_on),
        Predicate::Withdrawal(it) => format!("takes back another statement, on {}", it.withdrawn_on),
        Predicate::Run(run) => format!("the record of a run: {}", run.event.name()),
        Predicate::PolicyRelease(it) => {
            format!("issues version {} of the policy of {}", it.version, it.federation)
        }
        Predicate::Other { predicate_type, .. } => format!("a predicate {}", Foreign::new(predicate_type)),
    }
}
