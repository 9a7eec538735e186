//! Compares a rebuilt image with the original.

use attestations::provenance::RebuildVerdict;
use images::Store;
use images::compare::{Comparison, compare};

use super::evidence::Chosen;
use crate::error::Result;
use crate::pipeline::BuildOutcome;
use crate::speculation::reference::ReferenceImage;

/// How the rebuilt image compares with the original.
pub(crate) enum Finding {
    /// Both images are available.
    Compared(Comparison),
    /// Only the provenance is; the layers that differ from its record.
    Recorded(Vec<String>),
}

impl Finding {
    /// Compares with the original or, if that is not available, with the layers that the chosen provenance records.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub(crate) fn of(
        original: Option<&ReferenceImage>,
        chosen: &Chosen,
        (store, rebuilt): (&Store, &BuildOutcome),
    ) -> Result<Self> {
        let Some(original) = original else { return Ok(Self::Recorded(recorded(chosen, rebuilt))) };
        let first = (&original.store, &original.image);
        Ok(Self::Compared(compare(first, (store, &rebuilt.executed.image))?))
    }

    /// The verdict to sign.
    pub(crate) fn verdict(&self) -> RebuildVerdict {
        match self {
            Self::Compared(Comparison::Identical) => RebuildVerdict::Identical,
            Self::Recorded(differences) if differences.is_empty() => RebuildVerdict::Identical,
            _ => RebuildVerdict::Differs,
        }
    }
}

/// The differences from the provenance's own record, when the original image is not available.
fn recorded(chosen: &Chosen, outcome: &BuildOutcome) -> Vec<String> {
    let image = &outcome.executed.image;
    if image.digest() == chosen.subject {
        return Vec::new();
    }
    let parameters = &chosen.provenance().build_definition.internal_parameters;
    let mut differences = vec![format!("manifest: {}, rebuilt {}", chosen.subject, image.digest())];
    if parameters.config_digest != image.config_descriptor().digest {
        differences.push(format!(
            "config: {}, rebuilt {}",
            parameters.config_digest,
            image.config_descriptor().digest
        ));
    }
    let rebuilt = &outcome.executed.layers;
    if parameters.layers.len() != rebuilt.len() {
        differences.push(format!("layers: {}, rebuilt {}", parameters.layers.len(), rebuilt.len()));
    }
    for (index, (first, second)) in parameters.layers.iter().zip(rebuilt).enumerate() {
        if first.diff_id != second.diff_id {
            differences.push(format!(
                "layer {index} ({}): {}, rebuilt {}",
                first.created_by, first.diff_id, second.diff_id
            ));
        } else if first.digest != second.digest {
            differences.push(format!("layer {index}: same content, compressed differently"));
        }
    }
    differences
}
