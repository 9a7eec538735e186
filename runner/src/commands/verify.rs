//! `countersign-runner verify`: whether an image may run.

use std::path::PathBuf;

use admission::{Question, Sources};
use attestations::{Admitted, Decision, Denial, Reference};
use clap::Args;
use errors::Form;

use super::output::{GREEN, RED, YES, verdict};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::node::Node;
use crate::record;

#[derive(Debug, Args)]
pub(super) struct VerifyCommand {
    #[command(flatten)]
    image: ImageArguments,
    /// Also check whether this function of the algorithm may be called.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
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
}

impl ImageArguments {
    pub(super) fn question(&self, function: Option<String>) -> Result<Question> {
        let reference: Reference = self
            .reference
            .parse()
            .map_err(|cause| Error::new(Kind::Usage, "the image's name is not usable").because(cause))?;
        let sources = if self.offline { Sources::Offline } else { Sources::Registries };
        Ok(Question { reference, function, evidence: self.evidence.clone(), sources })
    }
}

pub(super) fn run(config: Config, arguments: &VerifyCommand, form: Form) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Machine, "starting the runtime").because(cause))?;
    let node = Node::new(config, runtime.handle().clone())?;
    let question = arguments.image.question(arguments.function.clone())?;
    match runtime.block_on(node.verify(&question))? {
        Decision::Admitted(admitted) => {
            verdict(form, "admitted", GREEN, &yes(&admitted), &record::admitted(&admitted))?;
            Ok(YES)
        }
        Decision::Denied(denial) => deny(&denial, form),
    }
}

fn yes(admitted: &Admitted) -> String {
    let mut text = format!(
        ": {}\n  rule: {}\n  commit: {}\n  reviewed by: {}\n  built by: {}",
        admitted.pinned(),
        admitted.rule(),
        admitted.commit(),
        admitted.reviews().join(", "),
        admitted.builds().join(", ")
    );
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
    for ignored in &denial.ignored {
        text.push_str(&format!("\n  not counted: {}: {}", ignored.origin, ignored.reason));
    }
    text
}
