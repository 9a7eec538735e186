//! Reviews of commits: asking for one, showing the content and what of it nobody reviewed, signing a review, and verifying
//! one.

mod contents;
mod diff;
mod findings;
pub(crate) mod gate;
pub(crate) mod request;
pub(crate) mod show;
pub(crate) mod unreviewed;
pub(crate) mod visible;

use std::str::FromStr;

use attestations::Digest;
use attestations::bundle::{Bundle, SignedBundle, Verified};
use attestations::digest::Commit;
use attestations::keys::{PublicKey, Signer};
use attestations::review::{Parameters, Person, Review, Role, Scope, Verdict};
use attestations::statement::{Predicate, Statement, Subject};

use crate::error::{Error, Kind, Result};
use crate::source::{Repository, Snapshot, Writers};

/// The content of a review.
pub(crate) struct Opinion {
    /// Approved or rejected.
    pub(crate) verdict: Verdict,
    /// What the commit was read for.
    pub(crate) role: Role,
    /// The reviewer.
    pub(crate) reviewer: Person,
    /// The reviewer's comment.
    pub(crate) note: Option<String>,
    /// The time, by the reviewer's clock.
    pub(crate) on: jiff::Timestamp,
    /// From when on it does not count any more.
    pub(crate) expires: Option<jiff::Timestamp>,
    /// How the commit is to be built, where that was read too.
    pub(crate) parameters: Option<Parameters>,
    /// The digest of the lock that was read too.
    pub(crate) lock: Option<Digest>,
}

/// The subject of a review: a whole commit, or its changes since an earlier one.
pub(crate) struct Subjects<'a> {
    commit: Snapshot<'a>,
    since: Option<Snapshot<'a>>,
}

impl<'a> Subjects<'a> {
    /// Fetches the commits.
    ///
    /// # Errors
    /// When a commit does not exist, or `since` is not in the history of `commit`.
    pub(crate) fn fetch(
        repository: &'a Repository,
        commit: &str,
        since: Option<&str>,
    ) -> Result<Subjects<'a>> {
        let commit = repository.commit(&parse_commit(commit)?)?;
        let since = since.map(|id| Ok::<_, Error>(repository.commit(&parse_commit(id)?)?)).transpose()?;
        if let Some(since) = &since {
            let (new, old) = (commit.git_commit().id(), since.git_commit().id());
            let git = commit.history()?;
            let is_older = git.find_commit(old).is_ok()
                && git.graph_descendant_of(new, old).map_err(contents::unreadable)?;
            if !is_older {
                let text = format!("{} is not in the history of {}", since.id(), commit.id());
                let hint = "give a commit that was reviewed before, or leave --since out";
                return Err(Error::new(Kind::Input, text).hint(hint));
            }
        }
        Ok(Subjects { commit, since })
    }

    /// Who wrote and committed what is reviewed. None of them counts as its reviewer.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub(crate) fn writers(&self) -> Result<Writers> {
        let mut writers = self.commit.writers();
        if let Some(since) = &self.since {
            writers.extend(self.commit.writers_since(since)?);
        }
        Ok(writers)
    }

    /// How much is reviewed.
    ///
    /// # Errors
    /// Never for a repository that git accepts.
    pub(crate) fn scope(&self) -> Result<Scope> {
        Ok(match &self.since {
            None => Scope::Tree,
            Some(since) => Scope::Changes { since: since.id().clone(), since_tree: since.tree()? },
        })
    }

    /// The commit that was reviewed before, if only changes are.
    pub(crate) fn since(&self) -> Option<&Snapshot<'a>> {
        self.since.as_ref()
    }

    /// The commit that is reviewed.
    pub(crate) fn commit(&self) -> &Snapshot<'a> {
        &self.commit
    }

    /// Signs a review.
    ///
    /// # Errors
    /// When the history cannot be read, or signing fails.
    pub(crate) fn sign(&self, opinion: Opinion, key: &dyn Signer) -> Result<SignedBundle> {
        let commit = self.commit.id();
        let writers = self.writers()?;
        let review = Review {
            tree: self.commit.tree()?,
            verdict: opinion.verdict,
            role: opinion.role,
            scope: self.scope()?,
            reviewer: opinion.reviewer,
            authors: writers.people(),
            author_keys: writers.keys,
            reviewed_on: opinion.on,
            expires_on: opinion.expires,
            parameters: opinion.parameters,
            lock: opinion.lock,
            note: opinion.note,
        };
        let subject = Subject::commit(self.commit.repository().location().uri(), commit);
        let statement = Statement { subject: vec![subject], predicate: Predicate::Review(Box::new(review)) };
        attestations::bundle::sign(&statement, key)
            .map_err(|error| Error::new(Kind::Key, "the review could not be signed").because(error))
    }
}

/// Checks that `bytes` are a review signed by `key`.
///
/// # Errors
/// Malformed bytes, another kind of statement, or a signature that is not the key's ([`Kind::Refused`]).
pub(crate) fn verify(bytes: &[u8], key: &PublicKey) -> Result<Verified<Statement>> {
    let bundle = Bundle::parse(bytes)
        .map_err(|error| Error::new(Kind::Input, "the file is no signed statement").because(error))?;
    let payload = bundle.verify(key).map_err(|error| {
        Error::new(Kind::Refused, "the signature is not that key's over this statement").because(error)
    })?;
    let verified = payload.statement().map_err(|error| {
        Error::new(Kind::Input, "the statement is signed by that key, but cannot be read").because(error)
    })?;
    match verified.value().predicate {
        Predicate::Review(_) => Ok(verified),
        _ => Err(Error::new(Kind::Refused, "the statement is signed by that key, but is no review")),
    }
}

fn parse_commit(text: &str) -> Result<Commit> {
    Commit::from_str(text).map_err(|error| {
        Error::new(Kind::Usage, format!("{text:?} is not a full commit id"))
            .hint("`git rev-parse COMMIT` prints it; names and short ids can come to mean something else")
            .because(error)
    })
}

#[cfg(test)]
mod tests;
