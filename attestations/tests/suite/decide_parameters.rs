//! What nobody reviewed decides nothing: parameters that the reviewed tree does not give.

use crate::common::*;
use attestations::provenance::{Override, Provenance, ResourceDescriptor};
use attestations::{Decision, Evidence, Policy, decide};

/// Both builders agree on it, whatever it is.
fn agreed(world: &World, change: impl Fn(&mut Provenance)) -> Vec<Evidence> {
    let mut evidence = world.enough();
    evidence.truncate(2);
    for (key, who) in [(&world.ci, "ci"), (&world.auditor, "auditor")] {
        evidence.push(world.build(key, who, |it| change(&mut it.value)));
    }
    evidence
}

fn with_level(it: &mut Provenance) {
    let external = &mut it.build_definition.external_parameters;
    external.build_args.insert("LEVEL".to_owned(), "debug".to_owned());
    external.overrides.insert(Override::BuildArg("LEVEL".to_owned()));
}

fn unmet(policy: &str, evidence: &[Evidence]) -> Vec<&'static str> {
    codes(&decide(&Policy::parse(policy).unwrap(), &question(), evidence, now()))
}

#[test]
fn a_build_argument_that_everybody_agrees_on_and_nobody_reviewed() {
    let world = World::new();
    let evidence = agreed(&world, with_level);
    assert_eq!(world.unmet(&evidence), ["parameters", "builds"]);
    let Decision::Denied(denial) = world.decide(&evidence) else { unreachable!() };
    assert_eq!(denial.unmet[0].found(), "build-arg:LEVEL=debug");
    let rule = |line: &str| format!("{}[algorithm.parameters]\n{line}\n", world.policy_text());
    assert_eq!(unmet(&rule("build_args.LEVEL = [\"debug\"]"), &evidence), [""; 0]);
    assert_eq!(unmet(&rule("build_args.LEVEL = \"any\""), &evidence), [""; 0]);
    assert_eq!(unmet(&rule("build_args.LEVEL = [\"info\"]"), &evidence), ["parameters", "builds"]);
    assert_eq!(unmet(&rule("build_args.OTHER = \"any\""), &evidence), ["parameters", "builds"]);
}

#[test]
fn what_the_tree_gives_needs_no_word_in_the_rule() {
    let world = World::new();
    let evidence = agreed(&world, |it| {
        it.build_definition.external_parameters.build_args.insert("LEVEL".to_owned(), "info".to_owned());
    });
    assert_eq!(world.unmet(&evidence), [""; 0]);
}

#[test]
fn each_kind_of_parameter_is_held_against_its_own_list() {
    let world = World::new();
    let cases: [(Override, &str); 7] = [
        (Override::Target, "targets = [\"debug\"]"),
        (Override::Dockerfile, "dockerfiles = [\"Dockerfile\"]"),
        (Override::Context, "contexts = [\".\"]"),
        (Override::Platform, "platforms = [\"linux/amd64\"]"),
        (Override::Label("a".to_owned()), "labels = [\"a\"]"),
        (Override::Secret("token".to_owned()), "secrets = [\"token\"]"),
        (Override::Port(8443), "ports = [\"8443\"]"),
    ];
    for (kind, _) in &cases {
        let evidence = agreed(&world, |it| {
            let external = &mut it.build_definition.external_parameters;
            external.target = Some("debug".to_owned());
            external.overrides.insert(kind.clone());
        });
        assert_eq!(world.unmet(&evidence), ["parameters", "builds"], "{kind}");
        for (other, list) in &cases {
            let rule = format!("{}[algorithm.parameters]\n{list}\n", world.policy_text());
            assert_eq!(unmet(&rule, &evidence).is_empty(), other == kind, "{kind} by {list}");
        }
    }
}

#[test]
fn a_base_from_elsewhere_is_allowed_by_its_digest_or_by_name() {
    let world = World::new();
    let evidence = agreed(&world, |it| {
        it.build_definition.external_parameters.overrides.insert(Override::Base("base:1".to_owned()));
    });
    // The rule lists the very digest.
    assert_eq!(world.unmet(&evidence), [""; 0]);
    let any = world.policy_text().replace(&format!("bases = [\"{}\"]", base()), "bases = \"any\"");
    assert_eq!(unmet(&any, &evidence), ["parameters", "builds"]);
    let named = format!("{any}[algorithm.parameters]\nbases = [\"base:1\"]\n");
    assert_eq!(unmet(&named, &evidence), [""; 0]);
}

#[test]
fn a_base_that_contradicts_the_pin_in_the_dockerfile_is_allowed_by_nothing() {
    let world = World::new();
    let pinned = "b".repeat(64);
    let name = format!("registry.example/base@sha256:{pinned}");
    let evidence = |index: Option<String>| {
        agreed(&world, |it| {
            let named = ResourceDescriptor::base("oci-layout:base", &base())
                .annotated(ResourceDescriptor::BASE_NAME, name.clone());
            let named = match &index {
                Some(index) => named.annotated(ResourceDescriptor::BASE_INDEX, index.clone()),
                None => named,
            };
            *it.build_definition.resolved_dependencies.last_mut().unwrap() = named;
        })
    };
    let open = format!("{}[algorithm.parameters]\nbases = \"any\"\n", world.policy_text());
    assert_eq!(unmet(&open, &evidence(None)), ["parameters", "builds"]);
    assert_eq!(unmet(&open, &evidence(Some(format!("sha256:{}", "c".repeat(64))))), ["parameters", "builds"]);
    // The pin is that of an index, of which this is the platform's image.
    assert_eq!(unmet(&open, &evidence(Some(format!("sha256:{pinned}")))), [""; 0]);
}
