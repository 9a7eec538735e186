//! `policy diff`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use admission::{Admission, Memory, Policies, Question, Sources};
use attestations::{Call, Older, Reference};
use errors::{Form, output, plural};
use serde_json::{Value, json};

use super::cases::codes;
use crate::commands::output::YES;
use crate::commands::runtime;
use crate::config::Config;
use crate::error::{Error, Kind, Result};

#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Policy file that is in force, or was.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// Policy file to compare it with.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Image to decide about besides those that this node ran; may be given several times.
    #[arg(long = "image", value_name = "REFERENCE")]
    images: Vec<Reference>,
    /// Signed statement (Sigstore bundle), or a folder of them (*.json), to consider besides those in the registry;
    /// may be given several times.
    #[arg(long, value_name = "PATH")]
    evidence: Vec<PathBuf>,
    /// Contact no registry: images must be named by digest, and all statements must be given with --evidence.
    #[arg(long)]
    offline: bool,
}

impl Arguments {
    pub(super) fn new_policy(&self) -> &Path {
        &self.new
    }
}

pub(super) fn run(config: &Config, arguments: &Arguments, form: Form) -> Result<u8> {
    let images = images(config, &arguments.images)?;
    if images.is_empty() {
        return Err(Error::new(Kind::NotFound, "this node has run no image yet, and none is named")
            .hint("name some with --image REFERENCE"));
    }
    let runtime = runtime()?;
    let [old, new] = [&arguments.old, &arguments.new].map(|path| by(config, path));
    let (old, new) = (old?, new?);
    let mut changed = Vec::new();
    for reference in images.values() {
        let question = Question {
            reference: reference.clone(),
            call: Call::default(),
            evidence: arguments.evidence.clone(),
            sources: if arguments.offline { Sources::Offline } else { Sources::Registries },
            at: None,
            older: Older::Denied,
        };
        let decide = |admission: &Admission| {
            runtime.block_on(admission.decide(&question, None)).map(|decision| codes(&decision))
        };
        let (before, after) = (decide(&old)?, decide(&new)?);
        if before != after {
            changed.push((reference, before, after));
        }
    }
    let word = |codes: &[String]| match codes.is_empty() {
        true => "admitted".to_owned(),
        false => format!("denied ({})", codes.join(", ")),
    };
    let mut text: String = changed
        .iter()
        .map(|(image, before, after)| format!("{image}: {} -> {}\n", word(before), word(after)))
        .collect();
    text.push_str(&format!("{} of {} come out otherwise", changed.len(), plural(images.len(), "image")));
    let all: Vec<Value> = changed
        .iter()
        .map(|(image, before, after)| json!({ "image": image, "old": before, "new": after }))
        .collect();
    output::result(form, &text, &json!({ "images": images.len(), "changed": all }))?;
    Ok(if changed.is_empty() { YES } else { Kind::Refused.exit_code() })
}

/// Decides by one policy, as if nothing were remembered: the policies are compared, and not the times.
fn by(config: &Config, policy: &Path) -> Result<Admission> {
    let (registries, memory) = (config.registries()?, None);
    Admission::new(admission::Config { policies: Policies::Node(policy.to_owned()), registries, memory })
}

/// What this node ran, and what is named.
fn images(config: &Config, named: &[Reference]) -> Result<BTreeMap<String, Reference>> {
    let mut images: BTreeMap<String, Reference> =
        named.iter().map(|it| (it.to_string(), it.clone())).collect();
    let path = config.memory();
    if path.exists() {
        for one in Memory::open(&path)?.list_newest()? {
            let text = format!("{}@{}", one.repository, one.digest);
            let reference = text.parse().map_err(|cause: attestations::ReferenceError| {
                Error::new(Kind::Machine, format!("the node's memory names no image: {text}")).because(cause)
            })?;
            images.insert(text, reference);
        }
    }
    Ok(images)
}
