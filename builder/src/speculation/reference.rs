//! The reference image of a build: which of its layers each step is expected to make again.

use attestations::Digest;
use images::layer::LayerLimits;
use images::{Descriptor, Image, Store};
use jiff::Timestamp;

use crate::bases::Base;
use crate::error::{Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::step::Step;
use recorder::ResponseStore;

/// How many times larger than its blob a layer may be. Programs and text unpack to 2 to 10 times their blob, zeros to
/// a thousand.
const MOST_TIMES: u64 = 64;
/// The bytes that even a small blob may unpack to, beyond that.
const MOST_OF_SMALL: u64 = 64 << 20;

/// An image that a build is expected to reproduce, or nearly so, with all its layers.
#[derive(Debug, Clone)]
pub(crate) struct ReferenceImage {
    /// The store that holds it.
    pub(crate) store: Store,
    /// The image.
    pub(crate) image: Image,
}

impl ReferenceImage {
    /// The image with this digest, if the store has it with all its layers.
    ///
    /// # Errors
    /// When it is in the store and cannot be read.
    pub(crate) fn at_hand(store: Store, digest: &Digest) -> Result<Option<Self>> {
        let image = match Image::load(&store, digest) {
            Err(images::Error::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        let is_here = |layer: &Descriptor| store.path_of(&layer.digest).is_file();
        Ok(image.layers().iter().all(is_here).then_some(Self { store, image }))
    }

    /// The image that the user named by its digest.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the store does not have it with all its layers.
    pub(crate) fn named(store: Store, digest: &Digest) -> Result<Self> {
        Self::at_hand(store, digest)?.ok_or_else(|| {
            let what = format!("the image {digest} is not in the state directory with all its layers");
            Error::new(Kind::NotFound, what).hint(
                "--like takes the digest of an image that was built there; leave it out for the first one",
            )
        })
    }

    /// The image that recorded responses were kept for, if both are in the state directory.
    ///
    /// # Errors
    /// When they are there and cannot be read.
    pub(crate) fn of_record(
        store: Store,
        response_store: &ResponseStore,
        record: &Digest,
    ) -> Result<Option<Self>> {
        match response_store.find(record) {
            Ok(found) => Self::at_hand(store, &found.image),
            Err(missing) if missing.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The time of its commit, in seconds since 1970, which is the time of every file that its steps made.
    pub(crate) fn epoch(&self) -> Option<i64> {
        let created: Timestamp = self.image.config().created.as_deref()?.parse().ok()?;
        Some(created.as_second())
    }

    /// The limits for unpacking a layer. Lower than for a base, since a third party may have made it and no step has
    /// asked for it yet. A layer beyond them is not predicted.
    pub(crate) fn limits(&self, layer: usize) -> LayerLimits {
        let size = self.image.layers().get(layer).map_or(0, |layer| layer.size);
        let most = size.saturating_mul(MOST_TIMES).saturating_add(MOST_OF_SMALL);
        let LayerLimits { bytes, entries } = LayerLimits::default();
        LayerLimits { bytes: bytes.min(most), entries }
    }

    /// The number of the layer that each step made, if it made one. Covers the leading steps whose entries in the
    /// image's history match, and none at all if the bases differ.
    pub(crate) fn made<'s>(
        &self,
        base: Option<&Base>,
        plan: &Plan<'_>,
        steps: impl Iterator<Item = &'s Step>,
    ) -> Vec<Option<usize>> {
        let (layers, history) = base.map_or((&[][..], &[][..]), |Base { image, .. }| {
            (image.diff_ids(), image.config().history.as_slice())
        });
        let diff_ids = self.image.diff_ids();
        let mut made = Vec::new();
        let Some(mut reports) = self.image.config().history.get(history.len()..) else { return made };
        if diff_ids.get(..layers.len()) != Some(layers) {
            return made;
        }
        let mut next = layers.len();
        for step in steps {
            let Some(own) = plan.history(step, true) else {
                made.push(None);
                continue;
            };
            let Some((entry, rest)) = reports.split_first() else { break };
            if entry.created_by != own.created_by || (!entry.empty_layer && next == diff_ids.len()) {
                break;
            }
            made.push((!entry.empty_layer).then_some(next));
            next += usize::from(!entry.empty_layer);
            reports = rest;
        }
        made
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bases::BaseOrigin;
    use std::collections::BTreeMap;

    use crate::dockerfile::Dockerfile;
    use crate::plan::PlanRequest;
    use crate::plan::config;
    use images::Platform;

    /// A store for images whose history has the steps of a Dockerfile; `layers` says which of them made a layer.
    struct Before {
        folder: tempfile::TempDir,
        platform: Platform,
    }

    impl Before {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), platform: Platform::linux("amd64") }
        }

        fn plan<R>(&self, text: &str, then: impl FnOnce(&Plan<'_>, &[Step]) -> R) -> R {
            let file = Dockerfile::parse(text.as_bytes()).unwrap();
            let request = PlanRequest {
                target: None,
                arguments: BTreeMap::new(),
                labels: BTreeMap::new(),
                platform: self.platform.clone(),
                created: "2026-01-02T03:04:05Z".to_owned(),
            };
            let plan = Plan::new(&file, &request).unwrap();
            let steps = plan.steps(0, config::scratch(&self.platform)).unwrap().steps;
            then(&plan, &steps)
        }

        fn image(&self, text: &str, layers: &[bool], base: Option<&Base>) -> ReferenceImage {
            let store = Store::open(self.folder.path()).unwrap();
            let mut config = config::scratch(&self.platform);
            let mut blobs = Vec::new();
            if let Some(Base { image, .. }) = base {
                config.history.clone_from(&image.config().history);
                config.rootfs.diff_ids = image.diff_ids().to_vec();
                blobs.extend_from_slice(image.layers());
            }
            let reports = self.plan(text, |plan, steps| {
                let all = steps.iter().zip(layers).filter_map(|(step, layer)| plan.history(step, *layer));
                all.collect::<Vec<_>>()
            });
            for (number, _) in layers.iter().enumerate().filter(|(_, layer)| **layer) {
                let bytes = format!("{text}{number}");
                blobs.push(store.put(images::descriptor::LAYER, bytes.as_bytes()).unwrap());
                config.rootfs.diff_ids.push(Digest::of(bytes.as_bytes()));
            }
            config.history.extend(reports);
            let image = Image::assemble(&store, &config, blobs).unwrap();
            ReferenceImage { store, image }
        }

        fn made(
            &self,
            reference_image: &ReferenceImage,
            text: &str,
            base: Option<&Base>,
        ) -> Vec<Option<usize>> {
            self.plan(text, |plan, steps| reference_image.made(base, plan, steps.iter()))
        }
    }

    fn base(ReferenceImage { image, .. }: ReferenceImage) -> Base {
        Base {
            asked: "base".to_owned(),
            uri: "oci-layout:base".to_owned(),
            origin: BaseOrigin::Named,
            index: None,
            image,
        }
    }

    const BASE: &str = "FROM scratch\nCOPY a /\nENV A=1\nCOPY b /";
    const TEXT: &str = "FROM scratch\nENV B=2\nRUN one\nONBUILD RUN x\nRUN nothing\nCOPY c /\nRUN two";
    const LAYERS: [bool; 6] = [false, true, false, false, true, true];

    #[test]
    fn each_step_is_told_its_layer_by_the_history() {
        let before = Before::new();
        let below = base(before.image(BASE, &[true, false, true], None));
        let reference_image = before.image(TEXT, &LAYERS, Some(&below));
        let all = [None, Some(2), None, None, Some(3), Some(4)];
        assert_eq!(before.made(&reference_image, TEXT, Some(&below)), all);
        // The first difference or the end of either history stops the match; additional history entries do no harm.
        assert_eq!(
            before.made(&reference_image, &TEXT.replace("RUN nothing", "RUN other"), Some(&below)),
            all[..3]
        );
        assert_eq!(before.made(&reference_image, &format!("{TEXT}\nRUN three"), Some(&below)), all);
        assert_eq!(before.made(&reference_image, "FROM scratch\nENV B=2\nRUN one", Some(&below)), all[..2]);
    }

    #[test]
    fn of_another_base_nothing_is_told() {
        let before = Before::new();
        let below = base(before.image(BASE, &[true, false, true], None));
        let reference_image = before.image(TEXT, &LAYERS, Some(&below));
        let other = base(before.image(&BASE.replace("b /", "other /"), &[true, false, true], None));
        assert!(before.made(&reference_image, TEXT, Some(&other)).is_empty());
        assert!(before.made(&reference_image, TEXT, None).is_empty());
        assert!(before.made(&before.image(TEXT, &LAYERS, None), TEXT, Some(&below)).is_empty());
    }

    #[test]
    fn an_image_that_lacks_a_layer_is_not_at_hand() {
        let before = Before::new();
        let ReferenceImage { store, image } = before.image(TEXT, &LAYERS, None);
        assert!(ReferenceImage::at_hand(store.clone(), &image.digest()).unwrap().is_some());
        assert!(ReferenceImage::at_hand(store.clone(), &Digest::of(b"another")).unwrap().is_none());
        std::fs::remove_file(store.path_of(&image.layers()[1].digest)).unwrap();
        assert!(ReferenceImage::at_hand(store.clone(), &image.digest()).unwrap().is_none());
        std::fs::write(store.path_of(&image.digest()), b"{}").unwrap();
        assert!(ReferenceImage::at_hand(store, &image.digest()).is_err());
    }
}
