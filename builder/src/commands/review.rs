//! `review show`, `review sign` and `review verify`.

use std::path::{Path, PathBuf};

use attestations::keys::PublicKey;
use attestations::review::{Person, Review, Scope, Verdict};
use attestations::statement::Predicate;
use clap::Subcommand;
use errors::{Form, files, trusted};
use serde_json::json;

use super::{Answer, Session};
use crate::review::{Opinion, Subjects, verify, visible};

use super::password::PasswordArguments;
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::source::{Location, Repository};

/// Largest signed statement and key file read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Longest note, name or address, in bytes.
const MAX_FIELD: usize = 16 << 10;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print everything that a reviewer has to read, with hidden characters made visible.
    Show(ShowArguments),
    /// Sign that you have read a commit, and whether you approve or reject it.
    Sign(Box<SignArguments>),
    /// Check that a file is a review, signed by a given key.
    Verify(VerifyArguments),
}

#[derive(Debug, clap::Args)]
struct ReviewSubject {
    /// Git repository that holds the source: a local path or a URL.
    #[arg(long, value_name = "PATH|URL")]
    repo: String,
    /// Full ID of the commit to review; branches, tags and short IDs are refused because they can change meaning.
    #[arg(long, value_name = "ID")]
    commit: String,
    /// Review only what changed since this commit, which itself needs as many reviews.
    #[arg(long, value_name = "ID")]
    since: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ShowArguments {
    #[command(flatten)]
    what: ReviewSubject,
    /// List the files without their contents.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, clap::Args)]
struct SignArguments {
    #[command(flatten)]
    what: ReviewSubject,
    /// Reviewer's private key: PKCS#8 PEM or OpenSSH.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    password: PasswordArguments,
    /// Reviewer's name, as it will stand in the review.
    #[arg(long)]
    name: String,
    /// Reviewer's e-mail address; policies normally do not count a review by an author of the commit.
    #[arg(long)]
    email: String,
    /// Reject the commit: nodes that trust this reviewer will refuse it.
    #[arg(long)]
    reject: bool,
    /// Comment to include in the review.
    #[arg(long)]
    note: Option<String>,
    /// File to write the signed review to; an existing file is not overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
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
        Action::Show(arguments) => show(&arguments, session),
        Action::Sign(arguments) => sign(*arguments, session),
        Action::Verify(arguments) => check(&arguments, session),
    }
}

fn open(what: &ReviewSubject, session: &Session) -> Result<Repository> {
    let state_dir = session.workspace().state_dir();
    trusted::state_directory(state_dir, 0o755)?;
    Ok(Repository::open(state_dir, &Location::parse(&what.repo)?)?)
}

fn show(arguments: &ShowArguments, session: &Session) -> Result<Answer> {
    let what = &arguments.what;
    let repository = open(what, session)?;
    let subjects = Subjects::fetch(&repository, &what.commit, what.since.as_deref())?;
    let shown = subjects.show(arguments.list || session.form() == Form::Json)?;
    let value = serde_json::to_value(&shown)
        .map_err(|error| Error::new(Kind::Bug, "what is to be shown has no JSON form").because(error))?;
    session.result(&shown.to_text(), &value)?;
    Ok(Answer::Yes)
}

fn sign(arguments: SignArguments, session: &Session) -> Result<Answer> {
    check_field("--name", &arguments.name)?;
    check_field("--email", &arguments.email)?;
    if arguments.note.as_ref().is_some_and(|note| note.len() > MAX_FIELD) {
        return Err(Error::new(Kind::Usage, "--note is too long"));
    }
    if arguments.out.exists() {
        return Err(exists(&arguments.out));
    }
    let what = &arguments.what;
    let repository = open(what, session)?;
    let subjects = Subjects::fetch(&repository, &what.commit, what.since.as_deref())?;
    let authors = subjects.authors()?;
    if authors.iter().any(|author| author.email.eq_ignore_ascii_case(&arguments.email)) {
        let message = format!("{} is an author of it; policies do not count such a review", arguments.email);
        session.workspace().report(&Event::Warning { message: &message, path: None });
    }
    let key = arguments.password.open(&arguments.key, session.workspace())?;
    let verdict = if arguments.reject { Verdict::Rejected } else { Verdict::Approved };
    let reviewer = Person { name: arguments.name, email: arguments.email };
    let opinion = Opinion { verdict, reviewer, note: arguments.note, on: jiff::Timestamp::now() };
    let bundle = subjects.sign(opinion, &*key)?;
    files::write_new(&arguments.out, bundle.to_bytes()).map_err(|error| match error.kind() {
        Kind::Usage => exists(&arguments.out),
        _ => error,
    })?;
    let word = if arguments.reject { "rejected" } else { "approved" };
    let id = key.public_key().id().to_string();
    let text = format!("{word}  {}\nkey id    {id}\nwritten   {}", what.commit, arguments.out.display());
    let value = json!({
        "commit": what.commit,
        "verdict": word,
        "key_id": id,
        "out": arguments.out,
        "digest": bundle.digest().to_string(),
    });
    session.result(&text, &value)?;
    Ok(Answer::Yes)
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
        Scope::Changes { since } => format!("the changes since {since}"),
    };
    let reviewer = visible::line(&format!("{} <{}>", review.reviewer.name, review.reviewer.email));
    let note =
        review.note.as_ref().map(|note| format!("\nnote      {}", visible::line(note))).unwrap_or_default();
    format!(
        "verdict   {verdict}\nscope     {scope}\nreviewer  {reviewer}\non        {}{note}",
        review.reviewed_on
    )
}

fn check_field(option: &str, value: &str) -> Result<()> {
    match value.trim().is_empty() || value.len() > MAX_FIELD || value.chars().any(visible::is_deceptive) {
        true => {
            Err(Error::new(Kind::Usage, format!("{option} is empty, too long, or has hidden characters")))
        }
        false => Ok(()),
    }
}

fn exists(path: &Path) -> Error {
    Error::new(Kind::Usage, format!("{} exists and is not overwritten", path.display()))
        .hint("choose another --out")
}
