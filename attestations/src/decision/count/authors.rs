//! Who wrote a commit, so that nobody reviews their own work.

use std::collections::BTreeSet;

use super::Reviewer;
use crate::keys::KeyId;
use crate::review::{Person, Review};

/// Authors and committers, as far as they are known: their addresses, and the keys that commits are signed with. One too many
/// only asks for one more reviewer; so what somebody claims to be is enough here.
#[derive(Debug, Clone, Default)]
pub struct Authors {
    emails: BTreeSet<String>,
    keys: BTreeSet<KeyId>,
}

impl Authors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in people and keys.
    pub fn add<'a>(
        &mut self,
        people: impl IntoIterator<Item = &'a Person>,
        keys: impl IntoIterator<Item = &'a KeyId>,
    ) {
        self.emails.extend(people.into_iter().map(|it| plain(&it.email)));
        self.keys.extend(keys.into_iter().cloned());
    }

    /// Takes in those that a review names.
    pub(super) fn add_named(&mut self, review: &Review) {
        self.add(&review.authors, &review.author_keys);
    }

    /// Whether the reviewer is one of them, by any of their addresses and keys.
    pub(super) fn include(&self, reviewer: &Reviewer<'_>, review: &Review) -> bool {
        let emails = reviewer.emails.iter().chain([&review.reviewer.email]);
        let by_key = || reviewer.keys.iter().any(|key| self.keys.contains(key));
        emails.into_iter().any(|email| self.emails.contains(&plain(email))) || by_key()
    }
}

/// An address as it is compared.
fn plain(email: &str) -> String {
    email.trim().to_lowercase()
}
