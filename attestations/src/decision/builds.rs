//! Builds that say the same about one digest: only such a group counts together.

use std::collections::{BTreeMap, BTreeSet};

use super::bases::Bases;
use super::sort::{SignedBuild, Sorted};
use super::{Few, Ignored, Reason, Unmet, materials, parameters};
use crate::decision::count::{Authors, Built};
use crate::digest::{Commit, Digest, Tree};
use crate::foreign::Foreign;
use crate::policy::{Demands, FailedRebuild, Policy, normal_source};
use crate::provenance::{
    BuildDefinition, ExternalParameters, GitFolder, Override, RebuildVerdict, ResourceDescriptor as Resource,
    Spoken,
};

/// What builders of one image have to say alike, so that they count together. Where the commit was fetched from is not
/// in it: mirrors are fine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Agreement {
    commit: Commit,
    tree: Tree,
    image: String,
    dockerfile: String,
    context: String,
    target: Option<String>,
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    platform: String,
    secrets: BTreeSet<String>,
    ports: BTreeMap<u16, Spoken>,
    bases: BTreeSet<Option<Digest>>,
    git: Option<GitFolder>,
    overrides: BTreeSet<Override>,
    config_digest: Digest,
    source_date_epoch: i64,
}

impl Agreement {
    fn of(definition: &BuildDefinition, tree: Tree) -> Self {
        // Each field by name: a new parameter does not compile before somebody decides whether it belongs here.
        let ExternalParameters {
            source: _,
            commit,
            image,
            dockerfile,
            context,
            target,
            build_args,
            labels,
            platform,
            secrets,
            ports,
            git,
            overrides,
        } = definition.external_parameters.clone();
        let bases = definition.resolved_dependencies.iter().filter(|it| it.is(Resource::BASE));
        Self {
            commit,
            tree,
            image,
            dockerfile,
            context,
            target,
            build_args,
            labels,
            platform,
            secrets,
            ports,
            bases: bases.map(Resource::sha256).collect(),
            git,
            overrides,
            config_digest: definition.internal_parameters.config_digest,
            source_date_epoch: definition.internal_parameters.source_date_epoch,
        }
    }
}

/// Builds of one commit with one set of parameters, bases and one config.
pub(super) struct Group {
    agreement: Agreement,
    pub(super) authors: Authors,
    /// The locks of its builds; none where no review names one.
    locks: Option<BTreeSet<Option<Digest>>>,
    operators: BTreeMap<String, String>,
    /// Those of them who saw for themselves what entered.
    observers: BTreeSet<String>,
    refused: Vec<Unmet>,
    told_by: Vec<String>,
    origins: BTreeSet<String>,
}

impl Group {
    fn new(agreement: Agreement, locks: Option<BTreeSet<Option<Digest>>>) -> Self {
        Self {
            agreement,
            authors: Authors::new(),
            locks,
            operators: BTreeMap::new(),
            observers: BTreeSet::new(),
            refused: Vec::new(),
            told_by: Vec::new(),
            origins: BTreeSet::new(),
        }
    }

    pub(super) fn commit(&self) -> &Commit {
        &self.agreement.commit
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.agreement.tree
    }

    /// The bases that it stands on; one without a digest is none.
    pub(super) fn bases(&self) -> &BTreeSet<Option<Digest>> {
        &self.agreement.bases
    }

    /// The time of its commit, in seconds since 1970.
    pub(super) fn commit_time(&self) -> i64 {
        self.agreement.source_date_epoch
    }

    pub(super) fn config_digest(&self) -> Digest {
        self.agreement.config_digest
    }

    /// Where the builds that counted came from.
    pub(super) fn origins(&self) -> &BTreeSet<String> {
        &self.origins
    }

    /// How its commit was built.
    pub(super) fn how(&self) -> Built<'_> {
        Built {
            dockerfile: &self.agreement.dockerfile,
            context: &self.agreement.context,
            target: self.agreement.target.as_deref(),
            build_args: &self.agreement.build_args,
            bases: Some(&self.agreement.bases),
            locks: self.locks.as_ref(),
        }
    }

    /// One builder for each operator.
    pub(super) fn names(&self) -> Vec<String> {
        self.operators.values().cloned().collect()
    }

    pub(super) fn unmet(&self, demands: &Demands) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if self.operators.len() < demands.builds.threshold {
            unmet.extend(self.refused.iter().cloned());
            unmet.push(Unmet::builds(demands, Some(self.commit().clone()), self.names()));
        }
        // Where too few built it at all, that is what lacks.
        if unmet.is_empty() && self.observers.len() < demands.independent {
            let counted = self.observers.iter().filter_map(|operator| self.operators.get(operator));
            unmet.push(Unmet::IndependentMaterials {
                wanted: demands.independent,
                from: demands.builds.from.clone(),
                counted: counted.cloned().collect(),
            });
        }
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
    let mut groups: BTreeMap<Agreement, Group> = BTreeMap::new();
    let locks = sorted.reviews.name_locks().then(BTreeSet::new);
    for build in &sorted.builds {
        match consistent(build, digest) {
            Ok(tree) => {
                let agreement = Agreement::of(&build.provenance.value().build_definition, tree);
                let group =
                    groups.entry(agreement).or_insert_with_key(|it| Group::new(it.clone(), locks.clone()));
                add(policy, demands, bases, build, group, &mut sorted.ignored);
            }
            Err(reason) => sorted.ignored.push(Ignored::new(build.origin, reason)),
        }
    }
    if demands.failed_rebuild == FailedRebuild::Veto {
        unmet.extend(sorted.failed.iter().map(|by| Unmet::FailedRebuild { by: by.clone() }));
        let differ = |(by, found): (&String, &BTreeSet<String>)| Unmet::MaterialsDiffer {
            by: by.clone(),
            found: Few::of(found),
        };
        unmet.extend(sorted.doubted.iter().map(differ));
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
                group.commit(),
                group.config_digest()
            )
        });
        unmet.push(Unmet::Disagreement { stories: stories.collect() });
    }
    groups.into_values().collect()
}

/// Whether it says of the image `digest` what a build has to say, and the tree of its commit.
pub(super) fn consistent(build: &SignedBuild<'_>, digest: &Digest) -> Result<Tree, Reason> {
    let definition = &build.provenance.value().build_definition;
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
        Resource::SUBMODULE,
        Resource::LFS,
        Resource::BASE,
        Resource::REVIEW,
        Resource::EXCHANGE,
        Resource::RECORD,
        Resource::PACKAGE,
        Resource::FETCHED,
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
    let (Some(Some(tree)), None) = (trees.next(), trees.next()) else {
        return Err(Reason::NoTree);
    };
    let stands_on_base = definition.internal_parameters.layers.iter().any(|layer| layer.from_base);
    if stands_on_base && of(Resource::BASE).next().is_none() {
        return Err(Reason::NoBase);
    }
    Ok(tree)
}

fn add(
    policy: &Policy,
    demands: &Demands,
    allowed: &mut Bases<'_>,
    build: &SignedBuild<'_>,
    group: &mut Group,
    ignored: &mut Vec<Ignored>,
) {
    let definition = &build.provenance.value().build_definition;
    let (external, internal) = (&definition.external_parameters, &definition.internal_parameters);
    group.told_by.push(build.builder.to_owned());
    let mut refused = Vec::new();
    let source = normal_source(&external.source);
    if policy.revoked.contains(&internal.config_digest) {
        refused.push(Unmet::Revoked { digest: internal.config_digest });
    }
    if !demands.source.permits(&source) {
        refused.push(Unmet::Source { source: Foreign::new(&source) });
    }
    for base in group.bases() {
        refused.extend(allowed.against(policy, demands, *base));
    }
    refused.extend(parameters::lacking(demands, definition));
    if let Some(wanted) = &demands.materials {
        refused.extend(materials::lacking(wanted, definition));
    }
    group.authors.add(internal.authors.iter().chain(&internal.committers), &internal.author_keys);
    if let Some(locks) = &mut group.locks {
        locks.insert(build.provenance.value().lock_digest().ok());
    }
    if refused.is_empty() {
        if let Some(builder) = policy.builders.get(build.builder) {
            let name =
                group.operators.entry(builder.operator.clone()).or_insert_with(|| build.builder.to_owned());
            if build.builder < name.as_str() {
                build.builder.clone_into(name);
            }
            if materials::are_seen(definition) {
                group.observers.insert(builder.operator.clone());
            }
            group.origins.insert(build.origin.to_owned());
        }
    } else {
        ignored.push(Ignored::new(build.origin, Reason::Lacks(refused.clone())));
        group.refused.extend(refused);
    }
}
