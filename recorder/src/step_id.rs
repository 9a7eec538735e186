//! The id of a step.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The most bytes of an id.
const MAX_TEXT: usize = 300;

/// A step's identity in records, provenance and replays: its stage, and its number from 1 among the steps of that
/// stage that can use the network. As text `STAGE#NUMBER`.
///
/// It is not a line number: a comment or blank line does not change it, and each of several steps from one line
/// (`ONBUILD`) has an id of its own. So a replay of another commit finds the recorded responses of its steps even if
/// their lines have moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepId(Arc<str>);

impl StepId {
    /// The id of a stage's step with this number.
    pub fn new(stage: &str, number: usize) -> Self {
        Self(format!("{stage}#{number}").into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From the text of a record.
impl TryFrom<String> for StepId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
            true => Err(format!("a step's id has 1 to {MAX_TEXT} bytes and no control characters")),
            false => Ok(Self(text.into())),
        }
    }
}

impl From<StepId> for String {
    fn from(id: StepId) -> Self {
        id.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_from_a_record_and_is_bounded_there() {
        let id = StepId::new("build", 2);
        assert_eq!(id.to_string(), "build#2");
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<StepId>(&text).unwrap(), id);
        for bad in [String::new(), "a\u{1b}#1".to_owned(), "a".repeat(MAX_TEXT + 1)] {
            assert!(StepId::try_from(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
