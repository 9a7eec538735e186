//! What the files of an image say of packages: collected file by file, whichever order they come in.

use std::collections::{BTreeMap, BTreeSet};

use attestations::Digest;
use attestations::provenance::ResourceDescriptor;

use super::Purl;
use super::installed::Said;

/// The most records that are read; an image of thousands of packages has thousands.
const MAX_RECORDS: usize = 500_000;
/// The most paths that are named for one package.
const MAX_PATHS: usize = 8;
/// The most records that are named because they cannot be read; the rest is counted.
const MAX_UNREAD: usize = 64;

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The image's base.
    Base,
    /// A step of the build.
    Build,
}

impl Origin {
    /// Its name in the provenance.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => ResourceDescriptor::FROM_BASE,
            Self::Build => ResourceDescriptor::FROM_BUILD,
        }
    }
}

/// What was found of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) records: BTreeSet<String>,
    pub(super) origin: Origin,
}

/// What an image's files say.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(super) packages: BTreeMap<Purl, Found>,
    /// Paths of files that are what the build fetched, byte for byte.
    pub(super) files: BTreeMap<Digest, BTreeSet<String>>,
    vendor: Option<String>,
    unread: BTreeSet<String>,
    /// How many records beyond [`MAX_UNREAD`] could not be read.
    more_unread: usize,
    records: usize,
}

impl Inventory {
    /// Adds what a record says. What the base's own record at this path says too is from the base.
    pub(crate) fn add(&mut self, path: &str, origin: Origin, said: Said, base: &[Purl]) {
        self.records += 1;
        if self.records > MAX_RECORDS {
            self.unread.insert(format!("there are more than {MAX_RECORDS} records of packages"));
            return;
        }
        match said {
            // Of the two places, the one that is no link.
            Said::Vendor(name) if !name.is_empty() => drop(self.vendor.get_or_insert(name)),
            Said::Vendor(_) => {}
            Said::Packages(packages) => {
                for purl in packages {
                    let origin = if base.contains(&purl) { Origin::Base } else { origin };
                    let found = Found { records: BTreeSet::new(), origin };
                    let found = self.packages.entry(purl).or_insert(found);
                    found.origin = found.origin.max(origin);
                    insert(&mut found.records, path);
                }
            }
        }
    }

    /// Adds a file that is what the build fetched.
    pub(crate) fn add_file(&mut self, path: &str, digest: Digest) {
        insert(self.files.entry(digest).or_default(), path);
    }

    /// Adds a record that cannot be read.
    pub(crate) fn add_unread(&mut self, path: &str, why: &str) {
        match self.unread.len() < MAX_UNREAD {
            true => drop(self.unread.insert(format!("{path}: {why}"))),
            false => self.more_unread += 1,
        }
    }

    /// The packages, those of a distribution with its name.
    pub(super) fn named(&mut self) -> Vec<(Purl, Found)> {
        let vendor = self.vendor.clone();
        let named = |(purl, found): (Purl, Found)| {
            let by_default = match purl.kind {
                "deb" => "debian",
                "apk" => "alpine",
                "rpm" if purl.version.contains(".fc") => "fedora",
                "rpm" => "redhat",
                _ => return (purl, found),
            };
            let vendor = vendor.clone().unwrap_or_else(|| by_default.to_owned());
            (purl.within(vendor), found)
        };
        std::mem::take(&mut self.packages).into_iter().map(named).collect()
    }

    /// Why not every record was read; empty if they were.
    pub(super) fn unread(&self) -> Vec<String> {
        let more = (self.more_unread > 0).then(|| format!("and {} more records", self.more_unread));
        self.unread.iter().cloned().chain(more).collect()
    }
}

fn insert(paths: &mut BTreeSet<String>, path: &str) {
    paths.insert(path.to_owned());
    // The first ones by name, whichever order they came in.
    if paths.len() > MAX_PATHS {
        paths.pop_last();
    }
}
