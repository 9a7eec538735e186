//! What a node remembers: noes that are listed no more, the newest image that ran, and how late it was.

use std::collections::BTreeMap;

use crate::common::*;
use attestations::Signer as _;
use attestations::incomplete::Incomplete;
use attestations::provenance::{Provenance, RebuildOf, RebuildVerdict};
use attestations::review::Verdict;
use attestations::{
    About, Cache, Case, Decision, Digest, Evidence, Older, Policy, Predicate, Remembered, Seen, Statement,
    Subject, decide,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

fn unmet(world: &World, evidence: &[Evidence], remembered: &Remembered) -> Vec<&'static str> {
    codes(&decided(&world.policy(), evidence, remembered))
}

fn decided(policy: &Policy, evidence: &[Evidence], remembered: &Remembered) -> Decision {
    Case::open(policy, &question(), evidence, now()).decide(&BTreeMap::new(), remembered)
}

fn failed(it: &mut Signed<Provenance>) {
    let provenance = Digest::of(b"p");
    it.subject = vec![Subject::image("average", &Digest::of(b"another"))];
    it.value.build_definition.internal_parameters.rebuild_of =
        Some(RebuildOf { subject: image(), provenance, verdict: RebuildVerdict::Differs });
}

#[test]
fn a_no_that_was_seen_once_holds_although_it_is_listed_no_more() {
    let world = World::new();
    let rejection = world.review(&world.bob, "no", |it| it.value.verdict = Verdict::Rejected);
    let veto = world.build(&world.auditor, "auditor", failed);
    for (no, code) in [(rejection, "rejected"), (veto, "failed-rebuild")] {
        let policy = world.policy();
        let listed = [world.enough(), vec![no.clone()]].concat();
        let question = question();
        let case = Case::open(&policy, &question, &listed, now());
        let noes = case.noes();
        assert_eq!(noes.len(), 1);
        assert_eq!(noes[0].bundle, no.bytes);
        // It is found again by what the evidence of a later question is about.
        let unlisted = world.enough();
        let about = Case::open(&policy, &question, &unlisted, now()).about();
        assert!(noes[0].about.iter().any(|one| about.contains(one)), "{:?} {about:?}", noes[0].about);
        let remembered = Remembered { noes: vec![no], ..Remembered::default() };
        assert_eq!(unmet(&world, &unlisted, &Remembered::default()), [""; 0]);
        assert_eq!(unmet(&world, &unlisted, &remembered), [code]);
        // Listed as well, it is one no and not two.
        assert_eq!(unmet(&world, &listed, &remembered), [code]);
    }
}

#[test]
fn a_rejection_is_remembered_by_its_tree_although_its_commit_is_odd() {
    let world = World::new();
    let odd = world.review(&world.bob, "odd", |it| {
        it.value.verdict = Verdict::Rejected;
        it.subject[0].digest.insert("gitCommit".to_owned(), "not a commit".to_owned());
    });
    assert_eq!(world.unmet(&[world.enough(), vec![odd.clone()]].concat()), ["rejected"]);
    let (policy, question, evidence) = (world.policy(), question(), [odd]);
    let case = Case::open(&policy, &question, &evidence, now());
    assert!(case.noes()[0].about.contains(&About::Tree(TREE.parse().unwrap())));
}

#[test]
fn a_builder_whose_word_is_waited_for() {
    let world = World::new();
    let policy = |name: &str| {
        let line = format!("must_hear = [\"{name}\"]\nfailed_rebuild");
        Policy::parse(&world.policy_text().replace("failed_rebuild", &line)).unwrap()
    };
    let unmet =
        |name: &str, evidence: &[Evidence]| codes(&decide(&policy(name), &question(), evidence, now()));
    assert_eq!(unmet("auditor", &world.enough()), [""; 0]);
    assert_eq!(unmet("twin", &world.enough()), ["must-hear"]);
    let attempt = Incomplete {
        builder: "https://twin.example".to_owned(),
        commit: COMMIT.parse().unwrap(),
        provenance: Digest::of(b"p"),
        reason: "a server is gone".to_owned(),
        attempted_on: now(),
    };
    let subject = vec![Subject::image("average", &image())];
    let incomplete = Statement { subject, predicate: Predicate::Incomplete(attempt) };
    let said = [world.enough(), vec![evidence("attempt", &world.twin, incomplete)]].concat();
    assert_eq!(unmet("twin", &said), ["must-hear"]);
    let Decision::Denied(denial) = decide(&policy("twin"), &question(), &said, now()) else { unreachable!() };
    assert!(
        denial.ignored.iter().any(|it| it.to_string().contains("a server is gone")),
        "{:?}",
        denial.ignored
    );
    let said = [world.enough(), vec![world.build(&world.twin, "twin", |_| {})]].concat();
    assert_eq!(unmet("twin", &said), [""; 0]);
    // Whose word is not believed has not given it: a key that is revoked or has ended, another builder's id.
    let heard = world.policy_text().replace("failed_rebuild", "must_hear = [\"twin\"]\nfailed_rebuild");
    let key = world.twin.public_key().to_pem();
    let revoked = format!("{heard}[[revoked_key]]\nkey = \"\"\"{key}\"\"\"\n");
    let limited = format!("keys = [{{ key = \"\"\"{key}\"\"\", until = \"2026-01-01\" }}]");
    let ended = heard.replace(&format!("keys = [\"\"\"{key}\"\"\"]"), &limited);
    let other_id = heard.replace("id = \"https://twin.example\"", "id = \"https://other.example\"");
    for text in [revoked, ended, other_id] {
        assert_ne!(text, heard);
        let policy = Policy::parse(&text).unwrap();
        assert_eq!(codes(&decide(&policy, &question(), &said, now())), ["must-hear"], "{text}");
    }
}

#[test]
fn an_older_image_than_the_newest_that_ran_is_denied_unless_the_administrator_says_so() {
    let world = World::new();
    // The image is of a commit of the second 1.
    let seen = |digest, commit_time| Some(Seen { digest, commit_time });
    let newest = |newest, older| Remembered { newest, older, ..Remembered::default() };
    let other = Digest::of(b"a newer one");
    assert_eq!(unmet(&world, &world.enough(), &newest(seen(other, 2), Older::Denied)), ["older-than-seen"]);
    assert_eq!(unmet(&world, &world.enough(), &newest(seen(other, 2), Older::Allowed)), [""; 0]);
    assert_eq!(unmet(&world, &world.enough(), &newest(seen(other, 1), Older::Denied)), [""; 0]);
    assert_eq!(unmet(&world, &world.enough(), &newest(seen(image(), 2), Older::Denied)), [""; 0]);
    let allowed = newest(seen(other, 2), Older::Allowed);
    let Decision::Admitted(admitted) = decided(&world.policy(), &world.enough(), &allowed) else { panic!() };
    assert_eq!(admitted.older(), Older::Allowed);
}

#[test]
fn a_clock_that_was_set_back_is_noticed() {
    let world = World::new();
    let later = |by: SignedDuration| Remembered { latest: Some(now() + by), ..Remembered::default() };
    assert_eq!(unmet(&world, &world.enough(), &later(SignedDuration::from_hours(1))), ["clock-set-back"]);
    assert_eq!(unmet(&world, &world.enough(), &later(SignedDuration::from_mins(1))), [""; 0]);
    let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(
        unmet(&world, &world.enough(), &Remembered { latest: Some(past), ..Default::default() }),
        [""; 0]
    );
}

/// Changes a bundle's JSON.
fn reshaped(evidence: &Evidence, change: impl FnOnce(&mut Value)) -> Evidence {
    let mut value: Value = serde_json::from_slice(&evidence.bytes).unwrap();
    change(&mut value);
    Evidence { origin: "reshaped".to_owned(), bytes: serde_json::to_vec(&value).unwrap() }
}

#[test]
fn what_a_listed_key_signed_in_a_form_that_is_not_read_here_denies() {
    let world = World::new();
    let no = world.review(&world.bob, "no", |it| it.value.verdict = Verdict::Rejected);
    let twice = reshaped(&no, |it| {
        let all = it["dsseEnvelope"]["signatures"].as_array_mut().unwrap();
        all.push(all[0].clone());
    });
    let later = reshaped(&no, |it| it["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v9.9+json"));
    for one in [twice, later] {
        assert_eq!(world.unmet(&[world.enough(), vec![one]].concat()), ["unreadable"]);
    }
    // Nobody of the policy signed this one, so it is noise.
    let stranger = reshaped(&world.review(&Key::new(), "x", |_| {}), |it| {
        let all = it["dsseEnvelope"]["signatures"].as_array_mut().unwrap();
        all.push(all[0].clone());
    });
    assert_eq!(world.unmet(&[world.enough(), vec![stranger]].concat()), [""; 0]);
}

#[test]
fn what_was_checked_before_decides_as_it_did_and_by_the_same_policy_alone() {
    let world = World::new();
    let no = world.review(&world.bob, "no", |it| it.value.verdict = Verdict::Rejected);
    let (policy, question, remembered, cache) =
        (world.policy(), question(), Remembered::default(), Cache::default());
    let decide = |policy: &Policy, evidence: &[Evidence]| {
        let cold = Case::open(policy, &question, evidence, now()).decide(&BTreeMap::new(), &remembered);
        let warm = || {
            Case::open_with(policy, &question, evidence, now(), Some(&cache))
                .decide(&BTreeMap::new(), &remembered)
        };
        for _ in 0..2 {
            assert_eq!(format!("{:?}", warm()), format!("{cold:?}"));
        }
        codes(&cold)
    };
    let listed = [world.enough(), vec![no, world.review(&Key::new(), "x", |_| {})]].concat();
    assert_eq!(decide(&policy, &world.enough()), [""; 0]);
    assert_eq!(decide(&policy, &listed), ["rejected"]);
    // Another policy knows other keys by the same places.
    let others = World::new();
    assert_eq!(decide(&others.policy(), &listed), ["builds", "reviews"]);
    assert_eq!(decide(&policy, &listed), ["rejected"]);
    assert!(format!("{cache:?}").starts_with("Cache { bundles: "));
}
