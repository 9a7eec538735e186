//! What a builder told of its steps, with `--progress=json`.

use serde_json::Value;

use crate::programs::Outcome;

/// What was told, in its order.
pub struct Events(pub Vec<Value>);

impl Events {
    /// Of a builder that has ended.
    pub fn of(built: &Outcome) -> Self {
        Self(built.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// How many came before the first one of this kind about the step of a line.
    pub fn before(&self, event: &str, line: u64) -> usize {
        let found = self.0.iter().position(|it| it["event"] == event && it["line"] == line);
        found.unwrap_or_else(|| panic!("no {event} of line {line} in {:#?}", self.0))
    }

    /// How many there are of this kind about the step of a line.
    pub fn count(&self, event: &str, line: u64) -> usize {
        self.0.iter().filter(|it| it["event"] == event && it["line"] == line).count()
    }
}

/// Whether there is but one processor, on which nothing goes on beside anything; records a skip then.
#[track_caller]
pub fn has_one_processor() -> bool {
    let has_one = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2;
    if has_one {
        crate::skip("on one processor nothing goes on beside anything else");
    }
    has_one
}
