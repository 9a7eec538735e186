//! `review sign`.

use std::path::{Path, PathBuf};

use attestations::review::{Person, Role, RoleError, Verdict};
use errors::files;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::json;

use super::{Answer, ReviewSubject, Session, open};
use crate::commands::password::PasswordArguments;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::progress::Event;
use crate::review::request::ReviewRequest;
use crate::review::{Opinion, Subjects, visible};

/// Longest note, name or address, in bytes.
const MAX_FIELD: usize = 16 << 10;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    what: ReviewSubject,
    /// Reviewer's private key: PKCS#8 PEM, OpenSSH, or ssh-agent:NAME for one in an SSH agent.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    password: PasswordArguments,
    /// Reviewer's name, as it will stand in the review.
    #[arg(long)]
    name: String,
    /// Reviewer's e-mail address; policies normally do not count a review by an author or committer of the commit.
    #[arg(long)]
    email: String,
    /// What you read the commit for, as policies ask for it, such as privacy; code, if neither this nor the request
    /// says otherwise.
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// Date (until its beginning, UTC) or RFC 3339 time from which on the approval does not count any more.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "reject")]
    expires: Option<Timestamp>,
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

pub(super) fn role(text: &str) -> std::result::Result<Role, String> {
    text.parse().map_err(|cause: RoleError| cause.to_string())
}

fn time(text: &str) -> std::result::Result<Timestamp, String> {
    let of_date = |date: Date| date.to_zoned(jiff::tz::TimeZone::UTC).map(|begin| begin.timestamp());
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<Date>().and_then(of_date))
        .map_err(|_| format!("{text} is neither a date, as 2027-01-31, nor an RFC 3339 time"))
}

/// Signs.
///
/// # Errors
/// When something cannot be read or written, or the request is not about what the repository has.
pub(super) fn run(arguments: Arguments, session: &Session) -> Result<Answer> {
    let on = Timestamp::now();
    check(&arguments, on)?;
    let repository = open(&arguments.what.repo, session)?;
    let (subjects, request) = arguments.what.fetch(&repository)?;
    let role = chosen_role(arguments.role, request.as_ref())?;
    warn_authors(&subjects, &arguments.email, session)?;
    let lock = arguments.what.lock(&subjects, request.as_ref())?.as_ref().map(Lock::digest);
    let key = arguments.password.open(&arguments.key, session.workspace())?;
    let verdict = if arguments.reject { Verdict::Rejected } else { Verdict::Approved };
    let opinion = Opinion {
        verdict,
        role: role.clone(),
        reviewer: Person { name: arguments.name, email: arguments.email },
        note: arguments.note,
        on,
        expires: arguments.expires,
        parameters: request.map(|request| request.parameters),
        lock,
    };
    let bundle = subjects.sign(opinion, &*key)?;
    files::write_new(&arguments.out, bundle.to_bytes()).map_err(|error| match error.kind() {
        Kind::Usage => exists(&arguments.out),
        _ => error,
    })?;
    let word = if arguments.reject { "rejected" } else { "approved" };
    let id = key.public_key().id().to_string();
    let commit = subjects.commit().id();
    let named_lock = lock.map(|lock| format!("\nlock      {lock}")).unwrap_or_default();
    let text = format!(
        "{word}  {commit}\nrole      {role}{named_lock}\nkey id    {id}\nwritten   {}",
        arguments.out.display()
    );
    let value = json!({
        "commit": commit,
        "verdict": word,
        "role": role,
        "lock": lock,
        "key_id": id,
        "out": arguments.out,
        "digest": bundle.digest().to_string(),
    });
    session.result(&text, &value)?;
    Ok(Answer::Yes)
}

fn check(arguments: &Arguments, on: Timestamp) -> Result<()> {
    check_field("--name", &arguments.name)?;
    check_field("--email", &arguments.email)?;
    if arguments.note.as_ref().is_some_and(|note| note.len() > MAX_FIELD) {
        return Err(Error::new(Kind::Usage, "--note is too long"));
    }
    if arguments.expires.is_some_and(|end| end <= on) {
        return Err(Error::new(Kind::Usage, "--expires is over already").hint("give a later time"));
    }
    if arguments.out.exists() {
        return Err(exists(&arguments.out));
    }
    Ok(())
}

/// The role, which a request must ask for.
fn chosen_role(given: Option<Role>, request: Option<&ReviewRequest>) -> Result<Role> {
    let Some(request) = request else { return Ok(given.unwrap_or_default()) };
    let asked = || request.roles.iter().map(Role::as_str).collect::<Vec<_>>().join(", ");
    match given {
        Some(role) if request.roles.contains(&role) => Ok(role),
        Some(role) => Err(Error::new(Kind::Usage, format!("the request asks for no review for {role}"))
            .hint(format!("it asks for {}", asked()))),
        None => match request.roles.iter().collect::<Vec<_>>().as_slice() {
            [only] => Ok((*only).clone()),
            _ => Err(Error::new(Kind::Usage, "the request asks for several roles")
                .hint(format!("say with --role which is yours: {}", asked()))),
        },
    }
}

fn warn_authors(subjects: &Subjects<'_>, email: &str, session: &Session) -> Result<()> {
    let people = subjects.writers()?.people();
    if people.iter().any(|person| person.email.eq_ignore_ascii_case(email)) {
        let message = format!("{email} is an author or committer of it; policies do not count such a review");
        session.workspace().report(&Event::Warning { message: &message, path: None });
    }
    Ok(())
}

fn check_field(option: &str, value: &str) -> Result<()> {
    match value.trim().is_empty() || value.len() > MAX_FIELD || value.chars().any(visible::is_deceptive) {
        true => {
            Err(Error::new(Kind::Usage, format!("{option} is empty, too long, or has hidden characters")))
        }
        false => Ok(()),
    }
}

pub(super) fn exists(path: &Path) -> Error {
    Error::new(Kind::Usage, format!("{} exists and is not overwritten", path.display()))
        .hint("choose another --out")
}
