//! Every yes has an end: ages, keys' times, revocations, and a policy that expires.

use crate::common::*;
use attestations::review::Verdict;
use attestations::withdrawal::Withdrawal;
use attestations::{
    Bundle, Decision, Evidence, Policy, PolicyError, Predicate, Signer as _, Statement, Subject, decide,
};
use jiff::{SignedDuration, Timestamp};

fn unmet_at(policy: &str, evidence: &[Evidence], now: Timestamp) -> Vec<&'static str> {
    codes(&decide(&Policy::parse(policy).unwrap(), &question(), evidence, now))
}

fn days(number: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * number)
}

#[test]
fn a_yes_holds_as_long_as_the_rule_says() {
    let world = World::new();
    let evidence = world.enough();
    let aged = world
        .policy_text()
        .replace("author_may_review = false", "author_may_review = false\nmax_age = \"365d\"")
        .replace("failed_rebuild", "max_age = \"400d\"\nfailed_rebuild");
    assert_eq!(unmet_at(&aged, &evidence, now()), [""; 0]);
    assert_eq!(unmet_at(&aged, &evidence, now() + days(340)), ["stale", "reviews"]);
    assert_eq!(unmet_at(&aged, &evidence, now() + days(390)), ["builds", "reviews", "stale"]);
    assert_eq!(unmet_at(&world.policy_text(), &evidence, now() + days(3650)), [""; 0]);
    // A no does not age.
    let mut rejected = evidence;
    rejected.push(world.review(&world.mallory, "mallory", |it| it.value.verdict = Verdict::Rejected));
    assert!(unmet_at(&aged, &rejected, now() + days(340)).contains(&"rejected"));
}

#[test]
fn an_expired_policy_admits_nothing() {
    let world = World::new();
    let until = |moment: &str| format!("expires = \"{moment}\"\n{}", world.policy_text());
    assert_eq!(unmet_at(&until("2026-06-02"), &world.enough(), now()), [""; 0]);
    assert_eq!(unmet_at(&until("2026-06-01T12:00:00Z"), &world.enough(), now()), ["policy-expired"]);
    assert_eq!(unmet_at(&until("2026-05-31"), &world.enough(), now()), ["policy-expired"]);
}

#[test]
fn a_key_says_yes_within_its_time_and_no_at_any_time() {
    let world = World::new();
    let key = world.alice.public_key().to_pem();
    let limited = |from: &str, until: &str| {
        let table = format!("keys = [{{ key = \"\"\"{key}\"\"\", from = \"{from}\", until = \"{until}\" }}]");
        world.policy_text().replace(&format!("keys = [\"\"\"{key}\"\"\"]"), &table)
    };
    // Alice reviewed on the 1st of May.
    assert_eq!(unmet_at(&limited("2026-01-01", "2027-01-01"), &world.enough(), now()), [""; 0]);
    assert_eq!(unmet_at(&limited("2026-05-02", "2027-01-01"), &world.enough(), now()), ["reviews"]);
    let ended = limited("2026-01-01", "2026-05-01");
    assert_eq!(unmet_at(&ended, &world.enough(), now()), ["reviews"]);
    let mut rejected = world.enough();
    rejected.push(world.review(&world.alice, "alice", |it| it.value.verdict = Verdict::Rejected));
    assert!(unmet_at(&ended, &rejected, now()).contains(&"rejected"));
}

#[test]
fn a_revoked_key_and_a_revoked_statement_say_yes_no_more() {
    let world = World::new();
    let evidence = world.enough();
    let revoking = |from: &str| {
        format!(
            "{}[[revoked_key]]\nkey = \"\"\"{}\"\"\"\n{from}\n",
            world.policy_text(),
            world.ci.public_key().to_pem()
        )
    };
    assert_eq!(unmet_at(&revoking(""), &evidence, now()), ["builds"]);
    assert_eq!(unmet_at(&revoking("from = \"2026-05-01\""), &evidence, now()), ["builds"]);
    assert_eq!(unmet_at(&revoking("from = \"2026-05-03\""), &evidence, now()), [""; 0]);
    let statement = Bundle::parse(&evidence[0].bytes).unwrap().statement_digest();
    let revoked = world.policy_text().replace("revoked = []", &format!("revoked = [\"{statement}\"]"));
    assert_eq!(unmet_at(&revoked, &evidence, now()), ["reviews"]);
}

#[test]
fn a_no_is_taken_back_by_the_key_that_said_it_and_by_no_other() {
    let world = World::new();
    let mut evidence = world.enough();
    let no = world.review(&world.bob, "bob-no", |it| it.value.verdict = Verdict::Rejected);
    let digest = Bundle::parse(&no.bytes).unwrap().statement_digest();
    evidence.push(no);
    assert_eq!(world.unmet(&evidence), ["rejected"]);
    let withdrawal = |key, on: &str| {
        let said = Withdrawal { reason: "a misreading".to_owned(), withdrawn_on: on.parse().unwrap() };
        let subject = vec![Subject::statement("statement", &digest)];
        evidence_of(key, Statement { subject, predicate: Predicate::Withdrawal(said) })
    };
    let with = |one: Evidence| [&evidence[..], &[one]].concat();
    assert_eq!(world.unmet(&with(withdrawal(&world.alice, "2026-05-20T00:00:00Z"))), ["rejected"]);
    assert_eq!(world.unmet(&with(withdrawal(&world.bob, "2026-07-20T00:00:00Z"))), ["rejected"]);
    assert_eq!(world.unmet(&with(withdrawal(&world.bob, "2026-05-20T00:00:00Z"))), [""; 0]);
}

fn evidence_of(key: &Key, statement: Statement) -> Evidence {
    crate::common::evidence("withdrawal", key, statement)
}

#[test]
fn lengths_and_moments_that_mean_nothing_are_refused_with_their_line() {
    let world = World::new();
    let with = |line: &str| -> PolicyError {
        let text = world.policy_text().replace("failed_rebuild", &format!("{line}\nfailed_rebuild"));
        Policy::parse(&text).unwrap_err()
    };
    for line in [
        "max_age = \"a year\"",
        "max_age = \"0d\"",
        "max_age = \"-1d\"",
        "max_age = \"1mo\"",
        "max_age = 365",
    ] {
        assert!(with(line).line > 1, "{line}");
    }
    assert!(with("must_hear = [\"nobody\"]").message.contains("no builder"));
    for moment in
        ["", "tomorrow", "2026-13-01", "2027-01-31T10:00:00", "20270131", "2027-01-31[Europe/Berlin]"]
    {
        assert!(
            Policy::parse(&format!("expires = \"{moment}\"\n{}", world.policy_text())).is_err(),
            "{moment}"
        );
    }
    assert!(matches!(world.decide(&world.enough()), Decision::Admitted(_)));
}

/// What has two forms says which, in the words of the file and not of this program.
#[test]
fn a_value_of_neither_form_is_told_which_there_are() {
    let people = |keys: &str| {
        format!("version = 1\n[people.a]\nname = \"A\"\nemails = [\"a@x.example\"]\nkeys = {keys}\n")
    };
    for keys in ["[5]", "[{ key = \"x\", form = \"2026-01-01\" }]", "[[]]"] {
        let error = Policy::parse(&people(keys)).unwrap_err();
        assert_eq!((error.line, error.message.contains("untagged")), (5, false), "{error}");
        assert!(error.message.contains("a table of `key`, `from` and `until`"), "{error}");
    }
    let world = World::new();
    for list in ["5", "[5]", "true"] {
        let text = world.policy_text();
        let line = text.lines().find(|line| line.starts_with("databases")).unwrap().to_owned();
        let error = Policy::parse(&text.replacen(&line, &format!("databases = {list}"), 1)).unwrap_err();
        assert!(error.message.contains("neither a list of texts nor \"any\""), "{error}");
    }
}
