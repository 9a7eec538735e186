//! The reviews that a build asks for, and why one does not count. The node's policy decides again; this keeps an
//! unreviewed commit from being built at all.

use std::collections::BTreeSet;

use attestations::keys::PublicKey;
use attestations::review::{Review, Scope, Verdict};
use attestations::statement::Predicate;
use attestations::{Bundle, Commit, Digest};
use errors::plural;

use crate::error::{Error, Kind, Result};
use crate::source::{Repository, Snapshot};

/// How many reviews of changes since a reviewed commit are followed back.
const CHAIN_LIMIT: usize = 64;

/// A review as it was handed in.
pub struct HandedIn {
    /// The file's name.
    pub origin: String,
    /// The bundle.
    pub bundle: Bundle,
    review: Review,
    commit: Commit,
    signer: Option<usize>,
}

impl HandedIn {
    /// Reads a bundle, and finds which of `keys` signed it.
    ///
    /// # Errors
    /// When it is no review of one commit.
    pub fn parse(origin: &str, bytes: &[u8], keys: &[PublicKey]) -> Result<Self> {
        let refuse = |why: &str| Error::new(Kind::Input, format!("{origin} is not a review: {why}"));
        let bundle = Bundle::parse(bytes).map_err(|cause| refuse("it is no bundle").because(cause))?;
        let signer = keys.iter().position(|key| bundle.verify(key).is_ok());
        let statement =
            bundle.statement_unverified().map_err(|cause| refuse("it holds no statement").because(cause))?;
        let commit = match statement.subject.as_slice() {
            [subject] => subject.git_commit().ok_or_else(|| refuse("its subject is no commit"))?,
            _ => return Err(refuse("it is not about exactly one commit")),
        };
        let Predicate::Review(review) = statement.predicate else {
            return Err(refuse("it is a statement of another kind"));
        };
        Ok(Self { origin: origin.to_owned(), bundle, review, commit, signer })
    }

    /// The digest of the bundle.
    pub fn digest(&self) -> Digest {
        self.bundle.digest()
    }
}

/// What is asked of reviews.
#[derive(Debug, Clone)]
pub struct Demand {
    /// How many different keys must have approved.
    pub threshold: usize,
    /// Whose signatures count.
    pub keys: Vec<PublicKey>,
}

/// Checks that the commit has the reviews asked for.
///
/// # Errors
/// [`Kind::Refused`] with what is missing, and with why each review handed in does not count.
pub fn check(demand: &Demand, reviews: &[HandedIn], commit: &Snapshot<'_>) -> Result<()> {
    let mut gate = Gate { demand, reviews, repository: commit.repository(), ignored: Vec::new() };
    if let Some(veto) = gate.rejection(commit.id()) {
        return Err(Error::new(
            Kind::Refused,
            format!("commit {} was rejected by its reviewer: {veto}", commit.id()),
        )
        .hint("build a commit in which what was found is corrected"));
    }
    let counted = gate.count(commit, 0)?;
    if counted >= demand.threshold {
        return Ok(());
    }
    let mut text = format!(
        "commit {} has {counted} of the {} asked for",
        commit.id(),
        plural(demand.threshold, "review")
    );
    for reason in &gate.ignored {
        text.push_str("\n  not counted: ");
        text.push_str(reason);
    }
    Err(Error::new(Kind::Refused, text)
        .hint("have it reviewed with `countersign-builder review sign`, and give the files with --reviews"))
}

struct Gate<'a> {
    demand: &'a Demand,
    reviews: &'a [HandedIn],
    repository: &'a Repository,
    ignored: Vec<String>,
}

impl Gate<'_> {
    fn rejection(&self, commit: &Commit) -> Option<String> {
        let vetoes = |given: &&HandedIn| {
            given.signer.is_some() && given.commit == *commit && given.review.verdict == Verdict::Rejected
        };
        let veto = self.reviews.iter().find(vetoes)?;
        let note = veto.review.note.clone().unwrap_or_default();
        Some(format!("{} ({}) {note}", veto.review.reviewer.email, veto.origin))
    }

    /// How many different keys and people approved `commit`.
    fn count(&mut self, commit: &Snapshot<'_>, depth: usize) -> Result<usize> {
        let mut keys = BTreeSet::new();
        let mut people = BTreeSet::new();
        for given in self.reviews {
            match self.judge(given, commit, depth)? {
                Ok(key) => {
                    if people.insert(given.review.reviewer.email.to_lowercase()) {
                        keys.insert(key);
                    } else {
                        self.ignored.push(format!("{}: this reviewer is counted already", given.origin));
                    }
                }
                Err(reason) => self.ignored.push(format!("{}: {reason}", given.origin)),
            }
        }
        Ok(keys.len())
    }

    fn judge(
        &mut self,
        given: &HandedIn,
        commit: &Snapshot<'_>,
        depth: usize,
    ) -> Result<std::result::Result<usize, String>> {
        let Some(key) = given.signer else {
            return Ok(Err("it is signed by none of the reviewers' keys".to_owned()));
        };
        if given.commit != *commit.id() {
            return Ok(Err(format!("it is about commit {}", given.commit)));
        }
        if given.review.tree != commit.tree()? {
            return Ok(Err("it names another tree than this commit has".to_owned()));
        }
        if given.review.verdict == Verdict::Rejected {
            return Ok(Err("it rejects the commit".to_owned()));
        }
        let authors = match &given.review.scope {
            Scope::Tree => commit.authors(),
            Scope::Changes { since } => {
                if depth >= CHAIN_LIMIT {
                    return Ok(Err("it follows too many reviews of changes".to_owned()));
                }
                let before = self.repository.commit(since)?;
                if self.count(&before, depth + 1)? < self.demand.threshold {
                    return Ok(Err(format!(
                        "it covers the changes since {since}, which lacks reviews itself"
                    )));
                }
                commit.authors_since(&before)?
            }
        };
        let email = &given.review.reviewer.email;
        match authors.iter().any(|author| author.email.eq_ignore_ascii_case(email)) {
            true => Ok(Err(format!("{email} is an author of what was reviewed"))),
            false => Ok(Ok(key)),
        }
    }
}

/// Public keys of a file: PEM blocks and OpenSSH lines, one after the other; `#` starts a comment line.
///
/// # Errors
/// When anything else is in it, or nothing.
pub fn keys(text: &str, name: &str) -> Result<Vec<PublicKey>> {
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
