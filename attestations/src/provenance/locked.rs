//! One digest for the bases and packages that entered a build, whoever built it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Provenance, ResourceDescriptor, UnnamedBase};
use crate::digest::Digest;
use crate::purl;

/// The digest of a lock's content: SHA-256 over `{"bases":{NAME:DIGEST,…},"packages":{PURL:[DIGEST,…],…}}`, as JSON without
/// spaces, everything in order and once. What differs between two builders of the same, such as their records, is not in it.
pub fn lock_digest<'a>(
    bases: impl Iterator<Item = (&'a str, Digest)>,
    packages: impl Iterator<Item = (&'a str, Digest)>,
) -> Digest {
    #[derive(Serialize)]
    struct Content<'a> {
        bases: BTreeMap<&'a str, String>,
        packages: BTreeMap<Cow<'a, str>, BTreeSet<String>>,
    }
    let mut content = Content { bases: BTreeMap::new(), packages: BTreeMap::new() };
    content.bases.extend(bases.map(|(name, digest)| (name, digest.to_string())));
    for (purl, digest) in packages {
        content.packages.entry(purl::normal(purl)).or_default().insert(digest.to_string());
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
        let all = self.build_definition.resolved_dependencies.iter();
        let packages = all.filter(|it| it.is(ResourceDescriptor::PACKAGE));
        Ok(lock_digest(
            bases.iter().map(|(name, base)| (name.as_str(), base.digest)),
            packages.filter_map(|it| Some((it.uri.as_deref()?, it.sha256()?))),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_the_same_in_any_order_and_no_other_has_its_digest() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let bases = [("debian:1", a)];
        let of =
            |packages: &[(&'static str, Digest)]| lock_digest(bases.into_iter(), packages.iter().copied());
        let own = of(&[("pkg:pypi/a@1", a), ("pkg:pypi/a@1", b), ("pkg:pypi/b@1", b)]);
        assert_eq!(
            own,
            of(&[("pkg:pypi/b@1", b), ("pkg:pypi/a@1", b), ("pkg:pypi/a@1", a), ("pkg:pypi/a@1", a)])
        );
        for other in [&[("pkg:pypi/a@1", a)][..], &[("pkg:pypi/a@1", a), ("pkg:pypi/b@1", b)], &[]] {
            assert_ne!(own, of(other));
        }
        assert_ne!(of(&[]), lock_digest([("debian:1", b)].into_iter(), std::iter::empty()));
    }
}
