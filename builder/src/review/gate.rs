//! The reviews that a build requires, and why others do not count. The node's policy decides again; this check keeps
//! an unreviewed commit from being built at all.

use std::collections::BTreeSet;

use attestations::keys::{KeyId, PublicKey};
use attestations::review::OwnWork;
use attestations::reviews::{Commits, Rejection, Reviewer, Reviews, Standing, Wanted};
use attestations::{Bundle, Commit, Digest, Foreign, SignedBundle, Statement, Tree, Verified, review};
use errors::plural;

use crate::error::{Error, Kind, Result};
use crate::source::{Repository, Snapshot};

/// A review that was handed in.
pub(crate) struct HandedIn {
    /// The file's name.
    pub(crate) origin: String,
    /// The bundle.
    pub(crate) bundle: SignedBundle,
    /// The statement, if one of the reviewers' keys signed it.
    signed: Option<Verified<Statement>>,
}

impl HandedIn {
    /// Parses a bundle, and finds the key of `keys` that signed it.
    ///
    /// # Errors
    /// When it is not a review.
    pub(crate) fn parse(origin: &str, bytes: &[u8], keys: &[PublicKey]) -> Result<Self> {
        let refuse = |why: &str| Error::new(Kind::Input, format!("{origin} is not a review: {why}"));
        let bundle = Bundle::parse(bytes).map_err(|cause| refuse("it is no bundle").because(cause))?;
        let no_statement = |cause| refuse("it holds no statement").because(cause);
        let payload = keys.iter().find_map(|key| bundle.verify(key).ok());
        let signed = payload.map(|it| it.statement()).transpose().map_err(no_statement)?;
        let bundle = SignedBundle::read_unverified(bundle).map_err(no_statement)?;
        match bundle.predicate_type() == review::PREDICATE_TYPE {
            true => Ok(Self { origin: origin.to_owned(), bundle, signed }),
            false => Err(refuse("it is a statement of another kind")),
        }
    }

    /// The digest of the bundle.
    pub(crate) fn digest(&self) -> Digest {
        self.bundle.digest()
    }
}

/// The required reviews.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// How many different reviewers must have approved.
    pub(crate) threshold: usize,
    /// The current time; reviews from the future do not count.
    pub(crate) now: jiff::Timestamp,
}

/// Checks that the commit has the required reviews.
///
/// # Errors
/// [`Kind::Refused`] with the number that is missing, and with the reason for each review that does not count.
pub(crate) fn check(demand: &Demand, handed_in: &[HandedIn], commit: &Snapshot<'_>) -> Result<()> {
    let people = people(handed_in);
    let mut reviews = Reviews::default();
    let mut ignored = Vec::new();
    for given in handed_in {
        let reason = match given.signed.as_ref().and_then(|it| Some((it, reviewer(it, &people)?))) {
            Some((statement, reviewer)) => {
                reviews.take(&given.origin, reviewer, statement, demand.now).err().map(|it| it.to_string())
            }
            None => Some("it is signed by none of the reviewers' keys".to_owned()),
        };
        ignored.extend(reason.map(|reason| format!("{}: {reason}", Foreign::new(&given.origin))));
    }
    let wanted = Wanted { threshold: demand.threshold, own_work: OwnWork::Ignored };
    let count = reviews.count(commit.id(), wanted, &InRepository(commit.repository()))?;
    if let Some(veto) = count.rejected.first() {
        let text = format!("commit {} was rejected by its reviewer: {}", commit.id(), described(veto));
        return Err(
            Error::new(Kind::Refused, text).hint("build a commit in which what was found is corrected")
        );
    }
    if count.approved_by.len() >= demand.threshold {
        return Ok(());
    }
    let mut text = format!(
        "commit {} has {} of the {} asked for",
        commit.id(),
        count.approved_by.len(),
        plural(demand.threshold, "review")
    );
    ignored.extend(count.ignored.iter().map(ToString::to_string));
    for reason in &ignored {
        text.push_str("\n  not counted: ");
        text.push_str(reason);
    }
    Err(Error::new(Kind::Refused, text)
        .hint("have it reviewed with `countersign-builder review sign`, and give the files with --reviews"))
}

fn described(veto: &Rejection) -> String {
    let note = veto.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
    format!("{} ({}){note}", veto.by, veto.origin)
}

/// A reviewer, as identified by the reviews: a policy names people, but the builder only has keys. Keys whose reviews
/// have the same e-mail address belong to one person, and so do the addresses in one key's reviews.
struct Person {
    name: String,
    keys: BTreeSet<KeyId>,
    emails: Vec<String>,
}

fn people(handed_in: &[HandedIn]) -> Vec<Person> {
    let mut groups: Vec<(BTreeSet<KeyId>, BTreeSet<String>)> = Vec::new();
    for statement in handed_in.iter().filter_map(|given| given.signed.as_ref()) {
        let Some(review) = statement.review() else { continue };
        let key = review.signer().id();
        let email = review.value().reviewer.email.trim().to_lowercase();
        let is_same = |(keys, emails): &mut (BTreeSet<KeyId>, BTreeSet<String>)| {
            keys.contains(&key) || emails.contains(&email)
        };
        let (mut keys, mut emails) = (BTreeSet::from([key.clone()]), BTreeSet::from([email.clone()]));
        for (more_keys, more_emails) in groups.extract_if(.., is_same) {
            keys.extend(more_keys);
            emails.extend(more_emails);
        }
        groups.push((keys, emails));
    }
    let person = |(keys, emails): (BTreeSet<KeyId>, BTreeSet<String>)| {
        let emails: Vec<String> = emails.into_iter().collect();
        let names: Vec<String> = emails.iter().map(|email| Foreign::new(email).to_string()).collect();
        Person { name: names.join(", "), keys, emails }
    };
    groups.into_iter().map(person).collect()
}

fn reviewer<'a>(statement: &Verified<Statement>, people: &'a [Person]) -> Option<Reviewer<'a>> {
    let person = people.iter().find(|person| person.keys.contains(&statement.signer().id()))?;
    Some(Reviewer { name: &person.name, emails: &person.emails, standing: Standing::Full })
}

/// The repository as a source of facts about commits.
struct InRepository<'a>(&'a Repository);

impl Commits for InRepository<'_> {
    type Error = Error;

    fn tree(&self, commit: &Commit) -> Result<Option<Tree>> {
        Ok(Some(self.0.commit(commit)?.tree()?))
    }

    fn authors(&self, commit: &Commit, since: Option<&Commit>) -> Result<Vec<String>> {
        let commit = self.0.commit(commit)?;
        let mut authors = commit.authors();
        if let Some(since) = since {
            authors.extend(commit.authors_since(&self.0.commit(since)?)?);
        }
        Ok(authors.into_iter().map(|author| author.email).collect())
    }
}

/// Parses a file of public keys: PEM blocks and OpenSSH lines; `#` starts a comment line.
///
/// # Errors
/// When there is anything else in it, or no key.
pub(crate) fn keys(text: &str, name: &str) -> Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    let mut block = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let in_block = !block.is_empty();
        if !in_block && line.starts_with('#') {
            continue;
        }
        block.push_str(line);
        block.push('\n');
        if (in_block || line.starts_with("-----BEGIN")) && !line.starts_with("-----END") {
            continue;
        }
        let parsed = PublicKey::parse(&block);
        keys.push(parsed.map_err(|cause| {
            Error::new(Kind::Key, format!("{name} holds no public key here: {line}")).because(cause)
        })?);
        block.clear();
    }
    match keys.is_empty() || !block.is_empty() {
        true => {
            Err(Error::new(Kind::Key, format!("{name} holds no public key, or ends in the middle of one")))
        }
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests;
