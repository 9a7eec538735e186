//! What a denial is about.

use std::fmt;

use serde::Serialize;

use super::{Denial, Question, Unmet};
use crate::call::Call;
use crate::digest::Digest;
use crate::policy::Policy;
use crate::reference::Reference;

/// What was asked. It has no digest where the name alone decided: then no registry was asked what a tag stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The reference as it was asked for.
    pub asked: Reference,
    /// The digest of the manifest it resolved to, or the one that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What was to be done with it, as far as it is known.
    #[serde(flatten)]
    pub call: Call,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "{} ({digest})", self.asked),
            None => write!(f, "{}", self.asked),
        }
    }
}

impl From<Question> for Asked {
    fn from(question: Question) -> Self {
        Self { asked: question.asked, digest: Some(question.digest), call: question.call.without_arguments() }
    }
}

impl Policy {
    /// What can be said before anybody is asked: a denial where no rule can be about this reference, and nothing where one may.
    ///
    /// A rule by digest has no name. It is looked for where the reference names that digest; otherwise whoever may ask this
    /// node could send it to any registry, to find out what a tag stands for there.
    pub fn denies_by_name(&self, reference: &Reference, call: &Call) -> Option<Denial> {
        if self.may_be_about(reference) {
            return None;
        }
        let mut unmet = Vec::new();
        if let Some(digest) = reference.digest().filter(|digest| self.revoked.contains(digest)) {
            unmet.push(Unmet::Revoked { digest: *digest });
        }
        unmet.push(Unmet::NoRule { repository: reference.repository().to_string() });
        let question = Asked {
            asked: reference.clone(),
            digest: reference.digest().copied(),
            call: call.clone().without_arguments(),
        };
        Some(Denial { question, unmet: self.deny(unmet), ignored: Vec::new() })
    }
}
