//! Builds that say the same about one digest: only such a group counts together.

use std::collections::{BTreeMap, BTreeSet};

use super::bases::Bases;
use super::evidence::{SignedBuild, Sorted};
use super::{Ignored, Reason, Unmet, materials};
use crate::digest::{Commit, Digest, Tree};
use crate::foreign::Foreign;
use crate::policy::{Demands, Policy, normal_source};
use crate::provenance::{RebuildVerdict, ResourceDescriptor as Resource};

/// Builds of one commit with one set of parameters, bases and one config.
pub(super) struct Group {
    commit: Commit,
    config_digest: Digest,
    pub(super) authors: BTreeSet<String>,
    pub(super) trees: BTreeSet<String>,
    pub(super) bases: BTreeSet<Option<Digest>>,
    operators: BTreeMap<String, String>,
    refused: Vec<Unmet>,
    told_by: Vec<String>,
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

    pub(super) fn unmet(&self, demands: &Demands) -> Vec<Unmet> {
        if self.operators.len() >= demands.builds.threshold {
            return Vec::new();
        }
        let mut unmet = self.refused.clone();
        unmet.push(Unmet::builds(demands, Some(self.commit.clone()), self.names()));
        unmet
    }
}

/// The groups about `digest`, in an order that does not depend on the evidence's.
pub(super) fn groups(
    policy: &Policy,
    demands: &Demands,
    digest: &Digest,
    bases: &mut Bases<'_>,
    sorted: &mut Sorted<'_>,
    unmet: &mut Vec<Unmet>,
) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for build in &sorted.builds {
        match consistent(build, digest) {
            Ok(()) => add(policy, demands, bases, build, &mut groups, &mut sorted.ignored),
            Err(reason) => sorted.ignored.push(Ignored::new(build.origin, reason)),
        }
    }
    if demands.failed_rebuild_vetoes {
        unmet.extend(sorted.failed.iter().map(|by| Unmet::FailedRebuild { by: by.clone() }));
    }
    for group in groups.values_mut() {
        group.refused.sort_by_key(ToString::to_string);
        group.refused.dedup();
        group.told_by.sort();
        group.told_by.dedup();
    }
    // Trusted builders who tell different stories of one image: none of them is believed.
    if groups.len() > 1 {
        let stories = groups.values().map(|group| {
            format!(
                "{} from commit {} with config {}",
                group.told_by.join(", "),
                group.commit,
                group.config_digest
            )
        });
        unmet.push(Unmet::Disagreement { stories: stories.collect() });
    }
    groups.into_values().collect()
}

/// Whether it says of the image `digest` what a build has to say.
pub(super) fn consistent(build: &SignedBuild<'_>, digest: &Digest) -> Result<(), Reason> {
    let definition = &build.provenance.build_definition;
    if build.subject.sha256() != Some(*digest) {
        return Err(Reason::OtherImage);
    }
    let rebuild = definition.internal_parameters.rebuild_of.as_ref();
    if rebuild.is_some_and(|it| it.subject != *digest || it.verdict != RebuildVerdict::Identical) {
        return Err(Reason::OtherRebuild);
    }
    let kinds = [
        Resource::SOURCE,
        Resource::SOURCE_TREE,
        Resource::BASE,
        Resource::REVIEW,
        Resource::EXCHANGE,
        Resource::RECORD,
        Resource::PACKAGE,
        Resource::GIT,
    ];
    if !definition.resolved_dependencies.iter().all(|it| kinds.iter().any(|kind| it.is(kind))) {
        return Err(Reason::UnknownDependency);
    }
    let commit = definition.external_parameters.commit.as_str();
    let of = |kind| definition.resolved_dependencies.iter().filter(move |it| it.is(kind));
    let mut sources =
        of(Resource::SOURCE).map(|it| it.digest.get("gitCommit").map(String::as_str)).peekable();
    if sources.peek().is_none() || sources.any(|it| it != Some(commit)) {
        return Err(Reason::OtherSource);
    }
    let mut trees = of(Resource::SOURCE_TREE).map(|it| it.digest.get("gitTree")?.parse::<Tree>().ok());
    if !matches!((trees.next(), trees.next()), (Some(Some(_)), None)) {
        return Err(Reason::NoTree);
    }
    let stands_on_base = definition.internal_parameters.layers.iter().any(|layer| layer.from_base);
    if stands_on_base && of(Resource::BASE).next().is_none() {
        return Err(Reason::NoBase);
    }
    Ok(())
}

fn add(
    policy: &Policy,
    demands: &Demands,
    allowed: &mut Bases<'_>,
    build: &SignedBuild<'_>,
    groups: &mut BTreeMap<String, Group>,
    ignored: &mut Vec<Ignored>,
) {
    let definition = &build.provenance.build_definition;
    let (external, internal) = (&definition.external_parameters, &definition.internal_parameters);
    let of = |kind| definition.resolved_dependencies.iter().filter(move |it| it.is(kind));
    let bases: BTreeSet<Option<Digest>> = of(Resource::BASE).map(Resource::sha256).collect();
    let mut inputs = external.clone();
    inputs.source = String::new();
    let trees: BTreeSet<String> =
        of(Resource::SOURCE_TREE).filter_map(|it| it.digest.get("gitTree").cloned()).collect();
    let key = format!("{inputs:?} {bases:?} {trees:?} {}", internal.config_digest);
    let group = groups.entry(key).or_insert_with(|| Group {
        commit: external.commit.clone(),
        config_digest: internal.config_digest,
        authors: BTreeSet::new(),
        trees: BTreeSet::new(),
        bases: bases.clone(),
        operators: BTreeMap::new(),
        refused: Vec::new(),
        told_by: Vec::new(),
    });
    group.told_by.push(build.builder.to_owned());
    let mut refused = Vec::new();
    let source = normal_source(&external.source);
    if policy.revoked.contains(&internal.config_digest) {
        refused.push(Unmet::Revoked { digest: internal.config_digest });
    }
    if !demands.source.permits(&source) {
        refused.push(Unmet::Source { source: Foreign::new(&source) });
    }
    for base in &bases {
        refused.extend(allowed.against(policy, demands, *base));
    }
    if let Some(wanted) = &demands.materials {
        refused.extend(materials::lacking(wanted, definition));
    }
    group.authors.extend(internal.authors.iter().map(|it| it.email.trim().to_lowercase()));
    group.trees.extend(trees);
    if refused.is_empty() {
        if let Some(builder) = policy.builders.get(build.builder) {
            let name =
                group.operators.entry(builder.operator.clone()).or_insert_with(|| build.builder.to_owned());
            if build.builder < name.as_str() {
                build.builder.clone_into(name);
            }
        }
    } else {
        ignored.push(Ignored::new(build.origin, Reason::Lacks(refused.clone())));
        group.refused.extend(refused);
    }
}
