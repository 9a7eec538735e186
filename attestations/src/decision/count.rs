//! Counting the reviews of a commit. The node's decision and the builder's gate both ask here, so that they cannot differ.
//!
//! A rejection counts for the commit it names and for every commit with the same tree, whatever else is wrong with it. An
//! approval counts for one commit and one role, from somebody who neither wrote nor committed it; one of changes needs the
//! commit before them, with the tree that it names, to be reviewed the same way.

mod authors;
mod built;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Ignored, Reason};
use crate::bundle::Verified;
use crate::clock;
use crate::digest::{Commit, Tree};
use crate::foreign::Foreign;
use crate::keys::KeyId;
use crate::review::{CountedOnce, OwnWork, Review, Role, Scope, Verdict};
use crate::statement::{Statement, Subject};

pub use authors::Authors;
pub use built::Built;

/// How many reviews of changes may stand on each other.
const MAX_CHAIN: usize = 64;
/// How many commits are looked at in all, however the reviews branch; beyond it none counts.
const MAX_STEPS: usize = 4096;

/// Whose key signed a review.
#[derive(Debug, Clone, Copy)]
pub struct Reviewer<'a> {
    /// What tells them from others. One reviewer counts once, however many keys and reviews there are.
    pub name: &'a str,
    /// Whom they speak for, where the policy says so.
    pub organisation: Option<&'a str>,
    /// Their e-mail addresses, beside the one that their review names.
    pub emails: &'a [String],
    /// The ids of their keys, with which they may have signed commits as well.
    pub keys: &'a [KeyId],
    /// What their review can do in the role that it names.
    pub standing: Standing,
}

/// What a person's review can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Approve and reject.
    Full,
    /// Reject alone.
    VetoOnly,
}

/// What is asked of a commit's reviews.
#[derive(Debug, Clone, Copy)]
pub struct ReviewCriteria<'a> {
    /// In which role.
    pub role: &'a Role,
    /// How many must have approved.
    pub threshold: usize,
    /// How many of what.
    pub counted_once: CountedOnce,
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

    /// Its known authors and committers; with `since`, those of all that came after that commit too.
    ///
    /// # Errors
    /// When it could not be found out.
    fn authors(&self, commit: &Commit, since: Option<&Commit>) -> Result<Authors, Self::Error>;

    /// How it is built. None where the commit is not the one whose build is asked about.
    fn built(&self, commit: &Commit) -> Option<Built<'_>>;
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

/// How the reviews of a commit came out in one role.
#[derive(Debug)]
pub struct Count {
    /// The reviewers who approved it.
    pub approved_by: BTreeSet<String>,
    /// How many approvals that is, of what counts once.
    pub approvals: usize,
    /// Where the approvals that counted came from, those of the commits before among them.
    pub counted: BTreeSet<String>,
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
        let said = *review.value();
        if said.verdict == Verdict::Rejected {
            self.rejections.push(Rejection {
                by: reviewer.name.to_owned(),
                origin: Foreign::new(origin),
                note: said.note.as_deref().map(Foreign::new),
                commits: subjects.iter().filter_map(Subject::git_commit).collect(),
                tree: said.tree.clone(),
            });
            return Ok(());
        }
        let [subject] = subjects else { return Err(Reason::ReviewOfSeveral) };
        let commit = subject.git_commit().ok_or(Reason::ReviewOfNoCommit)?;
        if reviewer.standing == Standing::VetoOnly {
            let (person, role) = (Foreign::new(reviewer.name), said.role.clone());
            return Err(Reason::NoReviewer { person, role });
        }
        if clock::is_ahead(said.reviewed_on, now) {
            return Err(Reason::ReviewedLater { at: said.reviewed_on });
        }
        if let Some(at) = said.expires_on.filter(|end| *end <= now) {
            return Err(Reason::ReviewExpired { at });
        }
        self.approvals.push(Approval { origin, reviewer, commit, review });
        Ok(())
    }

    /// Every no to `commit`.
    ///
    /// # Errors
    /// When something about the commit could not be found out.
    pub fn rejections<C: Commits>(&self, commit: &Commit, commits: &C) -> Result<Vec<Rejection>, C::Error> {
        let trees = match commits.tree(commit)? {
            Some(tree) => BTreeSet::from([tree]),
            // It is what its approvals say it is.
            None => {
                let own = self.approvals.iter().filter(|it| it.commit == *commit);
                own.map(|it| it.review.value().tree.clone()).collect()
            }
        };
        let mut rejected: Vec<Rejection> = self.against(commit, &trees).cloned().collect();
        rejected.sort();
        Ok(rejected)
    }

    fn against(&self, commit: &Commit, trees: &BTreeSet<Tree>) -> impl Iterator<Item = &Rejection> {
        self.rejections.iter().filter(move |it| it.is_about(commit, trees))
    }

    /// Whether one of them names the lock of a build.
    pub(crate) fn name_locks(&self) -> bool {
        self.approvals.iter().any(|it| it.review.value().lock.is_some())
    }

    /// Counts the approvals of `commit`.
    ///
    /// # Errors
    /// When something about a commit could not be found out.
    pub fn count<C: Commits>(
        &self,
        commit: &Commit,
        wanted: ReviewCriteria<'_>,
        commits: &C,
    ) -> Result<Count, C::Error> {
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
        let approvers = counter.approvers(commit, None)?;
        let Counter { mut ignored, counted, seen, .. } = counter;
        let in_role = self.approvals.iter().filter(|it| it.review.value().role == *wanted.role);
        let others = in_role.filter(|it| !seen.contains(&it.commit));
        ignored.extend(
            others.map(|it| Ignored::new(it.origin, Reason::OtherCommit { commit: it.commit.clone() })),
        );
        let approvals = approvers.count(wanted.counted_once);
        let approved_by = approvers.people.into_iter().map(str::to_owned).collect();
        Ok(Count { approved_by, approvals, counted, ignored })
    }
}

/// Who approved a commit.
#[derive(Default)]
struct Approvers<'a> {
    people: BTreeSet<&'a str>,
    organisations: BTreeSet<&'a str>,
}

impl<'a> Approvers<'a> {
    fn add(&mut self, reviewer: &Reviewer<'a>) {
        self.people.insert(reviewer.name);
        self.organisations.extend(reviewer.organisation);
    }

    fn count(&self, once: CountedOnce) -> usize {
        match once {
            CountedOnce::Person => self.people.len(),
            CountedOnce::Organisation => self.organisations.len(),
        }
    }
}

/// What is known of the commits before: whether they have enough reviews themselves.
type Before<'a> = BTreeMap<(&'a Commit, &'a Tree), bool>;

struct Counter<'a, 'w, C> {
    reviews: &'a Reviews<'a>,
    wanted: ReviewCriteria<'w>,
    commits: &'a C,
    ignored: Vec<Ignored>,
    counted: BTreeSet<String>,
    /// The commits whose reviews were looked at.
    seen: BTreeSet<Commit>,
    /// Those that stand on each other, from the one that is asked about.
    path: Vec<Commit>,
    steps: usize,
}

impl<'a, C: Commits> Counter<'a, '_, C> {
    /// Who approved a commit; with `named`, a commit of that tree and no other.
    fn approvers(&mut self, commit: &'a Commit, named: Option<&Tree>) -> Result<Approvers<'a>, C::Error> {
        let mut approved = Approvers::default();
        self.steps += 1;
        if self.path.len() >= MAX_CHAIN || self.steps > MAX_STEPS || self.path.contains(commit) {
            return Ok(approved);
        }
        self.path.push(commit.clone());
        self.seen.insert(commit.clone());
        let known = self.commits.tree(commit)?;
        let trees: Vec<&Tree> = known.iter().chain(named).collect();
        let role = self.wanted.role;
        let of_commit = self.reviews.approvals.iter().filter(|it| it.commit == *commit);
        // Whoever approved it in any role may name an author.
        let mut authors = self.commits.authors(commit, None)?;
        for one in of_commit.clone() {
            authors.add_named(one.review.value());
        }
        let mut before = Before::new();
        for one in of_commit.filter(|it| it.review.value().role == *role) {
            match self.refusal(one, &trees, &authors, &mut before)? {
                None => {
                    approved.add(&one.reviewer);
                    self.counted.insert(one.origin.to_owned());
                }
                Some(reason) => self.ignored.push(Ignored::new(one.origin, reason)),
            }
        }
        self.path.pop();
        Ok(approved)
    }

    /// Why an approval does not count; nothing when it does.
    fn refusal(
        &mut self,
        one: &'a Approval<'a>,
        trees: &[&Tree],
        authors: &Authors,
        before: &mut Before<'a>,
    ) -> Result<Option<Reason>, C::Error> {
        let review = *one.review.value();
        if trees.iter().any(|tree| **tree != review.tree) {
            return Ok(Some(Reason::OtherTree));
        }
        if let Some(what) = self.commits.built(&one.commit).and_then(|built| built.differs_from(review)) {
            return Ok(Some(Reason::OtherBuild { what }));
        }
        let author = || Some(Reason::Author { person: Foreign::new(one.reviewer.name) });
        if self.wanted.own_work == OwnWork::Ignored && authors.include(&one.reviewer, review) {
            return Ok(author());
        }
        let Scope::Changes { since, since_tree } = &review.scope else { return Ok(None) };
        if self.wanted.own_work == OwnWork::Ignored
            && self.commits.authors(&one.commit, Some(since))?.include(&one.reviewer, review)
        {
            return Ok(author());
        }
        let enough = match before.get(&(since, since_tree)) {
            Some(known) => *known,
            None => {
                let enough = self.is_reviewed(since, since_tree)?;
                before.insert((since, since_tree), enough);
                enough
            }
        };
        let lacking = || Reason::Since { since: since.clone(), tree: since_tree.clone() };
        Ok((!enough).then(lacking))
    }

    /// Whether a commit before has that tree, enough approvals, and no rejection of it or of its tree.
    fn is_reviewed(&mut self, since: &'a Commit, tree: &'a Tree) -> Result<bool, C::Error> {
        let mut trees = BTreeSet::from([tree.clone()]);
        trees.extend(self.commits.tree(since)?);
        if self.reviews.against(since, &trees).next().is_some() {
            return Ok(false);
        }
        let approvers = self.approvers(since, Some(tree))?;
        Ok(approvers.count(self.wanted.counted_once) >= self.wanted.threshold)
    }
}
