//! The reviews that a build requires, and why others do not count. The node's policy decides again; this check keeps
//! an unreviewed commit from being built at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use attestations::keys::{KeyId, PublicKey};
use attestations::review::{CountedOnce, OwnWork, Parameters, Role};
use attestations::reviews::{
    Authors, Built, Commits, Rejection, ReviewCriteria, Reviewer, Reviews, Standing,
};
use attestations::{Bundle, Commit, Digest, Foreign, SignedBundle, Statement, Tree, Verified, review};
use errors::{plural, trusted};

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

    /// What it says, if one of the reviewers' keys signed it.
    pub(crate) fn signed(&self) -> Option<&Verified<Statement>> {
        self.signed.as_ref()
    }

    /// The digest of the bundle.
    pub(crate) fn digest(&self) -> Digest {
        self.bundle.digest()
    }
}

/// Whether these bytes are a signed statement of another kind than a review.
pub(crate) fn is_other_statement(bytes: &[u8]) -> bool {
    let read = Bundle::parse(bytes).and_then(SignedBundle::read_unverified);
    read.is_ok_and(|bundle| bundle.predicate_type() != review::PREDICATE_TYPE)
}

/// The required reviews.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// In each role, how many different reviewers must have approved.
    pub(crate) roles: BTreeMap<Role, usize>,
    /// The current time; reviews from the future do not count, nor do those that have expired.
    pub(crate) now: jiff::Timestamp,
}

/// Checks that the commit has the required reviews, for a build with these parameters.
///
/// # Errors
/// [`Kind::Refused`] with the number that is missing, and with the reason for each review that does not count.
pub(crate) fn check(
    demand: &Demand,
    handed_in: &[HandedIn],
    commit: &Snapshot<'_>,
    parameters: &Parameters,
) -> Result<()> {
    let people = people(handed_in);
    let sorted = Sorted::new(demand, handed_in, &people);
    let commits = InRepository { repository: commit.repository(), built: Some((commit.id(), parameters)) };
    if let Some(veto) = sorted.reviews.rejections(commit.id(), &commits)?.first() {
        let text = format!("commit {} was rejected by its reviewer: {}", commit.id(), described(veto));
        return Err(
            Error::new(Kind::Refused, text).hint("build a commit in which what was found is corrected")
        );
    }
    for (role, threshold) in &demand.roles {
        let count = sorted.reviews.count(commit.id(), wanted(role, *threshold), &commits)?;
        if count.approvals < *threshold {
            let ignored = sorted.ignored.iter().cloned().chain(count.ignored.iter().map(ToString::to_string));
            return Err(lacking(commit.id(), (role, *threshold), count.approvals, ignored));
        }
    }
    Ok(())
}

fn wanted(role: &Role, threshold: usize) -> ReviewCriteria<'_> {
    ReviewCriteria { role, threshold, counted_once: CountedOnce::Person, own_work: OwnWork::Ignored }
}

fn lacking(
    commit: &Commit,
    (role, threshold): (&Role, usize),
    found: usize,
    ignored: impl Iterator<Item = String>,
) -> Error {
    let asked = plural(threshold, "review");
    let role = if role.is_code() { String::new() } else { format!(", in the role {role}") };
    let mut text = format!("commit {commit} has {found} of the {asked} asked for{role}");
    for reason in ignored {
        text.push_str("\n  not counted: ");
        text.push_str(&reason);
    }
    Error::new(Kind::Refused, text)
        .hint("have it reviewed with `countersign-builder review sign`, and give the files with --reviews")
}

/// The reviews that were handed in, by what they say.
pub(super) struct Sorted<'a> {
    pub(super) reviews: Reviews<'a>,
    ignored: Vec<String>,
}

impl<'a> Sorted<'a> {
    /// Who signed what is found out once, and the reviewers with it.
    pub(super) fn new(demand: &Demand, handed_in: &'a [HandedIn], people: &'a [Person]) -> Self {
        let mut sorted = Self { reviews: Reviews::default(), ignored: Vec::new() };
        for given in handed_in {
            let reason = match given.signed.as_ref().and_then(|it| Some((it, reviewer(it, demand, people)?)))
            {
                Some((statement, reviewer)) => {
                    let taken = sorted.reviews.take(&given.origin, reviewer, statement, demand.now);
                    taken.err().map(|it| it.to_string())
                }
                None => Some("it is signed by none of the reviewers' keys".to_owned()),
            };
            let told = reason.map(|reason| format!("{}: {reason}", Foreign::new(&given.origin)));
            sorted.ignored.extend(told);
        }
        sorted
    }

    /// Who approved the commit in a role, if they are enough and nobody rejected it.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub(super) fn approved_by(
        &self,
        repository: &Repository,
        commit: &Commit,
        (role, threshold): (&Role, usize),
    ) -> Result<Option<BTreeSet<String>>> {
        let commits = InRepository { repository, built: None };
        if !self.reviews.rejections(commit, &commits)?.is_empty() {
            return Ok(None);
        }
        let count = self.reviews.count(commit, wanted(role, threshold), &commits)?;
        Ok((count.approvals >= threshold).then_some(count.approved_by))
    }
}

fn described(veto: &Rejection) -> String {
    let note = veto.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
    format!("{} ({}){note}", veto.by, veto.origin)
}

/// A reviewer, as identified by the reviews: a policy names people, but the builder only has keys. Keys whose reviews
/// have the same e-mail address belong to one person, and so do the addresses in one key's reviews.
pub(super) struct Person {
    name: String,
    keys: Vec<KeyId>,
    emails: Vec<String>,
}

pub(super) fn people(handed_in: &[HandedIn]) -> Vec<Person> {
    let mut groups: Vec<(BTreeSet<KeyId>, BTreeSet<String>)> = Vec::new();
    for statement in handed_in.iter().filter_map(|given| given.signed.as_ref()) {
        let Some(review) = statement.review() else { continue };
        let id = review.signer().id();
        let email = review.value().reviewer.email.trim().to_lowercase();
        let is_same = |(keys, emails): &mut (BTreeSet<KeyId>, BTreeSet<String>)| {
            keys.contains(&id) || emails.contains(&email)
        };
        let mut keys = BTreeSet::from([id.clone()]);
        let mut emails = BTreeSet::from([email.clone()]);
        for (more_keys, more_emails) in groups.extract_if(.., is_same) {
            keys.extend(more_keys);
            emails.extend(more_emails);
        }
        groups.push((keys, emails));
    }
    let person = |(keys, emails): (BTreeSet<KeyId>, BTreeSet<String>)| {
        let emails: Vec<String> = emails.into_iter().collect();
        let names: Vec<String> = emails.iter().map(|email| Foreign::new(email).to_string()).collect();
        Person { name: names.join(", "), keys: keys.into_iter().collect(), emails }
    };
    groups.into_iter().map(person).collect()
}

fn reviewer<'a>(
    statement: &Verified<Statement>,
    demand: &Demand,
    people: &'a [Person],
) -> Option<Reviewer<'a>> {
    let person = people.iter().find(|person| person.keys.contains(&statement.signer().id()))?;
    let is_asked = statement.review().is_some_and(|it| demand.roles.contains_key(&it.value().role));
    Some(Reviewer {
        name: &person.name,
        organisation: None,
        emails: &person.emails,
        keys: &person.keys,
        standing: if is_asked { Standing::Full } else { Standing::VetoOnly },
    })
}

/// The repository as a source of facts about commits, and how one of them is about to be built.
struct InRepository<'a> {
    repository: &'a Repository,
    built: Option<(&'a Commit, &'a Parameters)>,
}

impl Commits for InRepository<'_> {
    type Error = Error;

    fn tree(&self, commit: &Commit) -> Result<Option<Tree>> {
        Ok(Some(self.repository.commit(commit)?.tree()?))
    }

    fn authors(&self, commit: &Commit, since: Option<&Commit>) -> Result<Authors> {
        let commit = self.repository.commit(commit)?;
        let mut writers = commit.writers();
        if let Some(since) = since {
            writers.extend(commit.writers_since(&self.repository.commit(since)?)?);
        }
        let mut authors = Authors::new();
        authors.add(writers.authors.iter().chain(&writers.committers), &writers.keys);
        Ok(authors)
    }

    /// Bases and packages are known only when it was built: the node asks for those.
    fn built(&self, commit: &Commit) -> Option<Built<'_>> {
        let (_, parameters) = self.built.filter(|(own, _)| *own == commit)?;
        Some(Built {
            dockerfile: &parameters.dockerfile,
            context: &parameters.context,
            target: parameters.target.as_deref(),
            build_args: &parameters.build_args,
            bases: None,
            locks: None,
        })
    }
}

/// Reads a file of public keys of at most `limit` bytes, which nobody else may change.
///
/// # Errors
/// When it cannot be read, or as [`keys`].
pub(crate) fn read_keys(path: &Path, limit: u64) -> Result<Vec<PublicKey>> {
    let text = String::from_utf8_lossy(&trusted::read(path, limit)?).into_owned();
    keys(&text, &path.display().to_string())
}

/// Parses a file of public keys: PEM blocks and OpenSSH lines; `#` starts a comment line.
///
/// # Errors
/// When there is anything else in it, or no key.
fn keys(text: &str, name: &str) -> Result<Vec<PublicKey>> {
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
