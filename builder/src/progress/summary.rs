//! What a build came to, in a few lines.

use attestations::Digest;
use serde_json::{Value, json};

use super::bytes::amount;
use errors::{plural, terminal::cell};

/// The longest an instruction gets in it, in characters.
const INSTRUCTION: usize = 60;

/// One image that was built.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// For which platform.
    pub(crate) platform: String,
    /// Its steps, in the order of the Dockerfile.
    pub(crate) steps: Vec<SummaryStep>,
    /// The compressed sizes of the layers that came with the base.
    pub(crate) base_layers: Vec<u64>,
    /// How long all took.
    pub(crate) seconds: f64,
    /// How many answers from the network are recorded.
    pub(crate) exchanges: usize,
    /// The bytes of their bodies.
    pub(crate) recorded: u64,
}

/// A step of it.
#[derive(Debug, Clone)]
pub(crate) struct SummaryStep {
    /// Which, such as `[2/6] build`.
    pub(crate) label: String,
    /// The instruction.
    pub(crate) instruction: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Its layer and that one's compressed size, if it made one.
    pub(crate) layer: Option<(Digest, u64)>,
}

impl Summary {
    /// For people: a line for each step that did something, and one for the whole.
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
