//! Policies that must be refused, and patterns that must not stretch.
#![allow(clippy::unwrap_used, missing_docs)]

use attestations::policy::Pattern;
use attestations::{Decision, Digest, Policy, Question, decide};

#[test]
fn the_example_parses_and_denies_without_evidence() {
    let policy = Policy::parse(Policy::EXAMPLE).unwrap();
    let asked = "registry.example/average:1".parse().unwrap();
    let question = Question { asked, digest: Digest::of(b""), function: Some("other".into()) };
    let Decision::Denied(denial) = decide(&policy, &question, &[], jiff::Timestamp::UNIX_EPOCH) else {
        panic!("admitted without evidence")
    };
    assert_eq!(denial.unmet.len(), 3, "{denial}");
}

#[test]
fn what_the_example_says_of_materials_parses_once_it_is_uncommented() {
    let (before, commented) = Policy::EXAMPLE.split_once("# [algorithm.materials]").unwrap();
    let lines = commented.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
    let text = format!("{before}[algorithm.materials]{}", lines.collect::<Vec<_>>().join("\n"));
    assert!(text.lines().any(|line| line.starts_with("hosts = ")), "{text}");
    Policy::parse(&text).unwrap();
    Policy::parse(&text.replace("complete = true", "complete = true\nunknown = 1")).unwrap_err();
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
