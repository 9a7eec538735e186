//! The words of each denial stand in `attestations/tests/snapshots/denials.txt`: people search for them, and codes never
//! change.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Unmet;
use crate::bundle::BundleError;
use crate::decision::Few;
use crate::digest::{Commit, Digest};
use crate::foreign::Foreign;
use crate::review::{CountedOnce, Role};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/denials.txt");

/// A place in the list for each condition; a new one does not compile without one.
fn number(unmet: &Unmet) -> usize {
    match unmet {
        Unmet::OtherDigest { .. } => 0,
        Unmet::Revoked { .. } => 1,
        Unmet::NoRule { .. } => 2,
        Unmet::Function { .. } => 3,
        Unmet::Source { .. } => 4,
        Unmet::Base { .. } => 5,
        Unmet::Builds { .. } => 6,
        Unmet::Reviews { .. } => 7,
        Unmet::Rejected { .. } => 8,
        Unmet::FailedRebuild { .. } => 9,
        Unmet::Disagreement { .. } => 10,
        Unmet::Unreadable { .. } => 11,
        Unmet::IncompleteMaterials { .. } => 12,
        Unmet::Hosts { .. } => 13,
        Unmet::MissingPackages { .. } => 14,
        Unmet::ForbiddenPackages { .. } => 15,
        Unmet::PackageNames { .. } => 16,
        Unmet::TooMuchEvidence { .. } => 17,
        Unmet::EvidenceSize { .. } => 18,
        Unmet::OfBase { .. } => 19,
        Unmet::BaseEvidence { .. } => 20,
        Unmet::TooManyBases { .. } => 21,
        Unmet::IndependentMaterials { .. } => 22,
        Unmet::MaterialsDiffer { .. } => 23,
        Unmet::MustHear { .. } => 24,
        Unmet::Parameters { .. } => 25,
        Unmet::Stale { .. } => 26,
        Unmet::OlderThanSeen { .. } => 27,
        Unmet::PolicyExpired { .. } => 28,
        Unmet::ClockSetBack { .. } => 29,
        Unmet::Database { .. } => 30,
        Unmet::Caller { .. } => 31,
        Unmet::Arguments { .. } => 32,
        Unmet::OfFederation { .. } => 33,
        Unmet::EvidenceGone { .. } => 34,
        Unmet::IncompletePackages { .. } => 35,
        Unmet::FetchedPackages { .. } => 36,
    }
}

fn moment(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap()
}

fn few(texts: &[&str]) -> Few {
    Few::of(&texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>())
}

fn samples() -> Vec<Unmet> {
    let digest = Digest::of(b"an image");
    let commit = || -> Commit { "3f1c".repeat(10).parse().unwrap() };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    vec![
        Unmet::OtherDigest { asked: "registry.example/average@sha256:…".to_owned(), found: digest },
        Unmet::Revoked { digest },
        Unmet::NoRule { repository: "registry.example/average".to_owned() },
        Unmet::Function { function: Foreign::new("median") },
        Unmet::Source { source: Foreign::new("https://git.example/fork") },
        Unmet::Base { base: Some(digest) },
        Unmet::Builds {
            wanted: 2,
            from: names(&["ci", "auditor"]),
            counted: names(&["ci"]),
            commit: Some(commit()),
        },
        Unmet::Reviews {
            role: Role::code(),
            wanted: 1,
            once: CountedOnce::Person,
            from: names(&["alice", "bob"]),
            counted: Vec::new(),
            commit: None,
        },
        Unmet::Rejected { by: "alice".to_owned(), commit: commit() },
        Unmet::FailedRebuild { by: "auditor".to_owned() },
        Unmet::Disagreement { stories: names(&["ci: commit 1", "auditor: commit 2"]) },
        Unmet::Unreadable {
            by: "alice".to_owned(),
            origin: Foreign::new("review.json"),
            reason: BundleError::NoEnvelope,
        },
        Unmet::IncompleteMaterials { reasons: few(&["line 7: a secret"]) },
        Unmet::Hosts { found: few(&["evil.example in line 7"]) },
        Unmet::MissingPackages { wanted: few(&["pkg:pypi/pandas@2.*"]) },
        Unmet::ForbiddenPackages {
            found: few(&["pkg:pypi/requests@2.32.0 in line 7 (pkg:pypi/requests@*)"]),
        },
        Unmet::PackageNames { found: few(&["pkg:pypi/Pandas@2.2.3 in line 7"]) },
        Unmet::TooMuchEvidence { count: 513 },
        Unmet::EvidenceSize { size: 70 << 20, limit: 64 << 20 },
        Unmet::OfBase {
            base: digest,
            unmet: Box::new(Unmet::Rejected { by: "alice".to_owned(), commit: commit() }),
        },
        Unmet::BaseEvidence { reason: Foreign::new("registry.example: no answer") },
        Unmet::TooManyBases { count: 17 },
        Unmet::IndependentMaterials { wanted: 2, from: names(&["ci", "auditor"]), counted: names(&["ci"]) },
        Unmet::MaterialsDiffer { by: "auditor".to_owned(), found: few(&["pkg:pypi/pandas@2.2.3"]) },
        Unmet::MustHear { silent: names(&["auditor"]) },
        Unmet::Parameters { found: few(&["build-arg:LEVEL=debug"]) },
        Unmet::Stale { found: few(&["review.json by alice of 2025-01-01T00:00:00Z"]) },
        Unmet::OlderThanSeen { found: moment(0), seen: moment(86_400), newest: digest },
        Unmet::PolicyExpired { expired: moment(86_400) },
        Unmet::ClockSetBack { now: moment(0), seen: moment(86_400) },
        Unmet::Database { found: few(&["genomes", "patients"]) },
        Unmet::Caller { caller: Foreign::new("mallory (uid 1001)") },
        Unmet::Arguments {
            function: Foreign::new("average"),
            found: few(&["/kwargs/column: enum", "/kwargs/rows: not known"]),
        },
        Unmet::OfFederation {
            federation: "oncology.example".parse().unwrap(),
            unmet: Box::new(Unmet::NoRule { repository: "registry.example/average".to_owned() }),
        },
        Unmet::EvidenceGone {
            origin: Foreign::new("registry.example/average@sha256:…"),
            kind: Foreign::new("application/vnd.dev.sigstore.bundle.v0.3+json"),
        },
        Unmet::IncompletePackages {
            reasons: few(&["usr/lib/x.dist-info/METADATA: a package without a name"]),
        },
        Unmet::FetchedPackages {
            found: few(&["pkg:pypi/requests@2.31.0, which pkg:pypi/requests@* forbids (step build#2)"]),
        },
    ]
}

#[test]
#[expect(clippy::disallowed_methods, reason = "snapshots are files")]
fn each_denial_says_what_its_snapshot_says() {
    let samples = samples();
    let numbers: Vec<usize> = samples.iter().map(number).collect();
    assert_eq!(numbers, (0..samples.len()).collect::<Vec<_>>(), "one sample for each condition, in order");
    let codes: BTreeSet<&str> = samples.iter().map(Unmet::code).collect();
    assert_eq!(codes.len(), samples.len(), "each code is of one condition");
    let mut text = String::new();
    for unmet in &samples {
        let (condition, found, remedy) = (unmet.condition(), unmet.found(), unmet.remedy());
        writeln!(text, "{}\n  wanted: {condition}\n  found:  {found}\n  remedy: {remedy}\n", unmet.code())
            .unwrap();
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(KEPT).parent().unwrap()).unwrap();
        std::fs::write(KEPT, &text).unwrap();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    assert!(
        kept == text,
        "a denial is not as kept\n--- kept\n{kept}\n--- now\n{text}\n\
         if that is meant: UPDATE_SNAPSHOTS=1 cargo test -p attestations --lib denial, then review the diff"
    );
}
