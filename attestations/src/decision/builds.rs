//! Builds that say the same about one digest: only such a group counts together.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{SignedBuild, Sorted};
use super::{Ignored, Unmet};
use crate::digest::{Commit, Digest};
use crate::policy::{Policy, Rule, normal_source};
use crate::provenance::{RebuildVerdict, ResourceDescriptor as Resource};

/// Builds of one commit with one set of parameters, bases and one config.
pub(super) struct Group {
    commit: Commit,
    config_digest: Digest,
    pub(super) authors: BTreeSet<String>,
    pub(super) trees: BTreeSet<String>,
    operators: BTreeMap<String, String>,
    refused: Vec<Unmet>,
}

impl Group {
    pub(super) fn commit(&self) -> &Commit {
        &self.commit
    }

    pub(super) fn config_digest(&self) -> Digest {
        self.config_digest
    }

    /// One builder for each operator.
    pub(super) fn names(&self) -> Vec<String> {
        self.operators.values().cloned().collect()
    }

    pub(super) fn unmet(&self, rule: &Rule) -> Vec<Unmet> {
        if self.operators.len() >= rule.builds.threshold {
            return Vec::new();
        }
        let mut unmet = self.refused.clone();
        unmet.push(Unmet::builds(rule, Some(self.commit.clone()), self.names()));
        unmet
    }
}

/// The groups about `digest`, in an order that does not depend on the evidence's.
pub(super) fn groups(
    policy: &Policy,
    rule: &Rule,
    digest: &Digest,
    sorted: &mut Sorted,
    unmet: &mut Vec<Unmet>,
) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut failed = BTreeSet::new();
    for build in &sorted.builds {
        let internal = &build.provenance.build_definition.internal_parameters;
        if internal
            .rebuild_of
            .as_ref()
            .is_some_and(|it| it.subject == *digest && it.verdict == RebuildVerdict::Differs)
        {
            failed.insert(build.builder.clone());
            continue;
        }
        match consistent(build, digest) {
            Ok(()) => add(policy, rule, build, &mut groups),
            Err(reason) => {
                sorted.ignored.push(Ignored { origin: build.origin.clone(), reason: reason.to_owned() })
            }
        }
    }
    if rule.failed_rebuild_vetoes {
        unmet.extend(failed.into_iter().map(|by| Unmet::FailedRebuild { by }));
    }
    for group in groups.values_mut() {
        group.refused.sort_by_key(ToString::to_string);
        group.refused.dedup();
    }
    groups.into_values().collect()
}

fn consistent(build: &SignedBuild, digest: &Digest) -> Result<(), &'static str> {
    let definition = &build.provenance.build_definition;
    if build.subject.sha256() != Some(*digest) {
        return Err("it is about another image");
    }
    let rebuild = definition.internal_parameters.rebuild_of.as_ref();
    if rebuild.is_some_and(|it| it.subject != *digest || it.verdict != RebuildVerdict::Identical) {
        return Err("a rebuild of another image, or one that differs");
    }
    let kinds =
        [Resource::SOURCE, Resource::SOURCE_TREE, Resource::BASE, Resource::REVIEW, Resource::EXCHANGE];
    if !definition.resolved_dependencies.iter().all(|it| kinds.iter().any(|kind| it.is(kind))) {
        return Err("a dependency of an unknown kind");
    }
    let commit = definition.external_parameters.commit.as_str();
    let sources = definition.resolved_dependencies.iter().filter(|it| it.is(Resource::SOURCE));
    if sources.into_iter().any(|it| it.digest.get("gitCommit").map(String::as_str) != Some(commit)) {
        return Err("its source is not the commit it says");
    }
    Ok(())
}

fn add(policy: &Policy, rule: &Rule, build: &SignedBuild, groups: &mut BTreeMap<String, Group>) {
    let definition = &build.provenance.build_definition;
    let (external, internal) = (&definition.external_parameters, &definition.internal_parameters);
    let of = |kind| definition.resolved_dependencies.iter().filter(move |it| it.is(kind));
    let bases: BTreeSet<String> = of(Resource::BASE)
        .map(|it| it.sha256().map_or_else(|| "a base without digest".into(), |it| it.to_string()))
        .collect();
    let mut inputs = external.clone();
    inputs.source = String::new();
    let key = format!("{inputs:?} {bases:?} {}", internal.config_digest);
    let group = groups.entry(key).or_insert_with(|| Group {
        commit: external.commit.clone(),
        config_digest: internal.config_digest,
        authors: BTreeSet::new(),
        trees: BTreeSet::new(),
        operators: BTreeMap::new(),
        refused: Vec::new(),
    });
    let mut refused = Vec::new();
    let source = normal_source(&external.source);
    if !rule.source.permits(&source) {
        refused.push(Unmet::Source { source });
    }
    for base in bases {
        let allowed = base
            .parse()
            .is_ok_and(|digest: Digest| rule.bases.permits(&digest) && !policy.revoked.contains(&digest));
        if !allowed {
            refused.push(Unmet::Base { base });
        }
    }
    group.authors.extend(internal.authors.iter().map(|it| it.email.trim().to_lowercase()));
    group.trees.extend(of(Resource::SOURCE_TREE).filter_map(|it| it.digest.get("gitTree").cloned()));
    if refused.is_empty() {
        if let Some(builder) = policy.builders.get(&build.builder) {
            let name =
                group.operators.entry(builder.operator.clone()).or_insert_with(|| build.builder.clone());
            if build.builder < *name {
                name.clone_from(&build.builder);
            }
        }
    } else {
        group.refused.extend(refused);
    }
}
