//! `review diff`.

use attestations::review::Role;
use serde_json::json;

use super::at_hand::AtHand;
use super::sign::role;
use super::{Answer, Session, contents, open, print};
use crate::error::Result;
use crate::review::Subjects;
use crate::review::unreviewed::{Criteria, newest_reviewed};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Git repository that holds the source: a local path or a URL.
    #[arg(long, value_name = "PATH|URL")]
    repo: String,
    /// Full ID of the commit; branches, tags and short IDs are refused because they can change meaning.
    #[arg(long, value_name = "ID")]
    commit: String,
    /// Take this commit as reviewed, whatever reviews are at hand.
    #[arg(long, value_name = "ID", conflicts_with_all = ["reviews", "attached_to"], required_unless_present_any = ["reviews", "attached_to"])]
    since: Option<String>,
    /// Role that is looked at; code, if it is not given.
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// How many different reviewers make a commit a reviewed one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: usize,
    /// List the files without their contents.
    #[arg(long)]
    list: bool,
    /// Print the changes of this file, or of the files in this folder, only; may be given several times.
    #[arg(long = "path", value_name = "PATH", conflicts_with = "list")]
    paths: Vec<String>,
    #[command(flatten)]
    at_hand: AtHand,
}

/// Prints what is unreviewed.
///
/// # Errors
/// When something cannot be read.
pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let repository = open(&arguments.repo, session)?;
    let whole = Subjects::fetch(&repository, &arguments.commit, None)?;
    let asked = Criteria {
        role: arguments.role.clone().unwrap_or_default(),
        threshold: arguments.threshold.max(1),
        now: jiff::Timestamp::now(),
    };
    let reviewed = match &arguments.since {
        Some(_) => None,
        None => newest_reviewed(whole.commit(), &arguments.at_hand.collect(session)?, &asked)?,
    };
    if let Some(reviewed) = reviewed.as_ref().filter(|it| it.commit == *whole.commit().id()) {
        let by: Vec<&str> = reviewed.by.iter().map(String::as_str).collect();
        let text =
            format!("nothing is unreviewed: commit {} was approved by {}", reviewed.commit, by.join(", "));
        session.result(
            &text,
            &json!({ "commit": reviewed.commit, "reviewed": reviewed, "unreviewed": false }),
        )?;
        return Ok(Answer::Yes);
    }
    let since = arguments.since.as_deref().or(reviewed.as_ref().map(|it| it.commit.as_str()));
    let subjects = Subjects::fetch(&repository, &arguments.commit, since)?;
    let mut shown = subjects.show(&contents(arguments.list, &arguments.paths, session))?;
    shown.asked = vec![match (&reviewed, since) {
        (Some(reviewed), _) => {
            let by: Vec<&str> = reviewed.by.iter().map(String::as_str).collect();
            format!("unreviewed  everything since {}, approved by {}", reviewed.commit, by.join(", "))
        }
        (None, Some(since)) => format!("unreviewed  everything since {since}, as you say"),
        (None, None) => "unreviewed  everything: no commit of its history has enough reviews".to_owned(),
    }];
    print(&shown, &json!({ "reviewed": reviewed, "unreviewed": true }), session)?;
    Ok(Answer::No)
}
