//! `build`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use attestations::{Commit, Digest, Pinned, Reference, Signer};
use images::{Platform, Store};
use serde_json::json;

use super::export::Output;
use super::order::{self, Network, Order, Outcome, What};
use super::registry::Registry;
use super::reviews::{self, Demand, HandedIn};
use crate::cli::{Answer, Session};
use crate::error::{Error, Kind, Result};
use crate::keys::{self, PasswordArguments};
use crate::lock::{self, Lock};
use crate::materials::{Materials, Place};
use crate::provenance::{self, Identity, read_file, write_file};
use crate::source::Location;

/// Largest bundle or file of keys read, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The repository: a path or URL.
    #[arg(long, value_name = "PATH|URL")]
    repo: String,
    /// The full id of the commit.
    #[arg(long, value_name = "ID")]
    commit: String,
    /// Which image of countersign.toml to build, when there are several.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Build this stage instead of the one countersign.toml names.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// A value for an ARG.
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = pair)]
    arguments: Vec<(String, String)>,
    /// A label of the image, beside those of its Dockerfile.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Build for this platform, such as linux/amd64.
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Take the base that the Dockerfile calls NAME from a folder with an OCI image layout, or from another reference.
    #[arg(long = "base", value_name = "NAME=FOLDER|REFERENCE", value_parser = pair)]
    bases: Vec<(String, String)>,
    /// Signed reviews of the commit; they are attached to the image.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    reviews: Vec<PathBuf>,
    /// Refuse to build unless this many different reviewers approved the commit.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "reviewer_keys")]
    require_reviews: usize,
    /// Public keys of the reviewers that count: PEM blocks or OpenSSH lines.
    #[arg(long, value_name = "FILE")]
    reviewer_keys: Option<PathBuf>,
    /// Push the image and its statements there.
    #[arg(long, value_name = "REFERENCE")]
    push: Option<Reference>,
    /// Do not keep what the steps took from the network, only name it: nobody can repeat the build without the same
    /// servers then.
    #[arg(long)]
    no_keep: bool,
    /// Keep the materials here, but do not attach them to the image that is pushed.
    #[arg(long, conflicts_with = "no_keep")]
    no_attach_materials: bool,
    /// Take nothing from the network, but replay what the commit's lock (Dockerfile.lock) names, on the bases it names.
    #[arg(long, conflicts_with_all = ["no_keep", "replay"])]
    locked: bool,
    /// End with 1, and push nothing, when the build used other bases or packages than the commit's lock says.
    #[arg(long)]
    deny_drift: bool,
    /// Take nothing from the network, but replay the kept materials with this digest, of an image or of a record.
    #[arg(long, value_name = "DIGEST", conflicts_with = "no_keep")]
    replay: Option<Digest>,
    /// Put the image into a folder as an OCI image layout: the same as --output type=oci,tar=false,dest=FOLDER.
    #[arg(long, value_name = "FOLDER")]
    oci: Option<PathBuf>,
    /// Write the image to a file or folder: oci (tar=false for a folder), docker-archive (with name=REPOSITORY:TAG), or its
    /// root file system alone as tar or local.
    #[arg(long = "output", value_name = "type=TYPE,dest=PATH")]
    outputs: Vec<Output>,
    /// Write the signed provenance to a file.
    #[arg(long, value_name = "FILE", requires = "key")]
    bundle_out: Option<PathBuf>,
    /// Attach bills of materials to the image that is pushed, signed, as SPDX 2.3 and as CycloneDX 1.6.
    #[arg(long, requires = "key", requires = "push")]
    sbom: bool,
    /// Write each file that a rule of the normaliser changed.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    signing: Signing,
    /// Speak plain HTTP to this registry; loopback needs no mention.
    #[arg(long, value_name = "HOST")]
    insecure_registry: Vec<String>,
}

/// The options of commands that sign provenance.
#[derive(Debug, clap::Args)]
pub struct Signing {
    /// The builder's private key: PKCS#8 PEM or OpenSSH.
    #[arg(long, value_name = "FILE", requires = "builder_id")]
    pub key: Option<PathBuf>,
    /// Where the key's password comes from.
    #[command(flatten)]
    pub password: PasswordArguments,
    /// The builder's URI, as policies name it.
    #[arg(long, env = "COUNTERSIGN_BUILDER_ID", value_name = "URI")]
    pub builder_id: Option<String>,
}

impl Signing {
    /// Opens the key, if one is given. Done before the work, so that a wrong password costs nothing.
    ///
    /// # Errors
    /// When the key cannot be opened.
    pub fn open(&self, session: &Session) -> Result<Option<Box<dyn Signer>>> {
        self.key.as_ref().map(|path| keys::open(path, &self.password, session)).transpose()
    }
}

/// `NAME=VALUE`
///
/// # Errors
/// Without a name.
pub fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text} is not of the form NAME=VALUE")),
    }
}

/// A full commit id.
///
/// # Errors
/// [`Kind::Usage`] for anything else.
pub fn commit(text: &str) -> Result<Commit> {
    text.parse().map_err(|cause| {
        Error::new(Kind::Usage, format!("{text:?} is not a full commit id"))
            .hint("`git rev-parse COMMIT` prints it; names and short ids can come to mean something else")
            .because(cause)
    })
}

/// Runs it.
///
/// # Errors
/// See [`Kind`].
pub fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let place = (!arguments.no_keep).then(|| Place::open(session.state_dir()).map(Arc::new)).transpose()?;
    let order = order(arguments, place.as_ref())?;
    let outputs: Vec<Output> =
        arguments.oci.iter().cloned().map(Output::layout).chain(arguments.outputs.iter().cloned()).collect();
    outputs.iter().try_for_each(Output::check)?;
    let keys = match &arguments.reviewer_keys {
        None => Vec::new(),
        Some(path) => {
            let text = String::from_utf8_lossy(&read_file(path, FILE_LIMIT)?).into_owned();
            reviews::keys(&text, &path.display().to_string())?
        }
    };
    let handed_in = arguments
        .reviews
        .iter()
        .map(|path| HandedIn::parse(&path.display().to_string(), &read_file(path, FILE_LIMIT)?, &keys))
        .collect::<Result<Vec<_>>>()?;
    let demand = Demand { threshold: arguments.require_reviews, keys };
    let key = arguments.signing.open(session)?;
    let runtime = session.runtime()?;
    let registry = Registry::new(&arguments.insecure_registry, runtime.handle().clone());
    let gate = |commit: &crate::source::Snapshot<'_>| reviews::check(&demand, &handed_in, commit);
    let outcome = order::only(order::build(session, &order, &registry, runtime.handle(), &gate)?)?;

    let drift = drift(&outcome)?;
    if arguments.deny_drift && !drift.is_empty() {
        return Err(Error::new(Kind::Refused, "the build used other things than the commit's lock says")
            .details(drift)
            .hint("review the new ones and commit a new lock, or build exactly the old ones with --locked"));
    }
    let store = order::store(session)?;
    let materials = match (&place, &outcome.record) {
        (Some(place), Some(record)) => {
            Some(place.name(outcome.executed.image.manifest(), record, outcome.finished)?)
        }
        _ => None,
    };
    let name = subject_name(arguments, &outcome);
    let bundle = match (&key, &arguments.signing.builder_id) {
        (Some(key), Some(builder_id)) => {
            let identity = Identity { builder_id, key: &**key };
            Some(provenance::sign(&outcome, &handed_in, None, &name, &identity)?)
        }
        _ => None,
    };
    for output in &outputs {
        output.write(session, &store, &outcome.executed.image, &outcome.parameters.image)?;
    }
    if let (Some(path), Some(bundle)) = (&arguments.bundle_out, &bundle) {
        write_file(path, bundle.to_bytes())?;
    }
    if let Some(reference) = &arguments.push {
        let bills = match (&key, arguments.sbom) {
            (Some(key), true) => provenance::sign_bills(&outcome, &name, &**key)?,
            _ => Vec::new(),
        };
        let statements = handed_in.iter().map(|review| &review.bundle).chain(&bundle).chain(&bills);
        let pinned = push(&registry, &store, reference, &outcome, statements.collect())?;
        if let (Some(place), Some(materials), false) = (&place, &materials, arguments.no_attach_materials) {
            place.send(&registry, &pinned, materials)?;
        }
    }
    report(arguments, session, &outcome, (materials.as_ref(), &drift), bundle.is_some())
}

fn order(arguments: &Arguments, place: Option<&Arc<Place>>) -> Result<Order> {
    if let Some(reference) = &arguments.push
        && (reference.tag().is_none() || reference.digest().is_some())
    {
        return Err(Error::new(Kind::Usage, format!("--push {reference} must name a tag and no digest")));
    }
    let network = match (place, &arguments.replay) {
        (None, _) => Network::Named,
        (Some(place), _) if arguments.locked => Network::Locked(place.clone()),
        (Some(place), None) => Network::Kept(place.keeper()),
        (Some(place), Some(digest)) => Network::Replayed(place.replay(&place.find(digest)?.record)?.into()),
    };
    Ok(Order {
        network,
        location: Location::parse(&arguments.repo)?,
        commit: commit(&arguments.commit)?,
        what: What::Project {
            image: arguments.image.clone(),
            target: arguments.target.clone(),
            arguments: arguments.arguments.iter().cloned().collect(),
            labels: arguments.labels.iter().cloned().collect(),
            platforms: arguments.platform.iter().cloned().collect(),
        },
        bases: arguments.bases.iter().cloned().collect::<BTreeMap<_, _>>(),
        alone: Some("an index of several is not made yet".to_owned()),
    })
}

/// How the build differs from its commit's lock.
fn drift(outcome: &Outcome) -> Result<Vec<String>> {
    let Some(lock) = &outcome.lock else { return Ok(Vec::new()) };
    let used = Lock::of(&provenance::of(outcome, &[], None, ""))?;
    Ok(lock::drift(lock, &used))
}

fn subject_name(arguments: &Arguments, outcome: &Outcome) -> String {
    match &arguments.push {
        Some(reference) => reference.repository().to_string(),
        None => outcome.parameters.image.clone(),
    }
}

fn push(
    registry: &Registry,
    store: &Store,
    reference: &Reference,
    outcome: &Outcome,
    statements: Vec<&attestations::Bundle>,
) -> Result<Pinned> {
    let image = &outcome.executed.image;
    let digest = registry.push(store, image, reference.repository(), reference.tag())?;
    let pinned = reference.repository().clone().pin(digest);
    for statement in statements {
        registry.attach(&pinned, image, statement)?;
    }
    Ok(pinned)
}

fn report(
    arguments: &Arguments,
    session: &Session,
    outcome: &Outcome,
    (materials, drift): (Option<&Materials>, &[String]),
    signed: bool,
) -> Result<Answer> {
    let executed = &outcome.executed;
    let digest = executed.image.digest();
    let mut text = format!("{digest}\n");
    if let Some(reference) = &arguments.push {
        text.push_str(&format!("pushed {reference}\n"));
    }
    for output in &arguments.outputs {
        text.push_str(&format!("wrote {}\n", output.destination().display()));
    }
    if let Some(kept) = materials {
        text.push_str(&format!(
            "kept {} bodies, {} bytes, in record {}\n",
            kept.bodies, kept.size, kept.record
        ));
    }
    if !outcome.packages.is_empty() {
        text.push_str(&format!("{} packages came over the network\n", outcome.packages.len()));
    }
    for line in drift {
        text.push_str(&format!("drift from the lock: {line}\n"));
    }
    if arguments.explain {
        let lines =
            executed.fired.iter().map(|fired| format!("normalised by {}: /{}\n", fired.rule, fired.path));
        text.extend(lines);
    }
    for reason in &executed.unrecorded {
        text.push_str(&format!("materials incomplete: {reason}\n"));
    }
    if !signed {
        text.push_str("not signed: give --key and --builder-id to have it admitted anywhere\n");
    }
    let value = json!({
        "event": "built",
        "digest": digest,
        "config": executed.image.config_descriptor().digest,
        "commit": outcome.parameters.commit,
        "layers": executed.layers,
        "exchanges": executed.exchanges.len(),
        "materials": materials,
        "locked": outcome.lock.is_some(),
        "drift": drift,
        "packages": outcome.packages.iter().map(|package| package.purl.to_string()).collect::<Vec<_>>(),
        "unrecorded": executed.unrecorded,
        "normalised": executed.fired.iter().map(|fired| json!({ "rule": fired.rule, "path": fired.path })).collect::<Vec<_>>(),
        "pushed": arguments.push.as_ref().map(ToString::to_string),
        "signed": signed,
    });
    session.result(&text, &value)?;
    Ok(Answer::Yes)
}
