//! Evidence counts only for what it observed itself: who replayed what somebody recorded repeats their words.

use crate::common::*;
use attestations::provenance::{
    Confirmation, Provenance, RebuildOf, RebuildVerdict, ResourceDescriptor, Responses,
};
use attestations::{Decision, Digest, Evidence, Policy, decide};

/// A build that fetched a package, by whoever; then what its builder says of how it came by it.
fn with_package(responses: Responses) -> impl FnOnce(&mut Signed<Provenance>) {
    move |it| {
        let wheel = Digest::of(b"wheel");
        let build = &mut it.value.build_definition;
        build.resolved_dependencies.push(ResourceDescriptor::package("pkg:pypi/pandas@2.2.3", &wheel));
        build.internal_parameters.responses = responses;
    }
}

fn confirmed(change: impl FnOnce(&mut Confirmation)) -> Responses {
    let mut found = Confirmation {
        record: Digest::of(b"record"),
        confirmed_on: now(),
        same: 1,
        changed_indexes: 3,
        gone: Vec::new(),
        differs: Vec::new(),
    };
    change(&mut found);
    Responses::Confirmed(found)
}

/// Two reviews, the first build, which fetched, and the auditor's rebuild.
fn by_auditor(world: &World, responses: Responses) -> Vec<Evidence> {
    let mut evidence = world.enough();
    evidence.truncate(2);
    evidence.push(world.build(&world.ci, "ci", with_package(Responses::Fetched)));
    let rebuilt = |it: &mut Signed<Provenance>| {
        let provenance = Digest::of(b"p");
        it.value.build_definition.internal_parameters.rebuild_of =
            Some(RebuildOf { subject: image(), provenance, verdict: RebuildVerdict::Identical });
        with_package(responses)(it);
    };
    evidence.push(world.build(&world.auditor, "auditor", rebuilt));
    evidence
}

#[test]
fn a_wheel_that_upstream_never_served_is_not_confirmed_by_replaying_it() {
    let world = World::new();
    let replayed = by_auditor(&world, Responses::Replayed);
    assert_eq!(world.unmet(&replayed), ["independent-materials"]);
    let Decision::Denied(denial) = world.decide(&replayed) else { unreachable!() };
    assert!(denial.unmet[0].remedy().contains("rebuild --confirm"), "{}", denial.unmet[0]);
    assert!(denial.unmet[0].found().contains("ci"), "{}", denial.unmet[0]);
    for observed in [Responses::Fetched, confirmed(|_| {})] {
        assert_eq!(world.unmet(&by_auditor(&world, observed.clone())), [""; 0], "{observed:?}");
    }
}

#[test]
fn what_is_gone_is_not_confirmed_and_is_no_veto() {
    let world = World::new();
    let gone = by_auditor(&world, confirmed(|it| it.gone.push("pkg:pypi/pandas@2.2.3".to_owned())));
    assert_eq!(world.unmet(&gone), ["independent-materials"]);
}

#[test]
fn what_differs_is_a_no_from_any_builder_of_the_policy() {
    let world = World::new();
    let other = confirmed(|it| it.differs.push("pkg:pypi/pandas@2.2.3".to_owned()));
    let mut evidence = by_auditor(&world, Responses::Fetched);
    evidence.push(world.build(&world.twin, "twin", with_package(other)));
    assert_eq!(world.unmet(&evidence), ["materials-differ"]);
    let Decision::Denied(denial) = world.decide(&evidence) else { unreachable!() };
    assert!(denial.unmet[0].found().contains("pandas"), "{}", denial.unmet[0]);
}

#[test]
fn a_rule_may_ask_for_less_or_more() {
    let world = World::new();
    let asking = |number: usize| {
        let text =
            world.policy_text().replace("failed_rebuild", &format!("independent = {number}\nfailed_rebuild"));
        Policy::parse(&text).unwrap()
    };
    let replayed = by_auditor(&world, Responses::Replayed);
    let unmet = |number| codes(&decide(&asking(number), &question(), &replayed, now()));
    assert_eq!(unmet(0), [""; 0]);
    assert_eq!(unmet(1), [""; 0]);
    assert_eq!(unmet(2), ["independent-materials"]);
    let three = world.policy_text().replace("failed_rebuild", "independent = 3\nfailed_rebuild");
    assert!(Policy::parse(&three).unwrap_err().to_string().contains("independent operators"));
}

#[test]
fn a_build_that_nothing_entered_needs_no_servers() {
    let world = World::new();
    let mut evidence = world.enough();
    evidence.truncate(2);
    for (key, who) in [(&world.ci, "ci"), (&world.auditor, "auditor")] {
        let replayed = |it: &mut Signed<Provenance>| {
            it.value.build_definition.internal_parameters.responses = Responses::Replayed;
        };
        evidence.push(world.build(key, who, replayed));
    }
    assert_eq!(world.unmet(&evidence), [""; 0]);
}

#[test]
fn provenance_that_does_not_say_how_it_came_by_its_responses_saw_none() {
    let world = World::new();
    let bundle = world.build(&world.ci, "ci", |_| {});
    let statement = attestations::Bundle::parse(&bundle.bytes).unwrap().statement_unverified().unwrap();
    let mut value = serde_json::to_value(statement.into_provenance().unwrap().into_value()).unwrap();
    value["buildDefinition"]["internalParameters"].as_object_mut().unwrap().remove("responses").unwrap();
    let read: Provenance = serde_json::from_value(value).unwrap();
    assert_eq!(read.build_definition.internal_parameters.responses, Responses::Replayed);
}
