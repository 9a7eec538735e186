//! Policies that must be refused, and patterns that must not stretch.

use attestations::policy::Pattern;
use attestations::{Call, Decision, Digest, Policy, Question, Signer as _, decide};

use crate::common::{Key, World};

#[test]
fn the_example_parses_and_denies_without_evidence() {
    let policy = Policy::parse(Policy::EXAMPLE).unwrap();
    let asked = "registry.example/average:1".parse().unwrap();
    let call = Call { function: Some("other".into()), ..Call::default() };
    let question = Question { asked, digest: Digest::of(b""), call };
    let Decision::Denied(denial) = decide(&policy, &question, &[], jiff::Timestamp::UNIX_EPOCH) else {
        panic!("admitted without evidence")
    };
    assert_eq!(denial.unmet.len(), 3, "{denial}");
}

/// The example with what is commented out in it, and with no base allowed as it is.
fn whole_example() -> String {
    let is_toml = |line: &str| line.starts_with('[') || line.split(' ').nth(1) == Some("=");
    let lines = Policy::EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(commented) if is_toml(commented) => commented,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n").replacen("bases = \"any\"", "bases = []", 1)
}

#[test]
fn what_is_commented_out_in_the_example_parses() {
    let text = whole_example();
    for part in ["hosts", "[algorithm.materials]", "repositories", "[algorithm.built_bases.reviews]"] {
        assert!(text.lines().any(|line| line.starts_with(part)), "{part} in {text}");
    }
    Policy::parse(&text).unwrap();
    Policy::parse(&text.replace("complete = true", "complete = true\nunknown = 1")).unwrap_err();
    Policy::parse(&text.replace("repositories = ", "unknown = 1\nrepositories = ")).unwrap_err();
}

#[test]
fn attack_11_an_empty_or_half_written_policy_is_refused() {
    assert!(Policy::parse("").is_err());
    assert!(Policy::parse("version = 1\nunknown = 2").is_err());
    let half = Policy::EXAMPLE.split("[algorithm.builds]").next().unwrap();
    assert!(Policy::parse(half).is_err());
    let zero = Policy::EXAMPLE.replacen("threshold = 1", "threshold = 0", 1);
    assert!(Policy::parse(&zero).unwrap_err().line > 20);
}

#[test]
fn attack_6_a_prefix_is_no_match() {
    let pattern = Pattern::new("registry.example/a/*").unwrap();
    assert!(pattern.matches("registry.example/a/glm"));
    for name in ["registry.example/a/glm/evil", "xregistry.example/a/glm", "registry.example/a/glm\n/x"] {
        assert!(!pattern.matches(name), "{name}");
    }
    assert!(!Pattern::new("registry.example/glm").unwrap().matches("registry.example/glm-evil"));
    assert!(Pattern::new("registry.example/[a]").is_none());
}

#[test]
fn the_name_decides_before_anybody_is_asked() {
    let digest = Digest::of(b"an image");
    let selected = |by: &str| {
        let text = Policy::EXAMPLE.replacen("name = \"registry.example/average\"", by, 1);
        Policy::parse(&text).unwrap()
    };
    let denied =
        |policy: &Policy, image: String| policy.denies_by_name(&image.parse().unwrap(), &Call::default());
    let by_name = selected("name = \"registry.example/average\"");
    assert!(denied(&by_name, "registry.example/average:1".into()).is_none());
    let denial = denied(&by_name, "evil.example/average:1".into()).unwrap();
    assert_eq!((denial.question.digest, denial.unmet.len()), (None, 1), "{denial}");
    let denial = denied(&by_name, format!("evil.example/average@{digest}")).unwrap();
    assert_eq!(denial.question.digest, Some(digest));
    let by_digest = selected(&format!("digest = \"{digest}\""));
    assert!(denied(&by_digest, format!("any.example/average@{digest}")).is_none());
    assert!(
        denied(&by_digest, "any.example/average:1".into()).is_some(),
        "a tag may stand for it, but nobody asks"
    );
}

/// The messages of what is odd, the worst first.
fn odd(text: &str, now: &str) -> Vec<String> {
    let findings = Policy::parse(text).unwrap().findings(now.parse().unwrap());
    findings.iter().map(|one| format!("{}: {}: {}", one.severity, one.about, one.message)).collect()
}

#[test]
fn what_is_odd_about_a_policy_is_found() {
    let world = World::new();
    let now = "2026-06-01T12:00:00Z";
    assert_eq!(odd(&world.policy_text(), now), [""; 0]);
    let has = |text: &str, wanted: &str| {
        let found = odd(text, now);
        assert!(found.iter().any(|one| one.contains(wanted)), "{wanted}: {found:?}");
    };
    has(&format!("expires = \"2026-05-01\"\n{}", world.policy_text()), "error: the policy: it expired at");
    has(&format!("expires = \"2026-06-20\"\n{}", world.policy_text()), "warning: the policy: it expires at");
    let rule = world.policy_text();
    let rule = &rule[rule.find("[[algorithm]]").unwrap()..];
    let pattern = |text: &str| {
        rule.replace("name = \"registry.example/average\"", &format!("pattern = \"registry.example/{text}\""))
    };
    let hidden = format!("{}{}{}", world.policy_text(), pattern("**"), pattern("models/*"));
    has(&hidden, "rule registry.example/models/*: the earlier pattern registry.example/** matches");
    let mut shown = odd(&format!("{}{}{}", world.policy_text(), pattern("models/*"), pattern("**")), now);
    shown.retain(|one| one.contains("earlier pattern"));
    assert_eq!(shown, [""; 0]);
    let revoked = |key: &Key| {
        format!("{}[[revoked_key]]\nkey = \"\"\"{}\"\"\"\n", world.policy_text(), key.public_key().to_pem())
    };
    has(&revoked(&world.alice), "2 reviewer(s) are asked for, and 1 have a key");
    has(&revoked(&world.auditor), "builds of 2 operator(s) are asked for, and 1 have a key");
    let heard = revoked(&world.twin).replace("failed_rebuild", "must_hear = [\"twin\"]\nfailed_rebuild");
    has(&heard, "twin must be heard, and has no key");
    has(
        &world.policy_text().replace("functions = [\"partial\"]", "functions = []"),
        "no function may be called",
    );
    let rule_with =
        |lines: &str| world.policy_text().replace("databases = ", &format!("{lines}\ndatabases = "));
    has(&rule_with("users = []"), "users and organisations name nobody: nobody may ask");
    let nobody = format!("{}[organisations.ours]\nusers = []\n", rule_with("organisations = [\"ours\"]"));
    has(&nobody, "users and organisations name nobody: nobody may ask");
    has(&format!("{}[algorithm.budget]\nresult_kib = 0\n", world.policy_text()), "no result may leave");
    let unread = format!("{}[algorithm.budget]\nrequests = 0\n", world.policy_text());
    assert!(!odd(&unread, now).iter().any(|one| one.contains("none passes")), "it asks for nothing");
    let asks = unread.replace("databases = ", "egress = \"vantage6-read\"\ndatabases = ");
    has(&asks, "egress lists requests, and the budget's requests is 0: none passes");
    let never = world.policy_text().replace("functions = [\"partial\"]\n", "");
    has(
        &format!("{never}[algorithm.functions.partial]\narguments = 'false'\n"),
        "the arguments of partial fit nothing",
    );
}
