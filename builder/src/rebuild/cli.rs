//! `rebuild`.

use std::path::PathBuf;

use attestations::provenance::{RebuildMaterials, RebuildOf, RebuildVerdict};
use attestations::{Pinned, Reference};
use images::compare::{Comparison, compare};
use serde_json::json;

use super::diff::{describe, find};
use super::evidence::{Chosen, Trust, choose};
use super::inputs;
use crate::build::bases::Registry as _;
use crate::build::cli::{Signing, pair};
use crate::build::order::{self, Network, Order, Outcome, What};
use crate::build::registry::Registry;
use crate::build::reviews;
use crate::cli::{Answer, Session};
use crate::error::{Error, Kind, Result, Told};
use crate::materials::Place;
use crate::provenance::{self, Identity, bases_of, read_file, write_file};
use crate::source::Location;

/// Largest bundle or file of keys read, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// Its arguments.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").args(["reference", "provenance"]).required(true).multiple(true))]
#[command(group = clap::ArgGroup::new("trust").args(["builder_keys", "trust_unverified"]).required(true))]
pub struct Arguments {
    /// The image to repeat; its provenance is taken from its registry.
    #[arg(value_name = "REFERENCE")]
    reference: Option<Reference>,
    /// Repeat the build of this signed provenance.
    #[arg(long, value_name = "FILE")]
    provenance: Option<PathBuf>,
    /// Public keys of the builders whose provenance is repeated: PEM blocks or OpenSSH lines.
    #[arg(long, value_name = "FILE")]
    builder_keys: Option<PathBuf>,
    /// Repeat whatever the provenance says, whoever signed it.
    #[arg(long)]
    trust_unverified: bool,
    /// Compare with the image in this folder, an OCI image layout, when no reference is given.
    #[arg(long, value_name = "FOLDER", conflicts_with = "reference")]
    against: Option<String>,
    /// Ask the servers themselves again, instead of replaying what the first builder kept: it shows whether they still
    /// give the same.
    #[arg(long)]
    online: bool,
    /// Take the kept materials from a file that `materials export` wrote.
    #[arg(long, value_name = "FILE", conflicts_with = "online")]
    materials: Option<PathBuf>,
    /// Fetch the commit from here instead of where the provenance says.
    #[arg(long, value_name = "PATH|URL")]
    repo: Option<String>,
    /// Take the base that the Dockerfile calls NAME from there; its digest must be the recorded one.
    #[arg(long = "base", value_name = "NAME=FOLDER|REFERENCE", value_parser = pair)]
    bases: Vec<(String, String)>,
    #[command(flatten)]
    signing: Signing,
    /// Write the signed result to a file.
    #[arg(long, value_name = "FILE", requires = "key")]
    bundle_out: Option<PathBuf>,
    /// Do not attach the signed result to the image.
    #[arg(long)]
    no_attach: bool,
    /// Speak plain HTTP to this registry; loopback needs no mention.
    #[arg(long, value_name = "HOST")]
    insecure_registry: Vec<String>,
}

/// How the rebuilt image compares with the one that was to be repeated.
enum Finding {
    /// Both images are here.
    Compared(Comparison),
    /// Only the provenance is: layers that differ from what it records.
    Recorded(Vec<String>),
}

impl Finding {
    fn verdict(&self) -> RebuildVerdict {
        match self {
            Self::Compared(Comparison::Identical) => RebuildVerdict::Identical,
            Self::Recorded(differences) if differences.is_empty() => RebuildVerdict::Identical,
            _ => RebuildVerdict::Differs,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Compared(comparison) => describe(comparison),
            Self::Recorded(differences) if differences.is_empty() => "identical".to_owned(),
            Self::Recorded(differences) => format!("differs\n{}", differences.join("\n")),
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Compared(comparison) => json!(comparison),
            Self::Recorded(differences) => {
                json!({ "verdict": self.text().lines().next(), "recorded": differences })
            }
        }
    }
}

/// Runs it.
///
/// # Errors
/// See [`Kind`]; that the images differ is an answer and no error.
pub fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let key = arguments.signing.open(session)?;
    let runtime = session.runtime()?;
    let registry = Registry::new(&arguments.insecure_registry, runtime.handle().clone());
    let pinned = arguments.reference.as_ref().map(|reference| pin(reference, &registry)).transpose()?;
    let chosen = evidence(arguments, &registry, pinned.as_ref())?;
    session.progress(
        &format!("repeating {} from {}", chosen.subject, chosen.origin),
        &json!({ "event": "repeating", "subject": chosen.subject, "origin": chosen.origin }),
    );
    let place = Place::open(session.state_dir())?;
    let network = match arguments.online {
        true => Network::Kept(place.keeper()),
        false => {
            inputs::replayed(&place, &chosen, arguments.materials.as_deref(), &registry, pinned.as_ref())?
        }
    };
    let order = order(arguments, &chosen, network)?;
    let outcome = order::only(order::build(session, &order, &registry, runtime.handle(), &|_| Ok(()))?)?;
    let finding = finding(arguments, session, &registry, pinned.as_ref(), &chosen, &outcome)?;
    let verdict = finding.verdict();
    if let (true, Some(record)) = (arguments.online, &outcome.record) {
        place.name(outcome.executed.image.manifest(), record, outcome.finished)?;
    }
    if let (Some(key), Some(builder_id)) = (&key, &arguments.signing.builder_id) {
        let materials = if arguments.online { RebuildMaterials::Fetched } else { RebuildMaterials::Replayed };
        let of = RebuildOf { subject: chosen.subject, provenance: chosen.bundle, verdict, materials };
        let identity = Identity { builder_id, key: &**key };
        let name = pinned
            .as_ref()
            .map_or(outcome.parameters.image.clone(), |pinned| pinned.repository().to_string());
        let bundle = provenance::sign(&outcome, &[], Some(of), &name, &identity)?;
        if let Some(path) = &arguments.bundle_out {
            write_file(path, bundle.to_bytes())?;
        }
        if let (Some(pinned), false) = (&pinned, arguments.no_attach) {
            let store = order::store(session)?;
            let original = registry.pull(pinned, &store)?;
            registry.attach(pinned, &original, &bundle)?;
        }
    }
    let value = json!({
        "event": "rebuilt",
        "subject": chosen.subject,
        "digest": outcome.executed.image.digest(),
        "online": arguments.online,
        "exchanges": outcome.executed.exchanges.len(),
        "identical": verdict == RebuildVerdict::Identical,
        "comparison": finding.json(),
        "signed": key.is_some(),
    });
    session.result(&format!("{}\n{}", outcome.executed.image.digest(), finding.text()), &value)?;
    Ok(if verdict == RebuildVerdict::Identical { Answer::Yes } else { Answer::No })
}

fn pin(reference: &Reference, registry: &Registry) -> Result<Pinned> {
    let digest = match reference.digest() {
        Some(digest) => *digest,
        None => registry.resolve(reference)?,
    };
    reference
        .pin(digest)
        .map_err(|cause| Error::new(Kind::Bug, "the reference has another digest").because(cause))
}

fn evidence(arguments: &Arguments, registry: &Registry, pinned: Option<&Pinned>) -> Result<Chosen> {
    let trust = match &arguments.builder_keys {
        None => Trust::Unverified,
        Some(path) => {
            let text = String::from_utf8_lossy(&read_file(path, FILE_LIMIT)?).into_owned();
            Trust::Keys(reviews::keys(&text, &path.display().to_string())?)
        }
    };
    let candidates = match (&arguments.provenance, pinned) {
        (Some(path), _) => vec![(path.display().to_string(), read_file(path, FILE_LIMIT)?)],
        (None, Some(pinned)) => {
            registry.attachments(pinned)?.into_iter().map(|found| (found.origin, found.bytes)).collect()
        }
        (None, None) => return Err(Error::new(Kind::Usage, "give an image reference or --provenance FILE")),
    };
    choose(&candidates, pinned.map(Pinned::digest), &trust)
}

fn order(arguments: &Arguments, chosen: &Chosen, network: Network) -> Result<Order> {
    let parameters = &chosen.provenance.build_definition.external_parameters;
    let uri = parameters.source.strip_prefix("git+").unwrap_or(&parameters.source);
    let location = match &arguments.repo {
        None => Location::parse(uri)?,
        Some(other) => Location::parse(other)?.standing_for(uri),
    };
    Ok(Order {
        location,
        commit: parameters.commit.clone(),
        what: What::Recorded {
            parameters: Box::new(parameters.clone()),
            bases: bases_of(&chosen.provenance)?,
        },
        bases: arguments.bases.iter().cloned().collect(),
        network,
        alone: None,
    })
}

fn finding(
    arguments: &Arguments,
    session: &Session,
    registry: &Registry,
    pinned: Option<&Pinned>,
    chosen: &Chosen,
    outcome: &Outcome,
) -> Result<Finding> {
    let place = match (pinned, &arguments.against) {
        (Some(pinned), _) => pinned.to_string(),
        (None, Some(folder)) => folder.clone(),
        (None, None) => return Ok(Finding::Recorded(recorded(chosen, outcome))),
    };
    let (store, original) = find(&place, registry, session)?;
    if original.digest() != chosen.subject {
        return Err(Error::new(
            Kind::Input,
            format!("{place} is {}, and the provenance is about {}", original.digest(), chosen.subject),
        ));
    }
    let rebuilt = order::store(session)?;
    Ok(Finding::Compared(compare((&store, &original), (&rebuilt, &outcome.executed.image)).told()?))
}

/// What differs from the provenance's own record, when the first image is not at hand.
fn recorded(chosen: &Chosen, outcome: &Outcome) -> Vec<String> {
    let image = &outcome.executed.image;
    if image.digest() == chosen.subject {
        return Vec::new();
    }
    let parameters = &chosen.provenance.build_definition.internal_parameters;
    let mut differences = vec![format!("manifest: {}, rebuilt {}", chosen.subject, image.digest())];
    if parameters.config_digest != image.config_descriptor().digest {
        differences.push(format!(
            "config: {}, rebuilt {}",
            parameters.config_digest,
            image.config_descriptor().digest
        ));
    }
    let rebuilt = &outcome.executed.layers;
    if parameters.layers.len() != rebuilt.len() {
        differences.push(format!("layers: {}, rebuilt {}", parameters.layers.len(), rebuilt.len()));
    }
    for (index, (first, second)) in parameters.layers.iter().zip(rebuilt).enumerate() {
        if first.diff_id != second.diff_id {
            differences.push(format!(
                "layer {index} ({}): {}, rebuilt {}",
                first.created_by, first.diff_id, second.diff_id
            ));
        } else if first.digest != second.digest {
            differences.push(format!("layer {index}: same content, compressed differently"));
        }
    }
    differences
}
