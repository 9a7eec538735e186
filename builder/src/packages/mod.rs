//! Recognises the packages among a build's exchanges, by their purls, and makes SBOMs of them. Pure functions. The
//! URL shapes that are recognised are listed in `docs/packages.md`.

mod archive;
mod indexes;
mod recognise;
pub(crate) mod sbom;

use std::collections::BTreeSet;

use attestations::Digest;

use recorder::{Exchange, StepExchanges};

pub(crate) use attestations::purl::Purl;
pub(crate) use indexes::is_index;
pub(crate) use recognise::{Seen, recognise};

/// A package that a build fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// Its package URL.
    pub(crate) purl: Purl,
    /// SHA-256 of its file.
    pub(crate) digest: Digest,
    /// The file's length in bytes.
    pub(crate) size: u64,
    /// The URL that it was fetched from.
    pub(crate) url: String,
    /// The step that fetched it first.
    pub(crate) step: recorder::StepId,
}

/// The package in a response, if it is one.
pub(crate) fn brought_by(exchange: &Exchange) -> Option<Purl> {
    let Exchange { request, response, .. } = exchange;
    let content_type = response.headers.iter().find(|(name, _)| name == "content-type");
    recognise(&Seen {
        method: &request.method,
        url: &request.url,
        status: response.status,
        content_type: content_type.map(|(_, value)| value.as_str()),
        digest: &response.body,
    })
}

/// The packages among the exchanges of a build, each once, ordered by purl.
pub(crate) fn of(steps: &[StepExchanges]) -> Vec<Package> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for step in steps {
        for exchange in &step.exchanges {
            let Some(purl) = brought_by(exchange) else { continue };
            if seen.insert((purl.clone(), exchange.response.body)) {
                all.push(Package {
                    purl,
                    digest: exchange.response.body,
                    size: exchange.response.size,
                    url: exchange.request.url.clone(),
                    step: step.step.clone(),
                });
            }
        }
    }
    all.sort();
    all
}
