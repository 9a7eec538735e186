//! Layers that are still being compressed while later steps of their stage run. They are reported in the order of
//! their steps.

use std::collections::VecDeque;

use attestations::provenance::LayerRecord;
use images::layer::{Layer, Packing};

use super::failures::{cancelled, layer_failed};
use super::stage::{Resources, StageRun, StageState};
use crate::error::{Error, Result};
use crate::plan::step::Step;
use crate::progress::{Event, Label};

/// The layers of a stage that its state does not include yet.
#[derive(Default)]
pub(crate) struct PendingLayers<'a>(VecDeque<PendingLayer<'a>>);

struct PendingLayer<'a> {
    layer: Packing,
    step: &'a Step,
    label: Label,
    /// The index of the step in the stage's report.
    at: usize,
}

impl<'a> PendingLayers<'a> {
    pub(crate) fn add(&mut self, layer: Packing, step: &'a Step, label: &Label, at: usize) {
        self.0.push_back(PendingLayer { layer, step, label: label.clone(), at });
    }

    /// The first layer, once it is compressed, or if more than `most` are not.
    fn next(&mut self, most: usize) -> Option<PendingLayer<'a>> {
        let first = self.0.front()?;
        let growing = || self.0.iter().filter(|one| !one.layer.is_done()).count();
        if first.layer.is_done() || growing() > most { self.0.pop_front() } else { None }
    }
}

impl Resources<'_> {
    /// Waits for the compressed layer; `failed` gives the error for the case that there will be none.
    pub(crate) fn packed(
        &self,
        layer: &Packing,
        failed: impl FnOnce(images::Error) -> Error,
    ) -> Result<Layer> {
        let stop = || self.canceller.is_cancelled();
        layer.layer_unless(&stop).map_err(|cause| if stop() { cancelled() } else { failed(cause) })
    }
}

impl StageRun<'_> {
    /// Adds compressed layers to the stage, and waits until at most `most` are left to compress.
    ///
    /// # Errors
    /// When a layer cannot be written, with the step that made it; when the build was cancelled.
    pub(crate) fn settle(&mut self, stage: &mut StageState, most: usize) -> Result<()> {
        let workspace = self.resources.workspace;
        while let Some(PendingLayer { layer, step, label, at }) = self.waiting.next(most) {
            let label = &label;
            if !layer.is_done() {
                workspace.report(&Event::Packing { label });
            }
            let layer = self.resources.packed(&layer, |cause| layer_failed(step, cause))?;
            let (digest, size) = (layer.descriptor.digest, layer.descriptor.size);
            workspace.report(&Event::Layer { label, diff_id: layer.diff_id, digest, size });
            if let Some(reports) = self.reports.steps.get_mut(at) {
                reports.layer = Some((digest, size));
            }
            let (diff_id, created_by) = (layer.diff_id, step.created_by.clone());
            let record = LayerRecord { diff_id, digest, size, created_by, from_base: false };
            stage.layers.push((layer.descriptor, record));
        }
        Ok(())
    }
}
