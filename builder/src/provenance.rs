//! The signed provenance of a build (SLSA provenance v1): its inputs, its result, and whether the record of its
//! inputs is complete.

use std::collections::BTreeMap;

use attestations::incomplete::Incomplete;
use attestations::provenance::{
    BUILD_TYPE, BuildDefinition, Builder, InternalParameters, Inventory, Materials, Metadata, NORMALISER,
    Provenance, RebuildOf, ResourceDescriptor, RunDetails,
};
use attestations::{Digest, Predicate, SignedBundle, Signer, Statement, Subject};
use images::layer::AppliedRule;

use crate::error::{Error, Kind, Result};
use crate::executor::steps::add::GitTaken;
use crate::packages::{Fetched, Installed, sbom};
use crate::pipeline::BuildOutcome;
use crate::review::gate::HandedIn;
use recorder::{Exchange, StepId};

/// The signer of statements.
pub(crate) struct Identity<'a> {
    /// The builder's URI in policies.
    pub(crate) builder_id: &'a str,
    /// Its key.
    pub(crate) key: &'a dyn Signer,
}

/// Signs the provenance of a build. `subject` is a name for people; the image is identified by its digest.
///
/// # Errors
/// When signing fails.
pub(crate) fn sign(
    outcome: &BuildOutcome,
    reviews: &[HandedIn],
    rebuild_of: Option<RebuildOf>,
    subject: &str,
    identity: &Identity<'_>,
) -> Result<SignedBundle> {
    let provenance = of(outcome, reviews, rebuild_of, identity.builder_id);
    let statement = Statement {
        subject: vec![Subject::image(subject, &outcome.executed.image.digest())],
        predicate: Predicate::Provenance(Box::new(provenance)),
    };
    attestations::sign(&statement, identity.key)
        .map_err(|cause| Error::new(Kind::Key, "the provenance could not be signed").because(cause))
}

/// Signs that a rebuild of `image` came to nothing.
///
/// # Errors
/// When signing fails.
pub(crate) fn sign_incomplete(
    name: &str,
    image: &Digest,
    said: Incomplete,
    key: &dyn Signer,
) -> Result<SignedBundle> {
    let subject = vec![Subject::image(name, image)];
    let statement = Statement { subject, predicate: Predicate::Incomplete(said) };
    attestations::sign(&statement, key)
        .map_err(|cause| Error::new(Kind::Key, "the statement could not be signed").because(cause))
}

/// The unsigned provenance.
pub(crate) fn of(
    outcome: &BuildOutcome,
    reviews: &[HandedIn],
    rebuild_of: Option<RebuildOf>,
    builder: &str,
) -> Provenance {
    let executed = &outcome.executed;
    Provenance {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE.to_owned(),
            external_parameters: outcome.parameters.clone(),
            internal_parameters: InternalParameters {
                normaliser: NORMALISER.to_owned(),
                compressor: images::layer::COMPRESSOR.to_owned(),
                source_date_epoch: outcome.epoch,
                authors: outcome.writers.authors.clone(),
                committers: outcome.writers.committers.clone(),
                author_keys: outcome.writers.keys.clone(),
                config_digest: executed.image.config_descriptor().digest,
                layers: executed.layers.clone(),
                materials: materials(&executed.unrecorded),
                responses: outcome.observed.clone(),
                inventory: Some(inventory(&outcome.packages.unread)),
                normalised: normalised(&executed.applied),
                rebuild_of,
            },
            resolved_dependencies: dependencies(outcome, reviews),
        },
        run_details: RunDetails {
            builder: Builder { id: builder.to_owned(), version: parts(outcome) },
            metadata: Metadata {
                invocation_id: format!("{}-{}", outcome.started.as_microsecond(), std::process::id()),
                started_on: outcome.started,
                finished_on: outcome.finished,
            },
            byproducts: Vec::new(),
        },
    }
}

/// The components of the builder with their versions.
fn parts(outcome: &BuildOutcome) -> BTreeMap<String, String> {
    let own = ("countersign-builder".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    std::iter::once(own).chain(outcome.emulator.clone()).collect()
}

/// The SBOMs of a build, each a signed statement about its image.
///
/// # Errors
/// When signing fails.
pub(crate) fn sign_bills(
    outcome: &BuildOutcome,
    subject: &str,
    key: &dyn Signer,
) -> Result<Vec<SignedBundle>> {
    let bug = |cause| Error::new(Kind::Bug, "writing a bill of materials").because(cause);
    let image = outcome.executed.image.digest();
    let bases = outcome.executed.bases.iter().map(|base| (base.asked.clone(), base.image.digest())).collect();
    let created = jiff::Timestamp::from_second(outcome.epoch)
        .map_err(|cause| Error::new(Kind::Input, "the commit's time is out of range").because(cause))?;
    let whole = sbom::Whole {
        name: subject,
        image: &image,
        bases: &bases,
        packages: &outcome.packages,
        created: &created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let bills = [
        (sbom::SPDX_PREDICATE, sbom::spdx(&whole).map_err(bug)?),
        (sbom::CYCLONEDX_PREDICATE, sbom::cyclonedx(&whole).map_err(bug)?),
    ];
    let sign = |(predicate_type, value): (&str, _)| {
        let predicate = Predicate::Other { predicate_type: predicate_type.to_owned(), value };
        let statement = Statement { subject: vec![Subject::image(subject, &image)], predicate };
        attestations::sign(&statement, key)
            .map_err(|cause| Error::new(Kind::Key, "a bill of materials could not be signed").because(cause))
    };
    bills.into_iter().map(sign).collect()
}

fn materials(unrecorded: &[String]) -> Materials {
    match unrecorded.is_empty() {
        true => Materials::Complete,
        false => Materials::Incomplete { reasons: unrecorded.to_vec() },
    }
}

fn inventory(unread: &[String]) -> Inventory {
    match unread.is_empty() {
        true => Inventory::Complete,
        false => Inventory::Incomplete { reasons: unread.to_vec() },
    }
}

fn normalised(applied: &[AppliedRule]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for one in applied {
        *counts.entry(one.rule.to_owned()).or_default() += 1;
    }
    counts
}

fn dependencies(outcome: &BuildOutcome, reviews: &[HandedIn]) -> Vec<ResourceDescriptor> {
    let source = &outcome.parameters.source;
    let mut all = vec![
        ResourceDescriptor::source(source, &outcome.parameters.commit),
        ResourceDescriptor::tree(source, &outcome.tree),
    ];
    all.extend(outcome.elsewhere.submodules.iter().map(|it| {
        ResourceDescriptor::submodule(format!("git+{}", it.uri), &it.commit)
            .annotated("path", it.path.clone())
    }));
    all.extend(outcome.elsewhere.files.iter().map(|it| {
        ResourceDescriptor::lfs(format!("git+{}", it.uri), &it.pointer.digest)
            .annotated("path", it.path.clone())
            .annotated("size", it.pointer.size)
    }));
    let mut bases: Vec<_> = outcome.executed.bases.iter().collect();
    bases.dedup_by(|a, b| a.asked == b.asked);
    all.extend(bases.iter().map(|base| {
        let named = ResourceDescriptor::base(&base.uri, &base.image.digest())
            .annotated(ResourceDescriptor::BASE_NAME, base.asked.clone());
        match &base.index {
            Some(index) => named.annotated(ResourceDescriptor::BASE_INDEX, index.to_string()),
            None => named,
        }
    }));
    all.extend(reviews.iter().map(|review| ResourceDescriptor::review(source, &review.digest())));
    all.extend(outcome.record.iter().map(ResourceDescriptor::record));
    all.extend(outcome.executed.git.iter().map(git));
    all.extend(outcome.packages.installed.iter().map(installed));
    all.extend(outcome.packages.passed_by.iter().map(fetched));
    let exchanges = outcome.responses.steps.iter();
    all.extend(exchanges.flat_map(|step| step.sorted().into_iter().map(|found| exchange(&step.step, found))));
    all
}

fn installed(package: &Installed) -> ResourceDescriptor {
    let purl = package.purl.to_string();
    let named = match &package.file {
        Some(file) => from(ResourceDescriptor::package(purl, &file.digest), file),
        None => ResourceDescriptor::installed(purl),
    };
    let records: Vec<String> = package.records.iter().cloned().collect();
    named.annotated(ResourceDescriptor::FROM, package.origin.name()).annotated("records", records)
}

fn fetched(file: &Fetched) -> ResourceDescriptor {
    from(ResourceDescriptor::fetched(file.purl.to_string(), &file.digest), file)
}

/// The same with where the file came from.
fn from(named: ResourceDescriptor, file: &Fetched) -> ResourceDescriptor {
    named.annotated("url", file.url.clone()).annotated("step", file.step.as_str())
}

fn git(taken: &GitTaken) -> ResourceDescriptor {
    let named = ResourceDescriptor::git(format!("git+{}", taken.url), &taken.commit)
        .annotated("step", taken.step.as_str());
    let notes = [("ref", &taken.reference), ("submodule", &taken.submodule)];
    notes.into_iter().fold(named, |named, (name, value)| match value {
        Some(value) => named.annotated(name, value.clone()),
        None => named,
    })
}

/// An exchange in the form of the provenance.
pub(crate) fn exchange(step: &StepId, Exchange { request, response, .. }: &Exchange) -> ResourceDescriptor {
    let named = ResourceDescriptor::exchange(&request.url, &response.body)
        .annotated("step", step.as_str())
        .annotated("method", request.method.clone())
        .annotated("status", response.status)
        .annotated("size", response.size);
    match &request.body {
        Some(body) => named.annotated("requestBody", body.to_string()),
        None => named,
    }
}
