//! Who wrote and committed a commit, by what it says itself. Nothing of it is proved: see [`Writers`].

use std::collections::BTreeSet;

use attestations::review::Person;
use attestations::{KeyId, PublicKey};

use super::MESSAGE_LIMIT;

/// The people and keys of one or more commits. One too many only asks for one more reviewer, but one too few could review
/// their own work; so a key counts that a commit's signature names, whether it made that signature or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Writers {
    /// The author, then everyone in a `Co-authored-by` trailer; each once.
    pub(crate) authors: Vec<Person>,
    /// The committer; each once.
    pub(crate) committers: Vec<Person>,
    /// The SSH keys that commits are signed with.
    pub(crate) keys: BTreeSet<KeyId>,
}

impl Writers {
    pub(super) fn of(commit: &git2::Commit<'_>) -> Self {
        let mut writers = Self::default();
        writers.add(commit);
        writers
    }

    /// Takes in those of one more commit.
    pub(super) fn add(&mut self, commit: &git2::Commit<'_>) {
        add(&mut self.authors, person(&commit.author()));
        let bytes = commit.message_bytes();
        let message =
            String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MESSAGE_LIMIT)..]).into_owned();
        message.lines().filter_map(co_author).for_each(|one| add(&mut self.authors, one));
        add(&mut self.committers, person(&commit.committer()));
        let signature = commit.header_field_bytes("gpgsig").ok();
        let key = signature.and_then(|it| PublicKey::named_by_ssh_signature(str::from_utf8(&it).ok()?));
        self.keys.extend(key.map(|key| key.id()));
    }

    /// Takes in all of `others`.
    pub(crate) fn extend(&mut self, others: Self) {
        others.authors.into_iter().for_each(|one| add(&mut self.authors, one));
        others.committers.into_iter().for_each(|one| add(&mut self.committers, one));
        self.keys.extend(others.keys);
    }

    /// Authors, then those who only committed; each once.
    pub(crate) fn people(&self) -> Vec<Person> {
        let mut people = self.authors.clone();
        self.committers.iter().for_each(|one| add(&mut people, one.clone()));
        people
    }
}

fn add(people: &mut Vec<Person>, one: Person) {
    if !people.contains(&one) {
        people.push(one);
    }
}

fn person(signature: &git2::Signature<'_>) -> Person {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Person { name: text(signature.name_bytes()), email: text(signature.email_bytes()) }
}

/// Parses `Co-authored-by: Name <email>`, anywhere in the message.
fn co_author(line: &str) -> Option<Person> {
    let (key, value) = line.split_once(':')?;
    if !key.trim().eq_ignore_ascii_case("co-authored-by") {
        return None;
    }
    let (name, rest) = value.split_once('<')?;
    let (email, _) = rest.split_once('>')?;
    Some(Person { name: name.trim().to_owned(), email: email.trim().to_owned() })
}
