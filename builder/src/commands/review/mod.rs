//! `review`.

mod at_hand;
mod attach;
mod diff;
mod pager;
mod request;
mod sign;

use std::path::PathBuf;

use attestations::keys::PublicKey;
use attestations::review::{Review, Scope, Verdict};
use attestations::statement::Predicate;
use clap::Subcommand;
use errors::{Form, files, trusted};
use serde_json::json;

use super::{Answer, Session};
use crate::error::{Error, Kind, Result};
use crate::lock::{self, Lock};
use crate::parameters::BuildSelection;
use crate::pipeline::plan_for_review;
use crate::review::request::{self as requests, ReviewRequest};
use crate::review::show::{Contents, Shown, ShownLock};
use crate::review::{Subjects, verify, visible};
use crate::source::{Location, Repository, Snapshot};

/// Largest signed statement and key file read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a file that asks for a review: the commit, its files, the roles, and how it is to be built.
    Request(request::Arguments),
    /// Print everything that a reviewer has to read, with hidden characters made visible.
    Show(ShowArguments),
    /// Print what of a commit nobody has reviewed, by the reviews at hand; exit code 1 if there is anything.
    Diff(Box<diff::Arguments>),
    /// Sign that you have read a commit, and whether you approve or reject it.
    Sign(Box<sign::Arguments>),
    /// Check that a file is a review, signed by a given key.
    Verify(VerifyArguments),
    /// Attach signed reviews to an image that is already in a registry.
    Attach(Box<attach::Arguments>),
}

/// A commit, or a request that names one.
#[derive(Debug, clap::Args)]
struct ReviewSubject {
    /// Git repository that holds the source: a local path or a URL.
    #[arg(long, value_name = "PATH|URL")]
    repo: String,
    /// Full ID of the commit to review; branches, tags and short IDs are refused because they can change meaning.
    #[arg(long, value_name = "ID", required_unless_present = "request")]
    commit: Option<String>,
    /// Review only what changed since this commit, which itself needs as many reviews.
    #[arg(long, value_name = "ID", conflicts_with = "request")]
    since: Option<String>,
    /// Review what this file asks for, as `review request` wrote it; refused unless the repository has exactly that.
    #[arg(long, value_name = "FILE", conflicts_with = "commit")]
    request: Option<PathBuf>,
    /// Review also the lock of base images and packages: that of the commit, or without one this file, as `lock` wrote
    /// it.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "", value_parser = lock_at)]
    lock: Option<LockAt>,
    /// Image whose lock is meant, by its name in countersign.toml; needed only when the file names several.
    #[arg(long, value_name = "NAME", requires = "lock", conflicts_with = "request")]
    image: Option<String>,
}

/// Where a lock is.
#[derive(Debug, Clone)]
enum LockAt {
    /// In the commit.
    Commit,
    /// In this file.
    File(PathBuf),
}

fn lock_at(text: &str) -> std::result::Result<LockAt, std::convert::Infallible> {
    Ok(if text.is_empty() { LockAt::Commit } else { LockAt::File(text.into()) })
}

#[derive(Debug, clap::Args)]
struct ShowArguments {
    #[command(flatten)]
    what: ReviewSubject,
    /// List the files without their contents.
    #[arg(long)]
    list: bool,
    /// Print the contents of this file, or of the files in this folder, only; may be given several times.
    #[arg(long = "path", value_name = "PATH", conflicts_with = "list")]
    paths: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct VerifyArguments {
    /// File with the signed review.
    file: PathBuf,
    /// File with the reviewer's public key: PEM, or one OpenSSH line as in a .pub file.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// Runs it.
///
/// # Errors
/// See [`crate::error::Kind`].
pub(crate) fn run(arguments: Arguments, session: &Session) -> Result<Answer> {
    match arguments.action {
        Action::Request(arguments) => request::run(arguments, session),
        Action::Show(arguments) => show(&arguments, session),
        Action::Diff(arguments) => diff::run(&arguments, session),
        Action::Sign(arguments) => sign::run(*arguments, session),
        Action::Verify(arguments) => check(&arguments, session),
        Action::Attach(arguments) => attach::run(&arguments, session),
    }
}

fn open(repo: &str, session: &Session) -> Result<Repository> {
    let state_dir = session.workspace().state_dir();
    trusted::state_directory(state_dir, 0o755)?;
    Ok(Repository::open(state_dir, &Location::parse(repo)?)?)
}

impl ReviewSubject {
    /// What is to be read, and the request that asks for it.
    fn fetch<'a>(&self, repository: &'a Repository) -> Result<(Subjects<'a>, Option<ReviewRequest>)> {
        match (&self.request, &self.commit) {
            (Some(path), _) => {
                let bytes = files::read(path, requests::SIZE_LIMIT)?;
                let request = ReviewRequest::parse(&path.display().to_string(), &bytes)?;
                Ok((request.subjects(repository)?, Some(request)))
            }
            (None, Some(commit)) => Ok((Subjects::fetch(repository, commit, self.since.as_deref())?, None)),
            (None, None) => Err(Error::new(Kind::Usage, "give --commit or --request")),
        }
    }

    /// The lock that is to be read: of the commit, where `--lock` has no value or the request names it.
    fn lock(&self, subjects: &Subjects<'_>, request: Option<&ReviewRequest>) -> Result<Option<Lock>> {
        match (&self.lock, request) {
            (Some(LockAt::File(path)), _) => {
                let bytes = files::read(path, lock::SIZE_LIMIT)?;
                Ok(Some(Lock::parse(&path.display().to_string(), &bytes)?))
            }
            (Some(LockAt::Commit), _) => match self.lock_of(subjects.commit(), request)? {
                Some(lock) => Ok(Some(lock)),
                None => Err(Error::new(Kind::NotFound, "the commit has no lock of bases and packages")
                    .hint("give the file that `countersign-builder lock` wrote, with --lock FILE")),
            },
            (None, Some(request)) if request.lock.is_some() => self.lock_of(subjects.commit(), Some(request)),
            (None, _) => Ok(None),
        }
    }

    /// The lock that a commit has itself.
    fn lock_of(&self, commit: &Snapshot<'_>, request: Option<&ReviewRequest>) -> Result<Option<Lock>> {
        let image = request.map_or_else(|| self.image.clone(), ReviewRequest::image);
        Ok(plan_for_review(commit, &BuildSelection::image(image))?.1)
    }
}

fn show(arguments: &ShowArguments, session: &Session) -> Result<Answer> {
    let what = &arguments.what;
    let repository = open(&what.repo, session)?;
    let (subjects, request) = what.fetch(&repository)?;
    let contents = contents(arguments.list, &arguments.paths, session);
    let mut shown = subjects.show(&contents)?;
    if let Some(request) = &request {
        shown.asked = request.lines(&subjects)?;
    }
    if let Some(lock) = what.lock(&subjects, request.as_ref())? {
        let before = subjects.since().map(|since| what.lock_of(since, request.as_ref())).transpose()?;
        shown.lock = Some(ShownLock::new(&lock, before.flatten().as_ref()));
    }
    print(&shown, &json!({}), session)?;
    Ok(Answer::Yes)
}

/// How much of each file is shown: with `--list` and to programs none of it, with `--path` that of the named ones.
fn contents(list: bool, paths: &[String], session: &Session) -> Contents {
    match (list || session.form() == Form::Json, paths) {
        (true, _) => Contents::None,
        (false, []) => Contents::All,
        (false, paths) => Contents::Of(paths.to_vec()),
    }
}

/// Prints what is to be read, through a pager where a person reads it; `more` goes to programs.
fn print(shown: &Shown, more: &serde_json::Value, session: &Session) -> Result<()> {
    let mut value = serde_json::to_value(shown)
        .map_err(|error| Error::new(Kind::Bug, "what is to be shown has no JSON form").because(error))?;
    if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
        value.extend(more.clone());
    }
    pager::result(session, &shown.to_text(), &value)
}

fn check(arguments: &VerifyArguments, session: &Session) -> Result<Answer> {
    let bytes = files::read(&arguments.file, MAX_FILE)?;
    let key = PublicKey::parse(String::from_utf8_lossy(&trusted::read(&arguments.key, MAX_FILE)?).trim())
        .map_err(|error| {
            Error::new(Kind::Key, format!("{} is not a public key", arguments.key.display())).because(error)
        })?;
    let verified = verify(&bytes, &key)?;
    let statement = verified.value();
    if let Predicate::Review(review) = &statement.predicate {
        let commits: Vec<String> =
            statement.subject.iter().filter_map(|s| s.git_commit()).map(|id| id.to_string()).collect();
        let value = serde_json::to_value(review)
            .map_err(|error| Error::new(Kind::Bug, "the review has no JSON form").because(error))?;
        let text = format!(
            "signed by that key\ncommit    {}\n{}",
            visible::line(&commits.join(", ")),
            describe(review)
        );
        session
            .result(&text, &json!({ "key_id": key.id().to_string(), "commit": commits, "review": value }))?;
    }
    Ok(Answer::Yes)
}

fn describe(review: &Review) -> String {
    let verdict = match review.verdict {
        Verdict::Approved => "approved",
        Verdict::Rejected => "rejected",
    };
    let scope = match &review.scope {
        Scope::Tree => "the whole tree".to_owned(),
        Scope::Changes { since, since_tree } => format!("the changes since {since} with tree {since_tree}"),
    };
    let mut lines = vec![
        format!("verdict   {verdict}"),
        format!("role      {}", review.role),
        format!("scope     {scope}"),
        format!("tree      {}", review.tree),
        format!("reviewer  {} <{}>", review.reviewer.name, review.reviewer.email),
        format!("on        {}", review.reviewed_on),
    ];
    lines.extend(review.expires_on.map(|end| format!("expires   {end}")));
    if let Some(named) = &review.parameters {
        let target = named.target.as_ref().map(|it| format!(", target {it}")).unwrap_or_default();
        lines.push(format!("built     with {} in {}{target}", named.dockerfile, named.context));
        lines.extend(named.build_args.iter().map(|(name, value)| format!("build-arg {name}={value}")));
        lines.extend(named.bases.iter().flatten().map(|(name, base)| format!("base      {name} {base}")));
    }
    lines.extend(review.lock.map(|lock| format!("lock      {lock}")));
    lines.extend(review.note.as_ref().map(|note| format!("note      {note}")));
    lines.iter().map(|line| visible::line(line)).collect::<Vec<_>>().join("\n")
}
