//! The packages of a build: those that are in the image by the records of their installers, those that were fetched by the
//! shapes of their URLs, and how the two belong together. Pure but for reading the records' files. What is recognised is
//! listed in `docs/packages.md`.

mod archive;
mod indexes;
pub(crate) mod installed;
mod inventory;
mod join;
mod recognise;
pub(crate) mod sbom;

use std::collections::BTreeSet;

use attestations::Digest;
use errors::plural;

use recorder::{Exchange, StepExchanges};

pub(crate) use attestations::purl::Purl;
pub(crate) use indexes::is_index;
pub(crate) use inventory::{Inventory, Origin};
pub(crate) use recognise::{Seen, recognise};

/// The packages of a build.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    /// Those that are in the image, ordered by purl.
    pub(crate) installed: Vec<Installed>,
    /// Those that were fetched, and of which nothing in the image tells, ordered by purl.
    pub(crate) passed_by: Vec<Fetched>,
    /// The records that could not be read, and why.
    pub(crate) unread: Vec<String>,
}

impl Packages {
    /// What there is to say of them in a few lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let of_base = self.installed.iter().filter(|one| one.origin == Origin::Base).count();
        let mut lines = Vec::new();
        if !self.installed.is_empty() {
            let count = plural(self.installed.len(), "package");
            lines.push(format!("{count} in the image, {of_base} of them from the base"));
        }
        if !self.passed_by.is_empty() {
            let count = plural(self.passed_by.len(), "package");
            lines.push(format!("{count} more fetched: nothing in the image tells of them"));
        }
        lines.extend(self.unread.iter().map(|record| format!("packages incomplete: {record}")));
        lines
    }
}

/// A package that is in the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Installed {
    /// Its package URL.
    pub(crate) purl: Purl,
    /// Where the image tells of it: paths without a leading slash.
    pub(crate) records: BTreeSet<String>,
    /// Whether it came with the base.
    pub(crate) origin: Origin,
    /// The file that it was installed from, if the build fetched it.
    pub(crate) file: Option<Fetched>,
}

impl Installed {
    /// Whether the build brought it, and not the base, whose digest stands for what is in it.
    pub(crate) fn is_of_build(&self) -> bool {
        self.origin == Origin::Build || self.file.is_some()
    }
}

/// A package's file that a build fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fetched {
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
pub(crate) fn fetched(steps: &[StepExchanges]) -> Vec<Fetched> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for step in steps {
        for exchange in &step.exchanges {
            let Some(purl) = brought_by(exchange) else { continue };
            if seen.insert((purl.clone(), exchange.response.body)) {
                all.push(Fetched {
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
