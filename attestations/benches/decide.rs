//! The time of one decision with three reviews and three builds at hand, of which each provenance names 200 exchanges;
//! of one that also holds 60 packages of each against a policy's patterns; and of one that also judges a base by as much
//! evidence of its own.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[path = "../tests/suite/common.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use attestations::provenance::{Provenance, ResourceDescriptor};
use attestations::{Cache, Case, Decision, Digest, Evidence, Gathered, Policy, Remembered, Subject};
use common::{Key, Signed, World, base, image, now, question};

const ROUNDS: usize = 201;

/// What the second policy asks: as many patterns as a list of known bad packages may have.
const MATERIALS: &str = "[algorithm.materials]
complete = true
hosts = ['deb.example.org', '*.example.org', 'packages.example']
require = ['pkg:pypi/name-7@*']
forbid = [
    'pkg:pypi/requests@2.*', 'pkg:pypi/bad@*', 'pkg:pypi/*-bad@*', 'pkg:npm/**@*', 'pkg:npm/event-stream@3.3.6',
    'pkg:deb/*/xz-utils@5.6.*', 'pkg:deb/*/curl@7.*', 'pkg:cargo/*@0.0.*', 'pkg:golang/**@v0.*', 'pkg:maven/**/log4j-core@2.*',
]
";

/// What the third policy asks of a base.
const BUILT_BASES: &str = "[algorithm.built_bases]
repositories = 'any'
source = 'any'
bases = []
reviews = { threshold = 2, from = ['alice', 'bob'] }
builds = { threshold = 2, from = ['ci', 'auditor'], failed_rebuild = 'veto' }
";

fn main() {
    let world = World::new();
    let (plain, none) = (evidence(&world, 0, image()), BTreeMap::new());
    row("decision, 3 reviews and 3 builds of 200 exchanges each at hand", &world.policy(), &plain, &none);
    let policy = Policy::parse(&format!("{}{MATERIALS}", world.policy_text())).unwrap();
    let packages = evidence(&world, 60, image());
    row("the same, with 60 packages each and a rule on materials", &policy, &packages, &none);
    let unlisted = world.policy_text().replace(&format!("bases = [\"{}\"]", base()), "bases = []");
    let policy = Policy::parse(&format!("{unlisted}{BUILT_BASES}")).unwrap();
    let of_base = BTreeMap::from([(base(), Gathered::Bundles(evidence(&world, 0, base())))]);
    row("the first, and as much about a base that is not listed", &policy, &plain, &of_base);
    let many = [plain, crowd(&world)].concat();
    assert_eq!(many.len(), 500);
    row(
        "the first among 500 bundles, of strangers and of people of the policy",
        &world.policy(),
        &many,
        &none,
    );
}

/// Three reviews, and three builds of 200 exchanges and so many packages each. A base is built from scratch.
fn evidence(world: &World, packages: usize, of: Digest) -> Vec<Evidence> {
    let build = |key, who| {
        world.build(key, who, |it: &mut Signed<Provenance>| {
            it.subject = vec![Subject::image("it", &of)];
            if of == base() {
                it.value.build_definition.internal_parameters.layers[0].from_base = false;
                it.value
                    .build_definition
                    .resolved_dependencies
                    .retain(|one| !one.is(ResourceDescriptor::BASE));
            }
            let all = &mut it.value.build_definition.resolved_dependencies;
            all.extend((0..200).map(|number| {
                ResourceDescriptor::exchange(
                    format!("https://packages.example/file-{number}.whl"),
                    &Digest::of(&[number as u8]),
                )
            }));
            all.extend((0..packages).map(|number| {
                let purl = format!("pkg:pypi/name-{number}@1.{number}?file_name=name-{number}.whl");
                ResourceDescriptor::package(purl, &Digest::of(&[number as u8]))
            }));
        })
    };
    let mut evidence =
        vec![build(&world.ci, "ci"), build(&world.auditor, "auditor"), build(&world.twin, "twin")];
    for (key, who) in [(&world.alice, "alice"), (&world.bob, "bob"), (&world.mallory, "mallory")] {
        evidence.push(world.review(key, who, |_| {}));
    }
    evidence
}

/// What else may hang at an image: half of it by keys that nobody knows, half approvals of other commits.
fn crowd(world: &World) -> Vec<Evidence> {
    let stranger = Key::new();
    let review = |number: usize| {
        let (key, who) = if number.is_multiple_of(2_usize) {
            (&stranger, "stranger")
        } else {
            (&world.mallory, "mallory")
        };
        let mut one = world.review(key, who, |it| it.value.note = Some(format!("note {number}")));
        one.origin = format!("bundle {number}");
        one
    };
    (0..494).map(review).collect()
}

/// Prints the medians as rows of the table of benchmarks: of a decision by itself, and of one after another about the same.
fn row(what: &str, policy: &Policy, evidence: &[Evidence], bases: &BTreeMap<Digest, Gathered>) {
    let (question, remembered, cache) = (question(), Remembered::default(), Cache::default());
    let median = |open: &mut dyn FnMut() -> f64| {
        let mut figures: Vec<f64> = (0..ROUNDS).map(|_| open()).collect();
        figures.sort_by(f64::total_cmp);
        figures[ROUNDS / 2]
    };
    let cold = median(&mut || {
        let started = Instant::now();
        let decision = Case::open(policy, &question, evidence, now()).decide(bases, &remembered);
        assert!(matches!(decision, Decision::Admitted(_)));
        started.elapsed().as_secs_f64() * 1e3
    });
    let warm = median(&mut || {
        let started = Instant::now();
        let case = Case::open_with(policy, &question, evidence, now(), Some(&cache));
        assert!(matches!(case.decide(bases, &remembered), Decision::Admitted(_)));
        started.elapsed().as_secs_f64() * 1e3
    });
    println!("| {what} | {cold:.3} | – | – |");
    println!("| the same again, its signatures checked before | {warm:.3} | – | – |");
}
