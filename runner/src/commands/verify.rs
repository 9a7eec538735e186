//! `countersign-runner verify`: whether an image may run.

use std::path::PathBuf;

use admission::{Question, Sources};
use attestations::{Admitted, Call, Decision, Denial, Issuer, Older, Reference, Weighed, Weight};
use clap::Args;
use errors::{Form, files, plural};
use jiff::Timestamp;
use serde_json::json;

use super::output::{GREEN, RED, YES, verdict};
use super::summaries::SummaryArguments;
use crate::caller;
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::node::{Node, Remembering};
use crate::record;
use crate::vantage6::Input;

#[derive(Debug, Args)]
pub(super) struct VerifyCommand {
    #[command(flatten)]
    image: ImageArguments,
    #[command(flatten)]
    call: CallArguments,
    /// Also list every signed statement that was found, what it says, and how it weighed.
    #[arg(long)]
    explain: bool,
    /// Decide as if it were this time (2027-01-31T00:00:00Z), to find out what expires by then; nothing is remembered.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    #[command(flatten)]
    summaries: SummaryArguments,
}

/// What is known of a call; of what is not given nothing is asked.
#[derive(Debug, Args)]
struct CallArguments {
    /// Also check whether this function of the algorithm may be called.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Also check whether the call in this file, an input as for `run`, may be made.
    #[arg(long, value_name = "FILE", conflicts_with = "function")]
    input: Option<PathBuf>,
    /// Also check whether the algorithm may see the database with this label; may be given several times.
    #[arg(long, value_name = "LABEL")]
    database: Vec<String>,
    /// Also check whether this user of the machine, by name or as uid:NUMBER, may ask for it.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

impl CallArguments {
    fn call(&self) -> Result<Call> {
        let input = self.input.as_ref().map(|path| Input::parse(&files::read(path, config::MAX_FILE)?));
        let input = input.transpose()?;
        let function = input.as_ref().map(|input| input.function().to_owned());
        Ok(Call {
            function: function.or_else(|| self.function.clone()),
            arguments: input.map(|input| input.arguments().clone()),
            databases: (!self.database.is_empty()).then(|| self.database.clone()),
            caller: self.user.as_deref().map(caller::named),
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct ImageArguments {
    /// Image reference: registry/name:tag or registry/name@sha256:…
    reference: String,
    /// Signed statement (Sigstore bundle), or a folder of them (*.json), to consider besides those in the registry;
    /// may be given several times.
    #[arg(long, value_name = "PATH")]
    evidence: Vec<PathBuf>,
    /// Contact no registry: the image must be named by digest, and all statements must be given with --evidence.
    #[arg(long)]
    offline: bool,
    /// Allow an image that is older than one that ran here before by the same rule; the record of the run says so.
    #[arg(long)]
    allow_older: bool,
}

impl ImageArguments {
    pub(super) fn question(&self, call: Call) -> Result<Question> {
        let reference: Reference = self
            .reference
            .parse()
            .map_err(|cause| Error::new(Kind::Usage, "the image's name is not usable").because(cause))?;
        let sources = if self.offline { Sources::Offline } else { Sources::Registries };
        let older = if self.allow_older { Older::Allowed } else { Older::Denied };
        Ok(Question { reference, call, evidence: self.evidence.clone(), sources, at: None, older })
    }
}

pub(super) fn run(config: Config, arguments: &VerifyCommand, form: Form) -> Result<u8> {
    let runtime = super::runtime()?;
    let node = Node::new(config.clone(), runtime.handle().clone(), Remembering::IfItDoes)?;
    let mut question = arguments.image.question(arguments.call.call()?)?;
    question.at = arguments.at;
    let (decision, weighed) = match arguments.explain {
        true => {
            let (decision, weighed) = runtime.block_on(node.explain(&question))?;
            (decision, Some(weighed))
        }
        false => (runtime.block_on(node.verify(&question))?, None),
    };
    let now = arguments.at.unwrap_or_else(Timestamp::now);
    let written = arguments.summaries.write(&config, &node, &decision, now)?;
    let mut told = weighed.as_deref().map(explanation).unwrap_or_default();
    for path in &written {
        told.push_str(&format!("\n  wrote {}", path.display()));
    }
    let mut value = record::verdict(&decision);
    if let Some(weighed) = &weighed {
        value["evidence"] = json!(weighed);
    }
    if !written.is_empty() {
        value["written"] = json!(written);
    }
    match decision {
        Decision::Admitted(admitted) => {
            verdict(form, "admitted", GREEN, &format!("{}{told}", yes(&admitted)), &value)?;
            Ok(YES)
        }
        Decision::Denied(denial) => {
            verdict(form, "denied", RED, &format!("{}{told}", no(&denial)), &value)?;
            Ok(Kind::Refused.exit_code())
        }
    }
}

/// Every statement, what it says, and how it weighed.
fn explanation(all: &[Weighed]) -> String {
    let mut text = format!("\n  evidence: {}", plural(all.len(), "bundle"));
    for one in all {
        let by = one.by.as_deref().map_or_else(|| "nobody of the policy".to_owned(), str::to_owned);
        let weight = match &one.weight {
            Weight::Counted => "counted".to_owned(),
            Weight::Against => "counted against it".to_owned(),
            Weight::NotCounted { reason } => format!("not counted: {reason}"),
        };
        let policy = match &one.policy {
            Issuer::Node => String::new(),
            Issuer::Federation { name, .. } => format!("by the policy of {name}, "),
        };
        let statement = one.statement.map(|digest| format!("\n      statement {digest}")).unwrap_or_default();
        text.push_str(&format!("\n    {}\n      {by}: {}{statement}", one.origin, one.says));
        text.push_str(&format!("\n      {policy}{weight}"));
    }
    text
}

/// The yes of each policy.
fn yes(admitted: &Admitted) -> String {
    let each = admitted.each().map(yes_by_one);
    format!(": {}\n  commit: {}{}", admitted.pinned(), admitted.commit(), each.collect::<String>())
}

fn yes_by_one(admitted: &Admitted) -> String {
    let mut text = String::new();
    if let Issuer::Federation { name, version } = admitted.issuer() {
        text.push_str(&format!("\n  by the policy of {name}, version {version}"));
    }
    text.push_str(&format!(
        "\n  rule: {}\n  reviewed by: {}\n  built by: {}",
        admitted.rule(),
        admitted.reviews().join(", "),
        admitted.builds().join(", ")
    ));
    for base in admitted.bases() {
        text.push_str(&format!(
            "\n  base: {}\n    commit: {}\n    reviewed by: {}\n    built by: {}",
            base.digest,
            base.commit,
            base.reviews.join(", "),
            base.builds.join(", ")
        ));
    }
    text
}

/// Prints a denial.
pub(super) fn deny(denial: &Denial, form: Form) -> Result<u8> {
    verdict(form, "denied", RED, &no(denial), &record::denied(denial))?;
    Ok(Kind::Refused.exit_code())
}

fn no(denial: &Denial) -> String {
    let mut text = format!(": {}", denial.question);
    for (number, unmet) in denial.unmet.iter().enumerate() {
        text.push_str(&format!(
            "\n {:>2}. wanted: {}\n     found:  {}\n     remedy: {}",
            number + 1,
            unmet.condition(),
            unmet.found(),
            unmet.remedy()
        ));
    }
    for ignored in denial.ignored.iter().filter(|it| it.is_remark()) {
        text.push_str(&format!("\n  not counted: {}: {}", ignored.origin, ignored.reason));
    }
    text
}
