//! A decision in words of others: SLSA's Verification Summary Attestation (<https://slsa.dev/verification_summary/v1>) and
//! in-toto's Simple Verification Result (<https://in-toto.io/attestation/svr/v0.2>). Whoever trusts this node needs none of the
//! evidence then.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::decision::{Admitted, Counted, Decision, Level};
use crate::digest::Digest;
use crate::statement::{Predicate, Statement, Subject};

/// The URI that names a Verification Summary Attestation.
pub const VSA: &str = "https://slsa.dev/verification_summary/v1";
/// The URI that names a Simple Verification Result.
pub const SVR: &str = "https://in-toto.io/attestation/svr/v0.2";

/// Who decided, by which policy, when.
#[derive(Debug, Clone, Copy)]
pub struct Verifier<'a> {
    /// The URI of the node.
    pub id: &'a str,
    /// The digest of its policy.
    pub policy: &'a Digest,
    /// The moment of the decision.
    pub at: Timestamp,
}

/// Which levels a summary names: readers of SLSA 1.0 refuse a summary with names they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// Those of SLSA 1.0.
    Approved,
    /// Those of the drafts after it, alone.
    Draft,
}

/// The summary of a decision; nothing where it has no digest, since no image was found, or no level of that edition.
pub fn vsa(decision: &Decision, verifier: &Verifier<'_>, edition: Edition) -> Option<Statement> {
    let (digest, result, levels, inputs) = match decision {
        Decision::Admitted(admitted) => {
            let levels: Vec<&str> = levels(admitted, edition).collect();
            (*admitted.pinned().digest(), "PASSED", levels, admitted.counted())
        }
        Decision::Denied(denial) => {
            let levels = if edition == Edition::Approved { vec!["FAILED"] } else { Vec::new() };
            (denial.question.digest?, "FAILED", levels, &[][..])
        }
    };
    if levels.is_empty() {
        return None;
    }
    let repository = match decision {
        Decision::Admitted(admitted) => admitted.pinned().repository(),
        Decision::Denied(denial) => denial.question.asked.repository(),
    };
    let inputs: Vec<Value> =
        inputs.iter().map(|Counted { bundle, .. }| json!({ "digest": { "sha256": bundle.hex() } })).collect();
    let name = repository.to_string();
    let short = name.rsplit('/').next().unwrap_or_default();
    let value = json!({
        "verifier": { "id": verifier.id },
        "timeVerified": verifier.at,
        "resourceUri": format!("pkg:oci/{short}@{digest}?repository_url={name}"),
        "policy": { "uri": "policy.toml", "digest": { "sha256": verifier.policy.hex() } },
        "inputAttestations": inputs,
        "verificationResult": result,
        "verifiedLevels": levels,
        "slsaVersion": match edition {
            Edition::Approved => "1.0",
            Edition::Draft => "1.2",
        },
    });
    Some(statement(&name, &digest, VSA, value))
}

/// The result of a decision: what was found to hold. A denial has none: what is not listed is not said.
pub fn svr(decision: &Decision, verifier: &Verifier<'_>) -> Option<Statement> {
    let Decision::Admitted(admitted) = decision else { return None };
    let mut properties: Vec<&str> = vec!["COUNTERSIGN_ADMITTED", "COUNTERSIGN_REVIEWED_COMMIT"];
    properties
        .extend([Edition::Approved, Edition::Draft].iter().flat_map(|edition| levels(admitted, *edition)));
    let value = json!({
        "verifier": {
            "id": verifier.id,
            "policies": [{ "uri": "policy.toml", "digest": { "sha256": verifier.policy.hex() } }],
        },
        "timeCreated": verifier.at,
        "properties": properties,
    });
    let name = admitted.pinned().repository().to_string();
    Some(statement(&name, admitted.pinned().digest(), SVR, value))
}

fn levels(admitted: &Admitted, edition: Edition) -> impl Iterator<Item = &'static str> {
    admitted
        .levels()
        .iter()
        .filter(move |level| level.is_draft() == (edition == Edition::Draft))
        .map(Level::name)
}

fn statement(name: &str, digest: &Digest, kind: &str, value: Value) -> Statement {
    let predicate = Predicate::Other { predicate_type: kind.to_owned(), value };
    Statement { subject: vec![Subject::image(name, digest)], predicate }
}
