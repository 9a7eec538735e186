//! `review request`.

use std::path::PathBuf;

use attestations::review::Role;
use errors::files;
use serde_json::json;

use super::sign::{exists, role};
use super::{Answer, Session, open};
use crate::commands::build::pair;
use crate::error::{Error, Kind, Result};
use crate::review::Subjects;
use crate::review::request::{Choice, ReviewRequest};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Git repository that holds the source: a local path or a URL.
    #[arg(long, value_name = "PATH|URL")]
    repo: String,
    /// Full ID of the commit to review; branches, tags and short IDs are refused because they can change meaning.
    #[arg(long, value_name = "ID")]
    commit: String,
    /// Ask only for what changed since this commit, which itself needs as many reviews.
    #[arg(long, value_name = "ID")]
    since: Option<String>,
    /// What the commit is to be read for, such as privacy; may be given several times; code, if it is not given.
    #[arg(long = "role", value_parser = role)]
    roles: Vec<Role>,
    /// Image that is to be built, by its name in countersign.toml; needed only when the file names several.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Dockerfile that is to be built, by its path in the commit, instead of the one that countersign.toml names or that
    /// is in the context.
    #[arg(long, short, value_name = "PATH")]
    file: Option<String>,
    /// Folder of the commit that its COPY and ADD are to see, instead of the one that countersign.toml names or the
    /// whole repository.
    #[arg(long, value_name = "FOLDER")]
    context: Option<String>,
    /// Dockerfile stage that is to be built, instead of the one that countersign.toml names.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value that an ARG of the Dockerfile is to have; may be given several times.
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = pair)]
    arguments: Vec<(String, String)>,
    /// Comment for the reviewers.
    #[arg(long)]
    note: Option<String>,
    /// File to write the request to; an existing file is not overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes a request.
///
/// # Errors
/// When the commit cannot be read or built like this, or the file exists.
pub(super) fn run(arguments: Arguments, session: &Session) -> Result<Answer> {
    let repository = open(&arguments.repo, session)?;
    let subjects = Subjects::fetch(&repository, &arguments.commit, arguments.since.as_deref())?;
    let roles = match arguments.roles.is_empty() {
        true => [Role::code()].into(),
        false => arguments.roles.into_iter().collect(),
    };
    let choice = Choice {
        image: arguments.image,
        dockerfile: arguments.file,
        context: arguments.context,
        target: arguments.target,
        arguments: arguments.arguments.into_iter().collect(),
        roles,
        note: arguments.note,
    };
    let request = ReviewRequest::new(&subjects, choice)?;
    files::write_new(&arguments.out, request.to_text()?.as_bytes()).map_err(|error| match error.kind() {
        Kind::Usage => exists(&arguments.out),
        _ => error,
    })?;
    let lines = request.lines(&subjects)?.join("\n");
    let text = format!("commit      {}\n{lines}\nwritten     {}", request.commit, arguments.out.display());
    let request = serde_json::to_value(&request)
        .map_err(|cause| Error::new(Kind::Bug, "the request has no JSON form").because(cause))?;
    session.result(&text, &json!({ "out": arguments.out, "request": request }))?;
    Ok(Answer::Yes)
}
