//! What holds for any evidence: more of the yes kind never turns a yes into a no, no no turns a no into a yes, the order never
//! matters, and a policy that is narrowed never admits more.

use std::collections::BTreeMap;

use crate::common::*;
use attestations::provenance::{Confirmation, RebuildOf, RebuildVerdict, Responses};
use attestations::review::Verdict;
use attestations::{Case, Decision, Digest, Evidence, Policy, Remembered};
use proptest::prelude::*;

/// Every kind of evidence about the image, made once: yes first, then no.
struct Pool {
    world: World,
    yes: Vec<Evidence>,
    no: Vec<Evidence>,
}

fn pool() -> Pool {
    let world = World::new();
    let old = |it: &mut Signed<attestations::review::Review>| {
        it.value.reviewed_on = "2025-01-01T00:00:00Z".parse().unwrap();
    };
    let replayed = |it: &mut Signed<attestations::provenance::Provenance>| {
        it.value.build_definition.internal_parameters.responses = Responses::Replayed;
    };
    let mut yes = world.enough();
    yes.push(world.review(&world.alice, "alice-old", old));
    yes.push(world.review(&world.mallory, "mallory", |_| {}));
    yes.push(world.build(&world.twin, "twin", |_| {}));
    yes.push(world.build(&world.auditor, "auditor", replayed));
    let differs = |it: &mut Signed<attestations::provenance::Provenance>| {
        it.value.build_definition.internal_parameters.rebuild_of = Some(RebuildOf {
            subject: image(),
            provenance: Digest::of(b"p"),
            verdict: RebuildVerdict::Differs,
        });
    };
    let doubts = |it: &mut Signed<attestations::provenance::Provenance>| {
        it.value.build_definition.internal_parameters.responses = Responses::Confirmed(Confirmation {
            record: Digest::of(b"record"),
            confirmed_on: now(),
            same: 0,
            changed_indexes: 0,
            gone: Vec::new(),
            differs: vec!["pkg:pypi/pandas@2.2.3".to_owned()],
        });
    };
    let no = vec![
        world.review(&world.bob, "bob-no", |it| it.value.verdict = Verdict::Rejected),
        world.review(&world.mallory, "mallory-no", |it| it.value.verdict = Verdict::Rejected),
        world.build(&world.twin, "twin-no", differs),
        world.build(&world.ci, "ci-doubts", doubts),
    ];
    for (number, one) in yes.iter_mut().enumerate() {
        one.origin = format!("yes {number}");
    }
    Pool { world, yes, no }
}

fn chosen(all: &[Evidence], which: &[bool]) -> Vec<Evidence> {
    all.iter().zip(which).filter(|(_, it)| **it).map(|(one, _)| one.clone()).collect()
}

fn decide(policy: &Policy, evidence: &[Evidence], remembered: Vec<Evidence>) -> Decision {
    let remembered = Remembered { noes: remembered, ..Remembered::default() };
    Case::open(policy, &question(), evidence, now()).decide(&BTreeMap::new(), &remembered)
}

fn is_yes(decision: &Decision) -> bool {
    matches!(decision, Decision::Admitted(_))
}

/// Narrower in one point each.
fn narrower(text: &str, which: usize) -> String {
    let narrowings = [
        ("functions = [\"partial\"]", "functions = []"),
        ("author_may_review = false", "author_may_review = false\nmax_age = \"30d\""),
        ("failed_rebuild", "max_age = \"10d\"\nfailed_rebuild"),
        ("failed_rebuild", "must_hear = [\"twin\"]\nfailed_rebuild"),
        ("failed_rebuild", "independent = 2\nfailed_rebuild"),
        ("version = 1", "version = 1\nexpires = \"2026-06-01\""),
        ("source = [\"https://git.example/average\"]", "source = []"),
    ];
    let (from, to) = narrowings[which];
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_yes_keeps_a_yes_and_no_no_makes_one(
        yes in proptest::collection::vec(any::<bool>(), 8),
        more in proptest::collection::vec(any::<bool>(), 8),
        no in proptest::collection::vec(any::<bool>(), 4),
        kept in proptest::collection::vec(any::<bool>(), 4),
        turn in 0usize..16,
        narrowing in 0usize..7,
    ) {
        let Pool { world, yes: yeses, no: noes } = pool();
        let policy = world.policy();
        let evidence = chosen(&yeses, &yes);
        let first = decide(&policy, &evidence, Vec::new());
        let both: Vec<bool> = yes.iter().zip(&more).map(|(a, b)| *a || *b).collect();
        let grown = decide(&policy, &chosen(&yeses, &both), Vec::new());
        prop_assert!(!is_yes(&first) || is_yes(&grown), "more yes made a no");

        let (against, remembered) = (chosen(&noes, &no), chosen(&noes, &kept));
        let mut all = [evidence.clone(), against.clone()].concat();
        let denied = decide(&policy, &all, remembered.clone());
        prop_assert!(is_yes(&first) || !is_yes(&denied), "a no made a yes");
        if !against.is_empty() || !remembered.is_empty() {
            prop_assert!(!is_yes(&denied), "a no was not heard");
        }

        let text = format!("{:?}", decide(&policy, &all, Vec::new()));
        let by = turn % all.len().max(1);
        all.rotate_left(by);
        prop_assert_eq!(format!("{:?}", decide(&policy, &all, Vec::new())), text);

        let narrow = Policy::parse(&narrower(&world.policy_text(), narrowing)).unwrap();
        let narrowed = decide(&narrow, &evidence, Vec::new());
        prop_assert!(is_yes(&first) || !is_yes(&narrowed), "a narrower policy admitted more");
    }
}
