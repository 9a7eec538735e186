//! One digest for the bases and packages that entered a build, whoever built it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Provenance, ResourceDescriptor, UnnamedBase};
use crate::digest::Digest;
use crate::purl;

/// The digest of a lock's content: SHA-256 over
/// `{"bases":{NAME:DIGEST,…},"fetched":{PURL:[DIGEST,…],…},"packages":{PURL:[DIGEST,…],…}}`, as JSON without spaces,
/// everything in order and once. A package that is in the image and whose file is not known has no digest. What differs
/// between two builders of the same, such as their records, is not in it.
pub fn lock_digest<'a>(
    bases: impl Iterator<Item = (&'a str, Digest)>,
    packages: impl Iterator<Item = (&'a str, Option<Digest>)>,
    fetched: impl Iterator<Item = (&'a str, Digest)>,
) -> Digest {
    #[derive(Serialize)]
    struct Content<'a> {
        bases: BTreeMap<&'a str, String>,
        fetched: BTreeMap<Cow<'a, str>, BTreeSet<String>>,
        packages: BTreeMap<Cow<'a, str>, BTreeSet<String>>,
    }
    let mut content = Content { bases: BTreeMap::new(), fetched: BTreeMap::new(), packages: BTreeMap::new() };
    content.bases.extend(bases.map(|(name, digest)| (name, digest.to_string())));
    for (purl, digest) in packages {
        let files = content.packages.entry(purl::normal(purl)).or_default();
        files.extend(digest.map(|digest| digest.to_string()));
    }
    for (purl, digest) in fetched {
        content.fetched.entry(purl::normal(purl)).or_default().insert(digest.to_string());
    }
    Digest::of(serde_json::json!(content).to_string().as_bytes())
}

impl Provenance {
    /// The [`lock_digest`] of what it names.
    ///
    /// # Errors
    /// When a base lacks its name or digest.
    pub fn lock_digest(&self) -> Result<Digest, UnnamedBase> {
        let bases = self.recorded_bases()?;
        Ok(lock_digest(
            bases.iter().map(|(name, base)| (name.as_str(), base.digest)),
            self.locked_packages(),
            self.fetched_packages(),
        ))
    }

    /// The packages of the image that a lock names, by purl, with the digest of the file that each was installed from: all
    /// but those that came with the base, which the base's digest stands for.
    pub fn locked_packages(&self) -> impl Iterator<Item = (&str, Option<Digest>)> {
        let all = self.build_definition.resolved_dependencies.iter();
        all.filter(|it| it.is(ResourceDescriptor::PACKAGE)).filter_map(|it| {
            let is_of_base = it.text(ResourceDescriptor::FROM) == Some(ResourceDescriptor::FROM_BASE);
            (!is_of_base || !it.digest.is_empty()).then_some((it.uri.as_deref()?, it.sha256()))
        })
    }

    /// What came over the network and of which nothing in the image tells, by purl, with the digest of its file.
    pub fn fetched_packages(&self) -> impl Iterator<Item = (&str, Digest)> {
        let all = self.build_definition.resolved_dependencies.iter();
        all.filter(|it| it.is(ResourceDescriptor::FETCHED))
            .filter_map(|it| Some((it.uri.as_deref()?, it.sha256()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_the_same_in_any_order_and_no_other_has_its_digest() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let bases = [("debian:1", a)];
        let of = |packages: &[(&'static str, Digest)]| {
            let packages = packages.iter().map(|(purl, file)| (*purl, Some(*file)));
            lock_digest(bases.into_iter(), packages, std::iter::empty())
        };
        let own = of(&[("pkg:pypi/a@1", a), ("pkg:pypi/a@1", b), ("pkg:pypi/b@1", b)]);
        assert_eq!(
            own,
            of(&[("pkg:pypi/b@1", b), ("pkg:pypi/a@1", b), ("pkg:pypi/a@1", a), ("pkg:pypi/a@1", a)])
        );
        for other in [&[("pkg:pypi/a@1", a)][..], &[("pkg:pypi/a@1", a), ("pkg:pypi/b@1", b)], &[]] {
            assert_ne!(own, of(other));
        }
        let none = || std::iter::empty();
        assert_ne!(of(&[]), lock_digest([("debian:1", b)].into_iter(), none(), std::iter::empty()));
        let passed = [("pkg:pypi/a@1", a)];
        assert_ne!(of(&passed), lock_digest(bases.into_iter(), none(), passed.into_iter()));
        let unknown = [("pkg:pypi/a@1", None)];
        assert_ne!(of(&[]), lock_digest(bases.into_iter(), unknown.into_iter(), std::iter::empty()));
    }
}
