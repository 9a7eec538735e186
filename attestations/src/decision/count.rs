//! Counting the reviews of a commit. The node's decision and the builder's gate both ask here, so that they cannot differ.
//!
//! A rejection counts for the commit it names and for every commit with the same tree, whatever else is wrong with it. An
//! approval counts for one commit, from somebody who did not write it; one of changes needs the commit before them to be
//! reviewed the same way.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Ignored, Reason};
use crate::bundle::Verified;
use crate::clock;
use crate::digest::{Commit, Tree};
use crate::foreign::Foreign;
use crate::review::{OwnWork, Review, Scope, Verdict};
use crate::statement::{Statement, Subject};

/// How many reviews of changes may stand on each other.
const MAX_CHAIN: usize = 64;
/// How many commits are looked at in all, however the reviews branch; beyond it none counts.
const MAX_STEPS: usize = 4096;

/// Whose key signed a review.
#[derive(Debug, Clone, Copy)]
pub struct Reviewer<'a> {
    /// What tells them from others. One reviewer counts once, however many keys and reviews there are.
    pub name: &'a str,
    /// Their e-mail addresses, beside the one that their review names.
    pub emails: &'a [String],
    /// What their reviews can do.
    pub standing: Standing,
}

/// What a person's reviews can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Approve and reject.
    Full,
    /// Reject alone.
    VetoOnly,
}

/// What is asked of a commit's reviews.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// How many reviewers must have approved.
    pub threshold: usize,
    /// Whether authors may be among them.
    pub own_work: OwnWork,
}

/// What is known about commits from anything but reviews: a builder's account, or the repository.
pub trait Commits {
    /// Why it could not be found out.
    type Error;

    /// The commit's tree, if it is known.
    ///
    /// # Errors
    /// When it could not be found out.
    fn tree(&self, commit: &Commit) -> Result<Option<Tree>, Self::Error>;

    /// The e-mail addresses of its known authors; with `since`, of all that came after that commit too.
    ///
    /// # Errors
    /// When it could not be found out.
    fn authors(&self, commit: &Commit, since: Option<&Commit>) -> Result<Vec<String>, Self::Error>;
}

/// Verified reviews, by what they say.
#[derive(Debug, Default)]
pub struct Reviews<'a> {
    approvals: Vec<Approval<'a>>,
    rejections: Vec<Rejection>,
}

/// A yes to one commit, by somebody whose yes may count.
#[derive(Debug)]
struct Approval<'a> {
    origin: &'a str,
    reviewer: Reviewer<'a>,
    commit: Commit,
    review: Verified<&'a Review>,
}

/// A no.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// Who said it.
    pub by: String,
    /// Where it came from.
    pub origin: Foreign,
    /// What they said with it.
    pub note: Option<Foreign>,
    commits: BTreeSet<Commit>,
    tree: Tree,
}

impl Rejection {
    fn is_about(&self, commit: &Commit, trees: &BTreeSet<Tree>) -> bool {
        self.commits.contains(commit) || trees.contains(&self.tree)
    }
}

/// How the reviews of a commit came out.
#[derive(Debug)]
pub struct Count {
    /// The reviewers who approved it.
    pub approved_by: BTreeSet<String>,
    /// Where the approvals that counted came from, those of the commits before among them.
    pub counted: BTreeSet<String>,
    /// Every no to it.
    pub rejected: Vec<Rejection>,
    /// What was not counted.
    pub ignored: Vec<Ignored>,
}

impl<'a> Reviews<'a> {
    /// Takes in one signed statement of `reviewer`.
    ///
    /// # Errors
    /// Why it does not count for anything.
    pub fn take(
        &mut self,
        origin: &'a str,
        reviewer: Reviewer<'a>,
        statement: &'a Verified<Statement>,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let Some(review) = statement.review() else {
            let kind = statement.value().predicate.predicate_type();
            return Err(Reason::OtherPredicate(Foreign::new(kind)));
        };
        let subjects = statement.value().subject.as_slice();
        if review.value().verdict == Verdict::Rejected {
            self.rejections.push(Rejection {
                by: reviewer.name.to_owned(),
                origin: Foreign::new(origin),
                note: review.value().note.as_deref().map(Foreign::new),
                commits: subjects.iter().filter_map(Subject::git_commit).collect(),
                tree: review.value().tree.clone(),
            });
            return Ok(());
        }
        let [subject] = subjects else { return Err(Reason::ReviewOfSeveral) };
        let commit = subject.git_commit().ok_or(Reason::ReviewOfNoCommit)?;
        if reviewer.standing == Standing::VetoOnly {
            return Err(Reason::NoReviewer { person: Foreign::new(reviewer.name) });
        }
        let at = review.value().reviewed_on;
        if clock::is_ahead(at, now) {
            return Err(Reason::ReviewedLater { at });
        }
        self.approvals.push(Approval { origin, reviewer, commit, review });
        Ok(())
    }

    /// Counts the reviews of `commit`.
    ///
    /// # Errors
    /// When something about a commit could not be found out.
    pub fn count<C: Commits>(&self, commit: &Commit, wanted: Wanted, commits: &C) -> Result<Count, C::Error> {
        let mut counter = Counter {
            reviews: self,
            wanted,
            commits,
            ignored: Vec::new(),
            counted: BTreeSet::new(),
            seen: BTreeSet::new(),
            path: Vec::new(),
            steps: 0,
        };
        let mut rejected: Vec<Rejection> = counter.rejections(commit)?.cloned().collect();
        rejected.sort();
        let approved_by = counter.approvers(commit)?;
        let Counter { mut ignored, counted, seen, .. } = counter;
        let others = self.approvals.iter().filter(|it| !seen.contains(&it.commit));
        ignored.extend(
            others.map(|it| Ignored::new(it.origin, Reason::OtherCommit { commit: it.commit.clone() })),
        );
        Ok(Count { approved_by, counted, rejected, ignored })
    }
}

struct Counter<'a, C> {
    reviews: &'a Reviews<'a>,
    wanted: Wanted,
    commits: &'a C,
    ignored: Vec<Ignored>,
    counted: BTreeSet<String>,
    /// The commits whose reviews were looked at.
    seen: BTreeSet<Commit>,
    /// Those that stand on each other, from the one that is asked about.
    path: Vec<Commit>,
    steps: usize,
}

impl<'a, C: Commits> Counter<'a, C> {
    fn of(&self, commit: &'a Commit) -> impl Iterator<Item = &'a Approval<'a>> {
        self.reviews.approvals.iter().filter(move |it| it.commit == *commit)
    }

    /// Every no to a commit. Where its tree is not known, that is what its approvals say it is.
    fn rejections(&self, commit: &'a Commit) -> Result<impl Iterator<Item = &'a Rejection>, C::Error> {
        let trees: BTreeSet<Tree> = match self.commits.tree(commit)? {
            Some(tree) => BTreeSet::from([tree]),
            None => self.of(commit).map(|it| it.review.value().tree.clone()).collect(),
        };
        Ok(self.reviews.rejections.iter().filter(move |it| it.is_about(commit, &trees)))
    }

    /// Who approved a commit.
    fn approvers(&mut self, commit: &'a Commit) -> Result<BTreeSet<String>, C::Error> {
        let mut approved = BTreeSet::new();
        self.steps += 1;
        if self.path.len() >= MAX_CHAIN || self.steps > MAX_STEPS || self.path.contains(commit) {
            return Ok(approved);
        }
        self.path.push(commit.clone());
        self.seen.insert(commit.clone());
        let tree = self.commits.tree(commit)?;
        let mut authors = emails(self.commits.authors(commit, None)?);
        let approvals: Vec<&Approval<'_>> = self.of(commit).collect();
        for one in &approvals {
            authors.extend(one.review.value().authors.iter().map(|it| plain(&it.email)));
        }
        let mut before = BTreeMap::new();
        for one in approvals {
            match self.refusal(one, tree.as_ref(), &authors, &mut before)? {
                None => {
                    approved.insert(one.reviewer.name.to_owned());
                    self.counted.insert(one.origin.to_owned());
                }
                Some(reason) => self.ignored.push(Ignored::new(one.origin, reason)),
            }
        }
        self.path.pop();
        Ok(approved)
    }

    /// Why an approval does not count; nothing when it does. `before` holds what is known of the commits before.
    fn refusal(
        &mut self,
        one: &'a Approval<'a>,
        tree: Option<&Tree>,
        authors: &BTreeSet<String>,
        before: &mut BTreeMap<&'a Commit, bool>,
    ) -> Result<Option<Reason>, C::Error> {
        let review = *one.review.value();
        if tree.is_some_and(|tree| *tree != review.tree) {
            return Ok(Some(Reason::OtherTree));
        }
        let author = || Some(Reason::Author { person: Foreign::new(one.reviewer.name) });
        if self.wanted.own_work == OwnWork::Ignored && is_among(one, authors) {
            return Ok(author());
        }
        let Scope::Changes { since } = &review.scope else { return Ok(None) };
        if self.wanted.own_work == OwnWork::Ignored
            && is_among(one, &emails(self.commits.authors(&one.commit, Some(since))?))
        {
            return Ok(author());
        }
        let enough = match before.get(since) {
            Some(known) => *known,
            None => {
                let enough = self.rejections(since)?.next().is_none()
                    && self.approvers(since)?.len() >= self.wanted.threshold;
                before.insert(since, enough);
                enough
            }
        };
        Ok((!enough).then(|| Reason::Since { since: since.clone() }))
    }
}

/// Whether the reviewer has one of these addresses.
fn is_among(one: &Approval<'_>, authors: &BTreeSet<String>) -> bool {
    let own = one.reviewer.emails.iter().chain([&one.review.value().reviewer.email]);
    own.into_iter().any(|email| authors.contains(&plain(email)))
}

fn emails(all: Vec<String>) -> BTreeSet<String> {
    all.iter().map(|email| plain(email)).collect()
}

/// An address as it is compared.
fn plain(email: &str) -> String {
    email.trim().to_lowercase()
}
