//! A lock: the inputs that a build used, in a file next to the Dockerfile, for people to review in a diff. The
//! Dockerfile itself is not changed. A later build replays the lock, or reports the drift from it.

mod drift;

use std::collections::BTreeMap;

use attestations::Digest;
use attestations::provenance::{Provenance, RecordedBase, ResourceDescriptor, lock_digest};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

pub(crate) use drift::drift;

/// Largest file read, in bytes.
pub(crate) const SIZE_LIMIT: u64 = 8 << 20;
const VERSION: u32 = 2;
const HEAD: &str = "# What a build of this Dockerfile used. Written by `countersign-builder lock`; a line of a diff here is a line to review.\n";

/// The inputs that a build used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    version: u32,
    /// The record from which its exchanges can be replayed, if it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<Digest>,
    /// Its bases, by the name in the Dockerfile.
    #[serde(default)]
    pub(crate) bases: BTreeMap<String, LockedBase>,
    /// The packages that the build brought into the image, by purl, with the digests of the files that they were installed
    /// from, as far as these are known.
    #[serde(default)]
    pub(crate) packages: BTreeMap<String, Vec<Digest>>,
    /// What was fetched besides, and of which nothing in the image tells: by purl, with the digests of the files.
    #[serde(default)]
    pub(crate) fetched: BTreeMap<String, Vec<Digest>>,
}

/// A base that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockedBase {
    /// The digest of its manifest.
    pub(crate) digest: Digest,
    /// The reference it was resolved from.
    pub(crate) from: String,
    /// The index that it was chosen from by its platform, where the Dockerfile names that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<Digest>,
}

impl Lock {
    /// The path of a Dockerfile's lock.
    pub(crate) fn path(dockerfile: &str) -> String {
        format!("{dockerfile}.lock")
    }

    /// The lock of the build that a provenance describes.
    ///
    /// # Errors
    /// [`Kind::Input`] when the provenance does not identify its bases.
    pub(crate) fn of(provenance: &Provenance) -> Result<Lock> {
        let all = &provenance.build_definition.resolved_dependencies;
        let record =
            all.iter().find(|it| it.is(ResourceDescriptor::RECORD)).and_then(ResourceDescriptor::sha256);
        let bases =
            provenance.recorded_bases().map_err(|cause| Error::new(Kind::Input, cause.to_string()))?;
        let bases = bases.into_iter().map(|(name, RecordedBase { uri: from, digest, index })| {
            (name, LockedBase { digest, from, index })
        });
        let packages = provenance.locked_packages().map(|(purl, file)| (purl.to_owned(), file));
        let fetched = provenance.fetched_packages().map(|(purl, file)| (purl.to_owned(), file));
        Ok(Self::new(record, bases, packages, fetched))
    }

    /// The lock of a build that used these bases, by the name in the Dockerfile, brought these packages into the image, by
    /// purl, and fetched these besides.
    pub(crate) fn new(
        record: Option<Digest>,
        bases: impl Iterator<Item = (String, LockedBase)>,
        packages: impl Iterator<Item = (String, Option<Digest>)>,
        fetched: impl Iterator<Item = (String, Digest)>,
    ) -> Lock {
        let fetched = fetched.map(|(purl, file)| (purl, Some(file)));
        let (packages, fetched) = (by_purl(packages), by_purl(fetched));
        Lock { version: VERSION, record, bases: bases.collect(), packages, fetched }
    }

    /// Parses a lock.
    ///
    /// # Errors
    /// [`Kind::Input`] for anything that is not exactly one lock.
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<Lock> {
        let bad = |why: String| {
            Error::new(Kind::Input, format!("{path}: {why}"))
                .hint("write it anew with `countersign-builder lock`, or remove it from the commit")
        };
        let text = std::str::from_utf8(bytes).map_err(|_| bad("the text is not UTF-8".to_owned()))?;
        let lock: Lock = toml::from_str(text).map_err(|cause| bad(cause.to_string()))?;
        match lock.version {
            VERSION => Ok(lock),
            other => Err(bad(format!("it is of version {other}, and this program knows {VERSION}"))),
        }
    }

    /// Its text, with a line for each base and package. Equal locks have equal texts.
    ///
    /// # Errors
    /// Never for a lock from [`Lock::new`], [`Lock::of`] or [`Lock::parse`].
    pub(crate) fn to_text(&self) -> Result<String> {
        let text = toml::to_string(self)
            .map_err(|cause| Error::new(Kind::Bug, "writing the lock").because(cause))?;
        Ok(format!("{HEAD}{text}"))
    }

    /// The digest of its bases and packages, which a review names: see [`lock_digest`].
    pub(crate) fn digest(&self) -> Digest {
        let packages = self.packages.iter().flat_map(|(purl, files)| {
            let unknown = files.is_empty().then_some((purl.as_str(), None));
            unknown.into_iter().chain(files.iter().map(|file| (purl.as_str(), Some(*file))))
        });
        let fetched = self.fetched.iter();
        lock_digest(
            self.bases.iter().map(|(name, base)| (name.as_str(), base.digest)),
            packages,
            fetched.flat_map(|(purl, files)| files.iter().map(|file| (purl.as_str(), *file))),
        )
    }

    /// Its bases in the form of recorded ones: origin and digest.
    pub(crate) fn recorded_bases(&self) -> BTreeMap<String, RecordedBase> {
        self.bases
            .iter()
            .map(|(name, LockedBase { from, digest, index })| {
                (name.clone(), RecordedBase { uri: from.clone(), digest: *digest, index: *index })
            })
            .collect()
    }
}

/// The digests of each purl's files, in order.
fn by_purl(packages: impl Iterator<Item = (String, Option<Digest>)>) -> BTreeMap<String, Vec<Digest>> {
    let mut by_purl = BTreeMap::<String, Vec<Digest>>::new();
    for (purl, file) in packages {
        by_purl.entry(purl).or_default().extend(file);
    }
    by_purl.values_mut().for_each(|digests| digests.sort());
    by_purl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written_and_strangers_are_refused() {
        let base = LockedBase { digest: Digest::of(b"base"), from: "oci://r.example/a".into(), index: None };
        let lock = Lock {
            version: VERSION,
            record: Some(Digest::of(b"record")),
            bases: BTreeMap::from([("debian:bookworm".to_owned(), base)]),
            packages: BTreeMap::from([
                ("pkg:pypi/a@1".to_owned(), vec![Digest::of(b"a")]),
                ("pkg:pypi/unknown@1".to_owned(), vec![]),
            ]),
            fetched: BTreeMap::from([("pkg:pypi/tried@1".to_owned(), vec![Digest::of(b"tried")])]),
        };
        let text = lock.to_text().unwrap();
        assert_eq!(Lock::parse("Dockerfile.lock", text.as_bytes()).unwrap(), lock);
        assert!(text.contains(&format!("\"pkg:pypi/a@1\" = [\"{}\"]\n", Digest::of(b"a"))), "{text}");
        for (from, to) in
            [("version = 2", "version = 1"), ("version = 2", "version = 2\nmore = 2"), ("sha256:", "md5:")]
        {
            assert!(Lock::parse("x", text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }
}
