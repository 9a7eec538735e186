//! `countersign-runner memory`: what the node remembers, and what an administrator may have it forget.

use admission::{KeptNewest, KeptNo, KeptRelease, Memory};
use attestations::{FederationName, Repository};
use clap::Subcommand;
use errors::{Form, output, plural};
use serde_json::json;

use super::output::YES;
use crate::config::Config;
use crate::error::{Error, Kind, Result};

#[derive(Debug, Subcommand)]
pub(super) enum MemoryCommand {
    /// List every no that this node has seen, the newest image that ran by each rule, and each federation's release.
    Show,
    /// Forget which image of a name was the newest, so that an older one may run without --allow-older.
    ForgetNewest {
        /// Name of the image, without a tag: registry/name
        repository: Repository,
    },
    /// Forget the latest moment of a decision, after the clock was wrong.
    ResetClock,
    /// Begin a new memory after the file was lost: every no that this node has seen is forgotten.
    BeginAnew,
    /// Forget the highest release of a federation's policy, after its key holders said that the version was a mistake.
    ForgetRelease {
        /// Name of the federation, as its trust file has it.
        federation: FederationName,
    },
}

impl MemoryCommand {
    pub(super) fn run(&self, config: &Config, form: Form) -> Result<u8> {
        match self {
            Self::Show => show(&at_hand(config)?, form)?,
            Self::ForgetNewest { repository } => {
                let forgotten = at_hand(config)?.forget_newest(repository)?;
                let text =
                    format!("forgot the newest image of {repository} by {}", plural(forgotten, "rule"));
                output::result(form, &text, &json!({ "forgotten": forgotten }))?;
            }
            Self::ForgetRelease { federation } => {
                let forgotten = at_hand(config)?.forget_release(federation)?;
                let text = match forgotten {
                    true => format!("forgot the highest release of {federation}"),
                    false => format!("no release of {federation} was remembered"),
                };
                output::result(form, &text, &json!({ "forgotten": forgotten }))?;
            }
            Self::ResetClock => {
                at_hand(config)?.reset_clock()?;
                output::result(form, "forgot the latest moment of a decision", &json!({ "reset": "clock" }))?;
            }
            Self::BeginAnew => begin(config, form)?,
        }
        Ok(YES)
    }
}

/// The node's memory, which has to be there.
fn at_hand(config: &Config) -> Result<Memory> {
    let path = config.memory();
    if !path.exists() {
        return Err(Error::new(
            Kind::NotFound,
            format!("this node remembers nothing yet: {} is not there", path.display()),
        )
        .hint("`run` and `serve` begin it; name another state directory with --state-dir"));
    }
    Memory::open(&path)
}

/// Makes an empty memory where there is none.
fn begin(config: &Config, form: Form) -> Result<()> {
    let path = config.memory();
    if std::fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
        return Err(Error::new(Kind::Usage, format!("{} is there, and stays", path.display()))
            .hint("`countersign-runner memory show` lists what it holds"));
    }
    config.make_state_dir()?;
    Memory::open(&path)?;
    output::result(form, &format!("{} begins anew", path.display()), &json!({ "begun": path }))
}

fn show(memory: &Memory, form: Form) -> Result<()> {
    let (noes, newest, latest) = (memory.list_noes()?, memory.list_newest()?, memory.latest()?);
    let releases = memory.list_releases()?;
    let value = json!({ "noes": noes, "newest": newest, "releases": releases, "latestDecision": latest });
    let mut text = text(&noes, &newest, &releases);
    if let Some(latest) = latest {
        text.push_str(&format!("\nlatest decision: {latest}"));
    }
    output::result(form, &text, &value)
}

fn text(noes: &[KeptNo], newest: &[KeptNewest], releases: &[KeptRelease]) -> String {
    let mut text = plural(noes.len(), "negative statement").to_string();
    for no in noes {
        text.push_str(&format!("\n  {}, seen since {}", no.statement, no.first_seen));
        for about in &no.about {
            text.push_str(&format!("\n    about {about}"));
        }
    }
    text.push_str(&format!("\n{}", plural(newest.len(), "newest image")));
    for one in newest {
        let KeptNewest { rule, repository, digest, commit_time } = one;
        text.push_str(&format!("\n  {repository} by {rule}: {digest} of {commit_time}"));
    }
    for KeptRelease { federation, edition } in releases {
        text.push_str(&format!("\npolicy of {federation}: version {} is the highest", edition.version));
    }
    text
}
