//! How a commit is built, held against how its review says that it is to be built.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::review::Review;

/// How a commit is built. What is found out only by building is none before.
#[derive(Debug, Clone, Copy)]
pub struct Built<'a> {
    /// The Dockerfile's path in the tree.
    pub dockerfile: &'a str,
    /// The context's path in the tree.
    pub context: &'a str,
    /// The stage.
    pub target: Option<&'a str>,
    /// Arguments of the build.
    pub build_args: &'a BTreeMap<String, String>,
    /// The bases; one without a digest is none that anybody read.
    pub bases: Option<&'a BTreeSet<Option<Digest>>>,
    /// The [`crate::provenance::lock_digest`] of each build; none for one that does not name all its bases.
    pub locks: Option<&'a BTreeSet<Option<Digest>>>,
}

impl Built<'_> {
    /// What is otherwise than the review names it; nothing where all is the same, or nothing is named.
    pub(super) fn differs_from(&self, review: &Review) -> Option<&'static str> {
        if let (Some(lock), Some(locks)) = (review.lock, self.locks)
            && *locks != BTreeSet::from([Some(lock)])
        {
            return Some("lock of bases and packages");
        }
        let named = review.parameters.as_ref()?;
        let same = [
            (named.dockerfile == self.dockerfile, "Dockerfile"),
            (named.context == self.context, "context"),
            (named.target.as_deref() == self.target, "target"),
            (named.build_args == *self.build_args, "build arguments"),
            (self.has_bases(named.bases.as_ref()), "bases"),
        ];
        same.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }

    fn has_bases(&self, named: Option<&BTreeMap<String, Digest>>) -> bool {
        let (Some(named), Some(used)) = (named, self.bases) else { return true };
        let named: BTreeSet<Digest> = named.values().copied().collect();
        used.iter().all(|base| base.is_some_and(|base| named.contains(&base)))
    }
}
