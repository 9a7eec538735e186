//! The time of one decision with three reviews and three builds at hand, of which each provenance names 200 exchanges.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use attestations::provenance::ResourceDescriptor;
use attestations::{Decision, Digest, decide};
use common::{World, now, question};

const ROUNDS: usize = 501;

fn main() {
    let world = World::new();
    let build = |key, who| {
        world.build(key, who, |it| {
            let all = &mut it.value.build_definition.resolved_dependencies;
            all.extend((0..200).map(|number| {
                ResourceDescriptor::exchange(
                    format!("https://packages.example/file-{number}.whl"),
                    &Digest::of(&[number as u8]),
                )
            }));
        })
    };
    let mut evidence =
        vec![build(&world.ci, "ci"), build(&world.auditor, "auditor"), build(&world.twin, "twin")];
    for (key, who) in [(&world.alice, "alice"), (&world.bob, "bob"), (&world.mallory, "mallory")] {
        evidence.push(world.review(key, who, |_| {}));
    }
    let policy = world.policy();
    let mut figures: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            assert!(matches!(decide(&policy, &question(), &evidence, now()), Decision::Admitted(_)));
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    println!(
        "| decision, 3 reviews and 3 builds of 200 exchanges each at hand | {:.3} | – | – |",
        figures[ROUNDS / 2]
    );
}
