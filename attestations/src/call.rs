//! What is to be done with an image: which function of it, with which data, and for whom.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is known of a call. Of what is not known nothing is asked; whoever starts an image knows all of it, and the proof
/// that it is started by is held against all of it once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Call {
    /// The function.
    pub function: Option<String>,
    /// What it is called with: one object. It may be about people, so it is held against the policy and never repeated.
    #[serde(skip)]
    pub arguments: Option<Value>,
    /// The labels of the databases that it is to see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<String>>,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
}

impl Call {
    /// The same for people to read later.
    pub(crate) fn without_arguments(self) -> Self {
        Self { arguments: None, ..self }
    }
}

/// Whether a text can be a database's label, as tasks, configurations and policies write it: 1 to 64 letters, digits, - and _.
pub fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Who asks for a call: a user of the node's machine, by name and number, as far as they are known. Whoever shows a token
/// that several may have is nobody in particular.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.uid) {
            (Some(user), Some(uid)) => write!(f, "{user} (uid {uid})"),
            (Some(user), None) => f.write_str(user),
            (None, Some(uid)) => write!(f, "uid {uid}"),
            (None, None) => f.write_str("nobody in particular"),
        }
    }
}
