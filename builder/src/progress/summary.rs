//! The result of a build in a few lines.

use attestations::Digest;
use serde_json::{Value, json};

use super::bytes::amount;
use errors::{plural, terminal::cell};

/// The most characters of an instruction.
const INSTRUCTION: usize = 60;

/// One image that was built.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// Its platform.
    pub(crate) platform: String,
    /// Its steps, in the order of the Dockerfile.
    pub(crate) steps: Vec<SummaryStep>,
    /// The compressed sizes of the base's layers.
    pub(crate) base_layers: Vec<u64>,
    /// The duration of the build.
    pub(crate) seconds: f64,
    /// The number of recorded responses.
    pub(crate) exchanges: usize,
    /// The bytes of their bodies.
    pub(crate) recorded: u64,
}

/// A step of the build.
#[derive(Debug, Clone)]
pub(crate) struct SummaryStep {
    /// Its label, such as `[2/6] build`.
    pub(crate) label: String,
    /// The instruction.
    pub(crate) instruction: String,
    /// The duration.
    pub(crate) seconds: f64,
    /// Its layer and the layer's compressed size, if it made one.
    pub(crate) layer: Option<(Digest, u64)>,
}

impl Summary {
    /// As text: a line for each step that did something, and one for the total.
    pub(super) fn text(&self) -> Vec<String> {
        let worked = || self.steps.iter().filter(|step| step.seconds > 0.0);
        let width = worked().map(|step| step.label.chars().count()).max().unwrap_or(0);
        let mut lines: Vec<String> = worked().map(|step| step.line(width)).collect();
        let own: Vec<u64> = self.steps.iter().filter_map(|step| step.layer.map(|(_, size)| size)).collect();
        let base = match self.base_layers.as_slice() {
            [] => String::new(),
            layers => {
                format!(" + {} of the base, {}", layers.len(), amount(layers.iter().sum()))
            }
        };
        let recorded = match self.exchanges {
            0 => "nothing came over the network".to_owned(),
            count => format!("{} recorded, {}", plural(count, "exchange"), amount(self.recorded)),
        };
        lines.push(format!(
            "{}: {} in {:.1} s; {} in {}{base}; {recorded}",
            cell(&self.platform),
            counted(self.steps.len(), "step"),
            self.seconds,
            amount(own.iter().sum()),
            counted(own.len(), "layer"),
        ));
        lines
    }

    pub(super) fn json(&self) -> Value {
        let step = |step: &SummaryStep| {
            json!({
                "label": step.label,
                "instruction": step.instruction,
                "seconds": step.seconds,
                "layer": step.layer.map(|(digest, _)| digest),
                "size": step.layer.map_or(0, |(_, size)| size),
            })
        };
        json!({
            "event": "summary",
            "platform": self.platform,
            "seconds": self.seconds,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "base_layers": self.base_layers,
            "exchanges": self.exchanges,
            "recorded": self.recorded,
        })
    }
}

impl SummaryStep {
    fn line(&self, width: usize) -> String {
        let size = self.layer.map_or_else(|| "-".to_owned(), |(_, size)| amount(size));
        let label = cell(&self.label);
        let mut instruction = cell(&self.instruction);
        if let Some((cut, _)) = instruction.char_indices().nth(INSTRUCTION) {
            instruction.truncate(cut);
            instruction.push('…');
        }
        format!("  {:>7.1} s  {size:>9}  {label:<width$}  {instruction}", self.seconds)
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
