//! What an image says of the steps of a build that should come to it, or close to it: which of its layers each of them made.

use std::collections::BTreeMap;

use attestations::Digest;
use images::{Descriptor, Image, Store};

use super::bases::Base;
use super::plan::{Plan, Step};
use crate::error::{Result, Told};

/// An image that a build repeats, or comes close to, with its layers.
#[derive(Debug, Clone)]
pub struct Foretold {
    /// Where they are.
    pub store: Store,
    /// What it is.
    pub image: Image,
}

impl Foretold {
    /// The image with a digest, if it is in a store with all its layers.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn at_hand(store: Store, digest: &Digest) -> Result<Option<Self>> {
        let image = match Image::load(&store, digest) {
            Err(images::Error::NotFound { .. }) => return Ok(None),
            found => found.told()?,
        };
        let is_here = |layer: &Descriptor| store.path_of(&layer.digest).is_file();
        Ok(image.layers().iter().all(is_here).then_some(Self { store, image }))
    }

    /// The number of the layer that each step made, if it made one, by the step's own number: for as long as the image's history tells of
    /// the same base and the same steps.
    pub(super) fn made<'s>(
        &self,
        base: Option<&Base>,
        plan: &Plan<'_>,
        steps: impl Iterator<Item = &'s Step>,
    ) -> BTreeMap<usize, Option<usize>> {
        let (layers, history) = base.map_or((&[][..], &[][..]), |Base { image, .. }| {
            (image.diff_ids(), image.config().history.as_slice())
        });
        let diff_ids = self.image.diff_ids();
        let mut made = BTreeMap::new();
        let Some(mut told) = self.image.config().history.get(history.len()..) else { return made };
        if diff_ids.get(..layers.len()) != Some(layers) {
            return made;
        }
        let mut next = layers.len();
        for (number, step) in steps.enumerate() {
            let Some(own) = plan.history(step, true) else {
                made.insert(number, None);
                continue;
            };
            let Some((entry, rest)) = told.split_first() else { break };
            if entry.created_by != own.created_by || (!entry.empty_layer && next == diff_ids.len()) {
                break;
            }
            made.insert(number, (!entry.empty_layer).then_some(next));
            next += usize::from(!entry.empty_layer);
            told = rest;
        }
        made
    }
}
