//! The network of a rebuild: the first builder's recorded responses, or the servers again.

use std::collections::BTreeMap;
use std::path::Path;

use attestations::provenance::{NamedExchange, Provenance, ResourceDescriptor};
use attestations::{Digest, Foreign, Pinned};

use super::evidence::Chosen;
use crate::error::{Error, Kind, Result};
use crate::pipeline::NetworkSource;
use crate::provenance;
use crate::registry::Registry;
use recorder::{Record, ResponseStore};

/// The recorded responses of the chosen provenance, fetched from the image's registry when they are not here.
///
/// # Errors
/// When there are none, or they are not those that the provenance names.
pub(crate) fn replayed(
    response_store: &ResponseStore,
    chosen: &Chosen,
    file: Option<&Path>,
    registry: &Registry,
    image: Option<&Pinned>,
) -> Result<NetworkSource> {
    let record = record_of(chosen.provenance())?;
    if let Some(file) = file {
        recorder::archive::import(response_store, file)?;
    }
    // The record of a build without requests is always the same, and need not be fetched.
    response_store.writer().finish(&Record::new(Vec::new()))?;
    let replay = match response_store.replay(&record) {
        Err(missing) if missing.kind() == Kind::NotFound => {
            fetch(response_store, &record, registry, image, missing)?;
            response_store.replay(&record)?
        }
        found => found?,
    };
    agree(replay.record(), chosen.provenance())?;
    Ok(NetworkSource::Replayed(replay.into()))
}

fn fetch(
    response_store: &ResponseStore,
    record: &Digest,
    registry: &Registry,
    image: Option<&Pinned>,
    missing: Error,
) -> Result<()> {
    let Some(image) = image else {
        return Err(Error::new(Kind::NotFound, format!("the materials of record {record} are not here"))
            .hint("give the image's reference, from whose registry they can be fetched, or --materials FILE")
            .because(missing));
    };
    let described = registry.describe(image)?;
    response_store.fetch(registry, image, &described, record).map_err(|cause| {
        Error::new(cause.kind(), format!("the materials of record {record} could not be fetched"))
            .hint("give them with --materials FILE, or ask the servers themselves with --online")
            .because(cause)
    })
}

fn record_of(provenance: &Provenance) -> Result<Digest> {
    let all = &provenance.build_definition.resolved_dependencies;
    let mut named = all.iter().filter(|it| it.is(ResourceDescriptor::RECORD));
    match (named.next().map(ResourceDescriptor::sha256), named.next()) {
        (Some(Some(digest)), None) => Ok(digest),
        (None, _) => {
            Err(Error::new(Kind::NotFound, "the provenance names no record of the build's materials")
                .hint("it was built with --no-keep: repeat it over the network with --online"))
        }
        _ => Err(Error::new(Kind::Input, "the provenance does not name one record by its digest")),
    }
}

/// Checks that the record's exchanges are those of the provenance, so that exactly what a policy sees is replayed.
/// The record has more details of each.
fn agree(record: &Record, provenance: &Provenance) -> Result<()> {
    let mut open: BTreeMap<NamedExchange, i64> = BTreeMap::new();
    for (step, found) in record.exchanges() {
        *open.entry(named(&provenance::exchange(step, found))?).or_default() += 1;
    }
    let all = &provenance.build_definition.resolved_dependencies;
    for found in all.iter().filter(|it| it.is(ResourceDescriptor::EXCHANGE)) {
        *open.entry(named(found)?).or_default() -= 1;
    }
    match open.iter().find(|(_, count)| **count != 0) {
        None => Ok(()),
        Some((exchange, count)) => {
            let side = if *count > 0 { "only the record" } else { "only the provenance" };
            Err(disagree(format!("{side} has {exchange}")))
        }
    }
}

fn named(found: &ResourceDescriptor) -> Result<NamedExchange> {
    let unknown = || {
        let url = Foreign::new(found.uri.as_deref().unwrap_or_default());
        disagree(format!("the provenance says of {url} what no record can say"))
    };
    NamedExchange::read(found).ok_or_else(unknown)
}

fn disagree(detail: String) -> Error {
    Error::new(Kind::Input, "the record of the materials and the provenance do not agree")
        .details(vec![detail])
        .hint("do not trust that builder before it has explained this")
}
