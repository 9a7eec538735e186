//! `rebuild`.

use std::path::PathBuf;

use attestations::incomplete::Incomplete;
use attestations::provenance::{RebuildOf, RebuildVerdict, Responses};
use attestations::{Digest, Pinned, Reference, SignedBundle};
use errors::{files, plural};
use images::Platform;
use serde_json::json;

use super::build::{Signing, bundle_path, pair};
use super::diff::describe;
use super::registries::{PrivateHosts, Reach};
use super::{Answer, Session};
use crate::confirm::{self, Confirmed};
use crate::executor::limits::StepLimits;
use crate::lookup::find;
use crate::parameters::BuildSelection;
use crate::pipeline::{self, BuildOutcome, BuildRequest, NetworkSource};
use crate::rebuild::evidence::{Chosen, Trust, choose};
use crate::rebuild::finding::Finding;
use crate::rebuild::inputs;
use crate::registry::Registry;
use crate::review::gate as reviews;
use crate::speculation::reference::ReferenceImage;

use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::provenance::{self, Identity};
use crate::secrets::{Given, Secrets};
use crate::source::Location;
use recorder::ResponseStore;

/// Largest bundle or file of keys read, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// Its arguments.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").args(["reference", "provenance"]).required(true).multiple(true))]
#[command(group = clap::ArgGroup::new("trust").args(["builder_keys", "trust_unverified"]).required(true))]
pub(crate) struct Arguments {
    /// Image to rebuild; its provenance is fetched from its registry.
    #[arg(value_name = "REFERENCE")]
    reference: Option<Reference>,
    /// File with the signed provenance of the build to repeat, instead of fetching it from the registry.
    #[arg(long, value_name = "FILE")]
    provenance: Option<PathBuf>,
    /// File with the public keys of the builders whose provenance is accepted, as PEM blocks or OpenSSH lines.
    #[arg(long, value_name = "FILE")]
    builder_keys: Option<PathBuf>,
    /// Accept the provenance without checking who signed it.
    #[arg(long)]
    trust_unverified: bool,
    /// Folder with an OCI image layout to compare the result with, when no reference is given.
    #[arg(long, value_name = "FOLDER", conflicts_with = "reference")]
    against: Option<String>,
    /// Platforms to rebuild of a multi-platform image; all by default.
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// Fetch from the servers again, instead of replaying the first builder's recorded responses; shows whether the
    /// servers still give the same.
    #[arg(long)]
    online: bool,
    /// Replay the recorded responses, then ask the servers whether they give the same, and sign both; only a rebuild
    /// with --confirm or --online counts as independent.
    #[arg(long, conflicts_with = "online")]
    confirm: bool,
    /// File with the recorded responses, as `materials export` writes it.
    #[arg(long, value_name = "FILE", conflicts_with = "online")]
    materials: Option<PathBuf>,
    /// Git repository to fetch the commit from, instead of the one that the provenance names.
    #[arg(long, value_name = "PATH|URL")]
    repo: Option<String>,
    /// Where to take the base image that the Dockerfile calls NAME from; its digest must be the recorded one.
    #[arg(long = "base", value_name = "NAME=FOLDER|REFERENCE", value_parser = pair)]
    bases: Vec<(String, String)>,
    /// Secret that the first build was given; secrets are never stored, so a rebuild needs them again.
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    secrets: Vec<Given>,
    /// Write the signed result to this file; with several images, to one file each, with the platform in its name.
    #[arg(long, value_name = "FILE", requires = "key")]
    bundle_out: Option<PathBuf>,
    /// Do not attach the signed result to the image in the registry.
    #[arg(long)]
    no_attach: bool,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    limits: StepLimits,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    private_hosts: PrivateHosts,
}

/// The result of a comparison as text.
fn text(finding: &Finding) -> String {
    match finding {
        Finding::Compared(comparison) => describe(comparison),
        Finding::Recorded(differences) if differences.is_empty() => "identical".to_owned(),
        Finding::Recorded(differences) => format!("differs\n{}", differences.join("\n")),
    }
}

/// What the servers gave when they were asked again, where they were.
fn confirmed(observed: &Responses) -> String {
    let Responses::Confirmed(found) = observed else { return String::new() };
    let mut text = format!(
        "\nconfirmed: {} the same, {} changed since, {} gone or not asked for, {}",
        plural(found.same, "response"),
        plural(found.changed_indexes, "index"),
        found.gone.len(),
        plural(found.differs.len(), "difference")
    );
    for (word, all) in [("differs", &found.differs), ("gone", &found.gone)] {
        for one in all {
            text.push_str(&format!("\n  {word}: {one}"));
        }
    }
    text
}

/// The same for machines.
fn json_of(finding: &Finding) -> serde_json::Value {
    match finding {
        Finding::Compared(comparison) => json!(comparison),
        Finding::Recorded(differences) => {
            json!({ "verdict": text(finding).lines().next(), "recorded": differences })
        }
    }
}

/// One rebuilt image.
struct Rebuilt {
    subject: Digest,
    platform: String,
    outcome: BuildOutcome,
    finding: Finding,
}

/// Runs it.
///
/// # Errors
/// See [`Kind`]; that the images differ is a result and not an error.
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let key = arguments.signing.open(session)?;
    let runtime = session.workspace().runtime()?;
    let registry =
        Registry::new(arguments.reach.registries()?, session.workspace(), runtime.handle().clone());
    // None stands for the image of the given provenance.
    let images: Vec<Option<Pinned>> = match &arguments.reference {
        None => vec![None],
        Some(reference) => registry.images(reference, &arguments.platforms)?.into_iter().map(Some).collect(),
    };
    let identity = match (&key, &arguments.signing.builder_id) {
        (Some(key), Some(builder_id)) => Some(Identity { builder_id, key: &**key }),
        _ => None,
    };
    let response_store = ResponseStore::open(session.workspace().state_dir())?;
    let work = Work {
        arguments,
        session,
        registry: &registry,
        runtime: runtime.handle(),
        response_store: &response_store,
        identity,
        is_one_of_several: images.len() > 1,
    };
    // The provenance of every image is checked before the first one is rebuilt.
    let chosen = images
        .into_iter()
        .map(|pinned| evidence(arguments, &registry, pinned.as_ref()).map(|chosen| (pinned, chosen)))
        .collect::<Result<Vec<_>>>()?;
    let rebuilt = chosen
        .into_iter()
        .map(|(pinned, chosen)| work.repeat(pinned.as_ref(), &chosen))
        .collect::<Result<Vec<_>>>()?;
    let is_identical = rebuilt.iter().all(Rebuilt::is_the_same);
    let reports = rebuilt.iter().map(|one| one.json(arguments, key.is_some())).collect::<Vec<_>>();
    match (rebuilt.as_slice(), reports.as_slice()) {
        ([one], [value]) => {
            let text = format!(
                "{}\n{}{}",
                one.outcome.executed.image.digest(),
                text(&one.finding),
                confirmed(&one.outcome.observed)
            );
            session.result(&text, value)?;
        }
        (all, _) => {
            let line = |one: &Rebuilt| {
                format!("{} {}\n{}", one.outcome.executed.image.digest(), one.platform, text(&one.finding))
            };
            let text = all.iter().map(line).collect::<Vec<_>>().join("\n");
            let value = json!({ "event": "rebuilt", "identical": is_identical, "images": reports });
            session.result(&text, &value)?;
        }
    }
    Ok(if is_identical { Answer::Yes } else { Answer::No })
}

/// Shared by all rebuilds of one call.
struct Work<'a> {
    arguments: &'a Arguments,
    session: &'a Session,
    registry: &'a Registry,
    runtime: &'a tokio::runtime::Handle,
    response_store: &'a ResponseStore,
    identity: Option<Identity<'a>>,
    is_one_of_several: bool,
}

impl Work<'_> {
    /// Repeats one build, compares the images, and signs the result; also that there is none, so that a failure is not taken for
    /// silence.
    fn repeat(&self, pinned: Option<&Pinned>, chosen: &Chosen) -> Result<Rebuilt> {
        self.attempt(pinned, chosen).or_else(|error| {
            let error = self.in_index(error);
            // How the program was called says nothing about the image.
            if error.kind() != Kind::Usage {
                self.sign_incomplete(pinned, chosen, &error)?;
            }
            Err(error)
        })
    }

    fn attempt(&self, pinned: Option<&Pinned>, chosen: &Chosen) -> Result<Rebuilt> {
        let (arguments, session, registry) = (self.arguments, self.session, self.registry);
        session.workspace().report(&Event::Repeating { subject: chosen.subject, origin: &chosen.origin });
        let network = match arguments.online {
            true => NetworkSource::Kept(self.response_store.writer()),
            false => inputs::replayed(
                self.response_store,
                chosen,
                arguments.materials.as_deref(),
                registry,
                pinned,
            )?,
        };
        let original = original(arguments, session, registry, pinned, chosen)?;
        let reference_image = match &original {
            // An early command that runs again would send its requests to the servers twice.
            _ if arguments.online => None,
            Some(original) => Some(original.clone()),
            None => ReferenceImage::at_hand(pipeline::store(session.workspace())?, &chosen.subject)?,
        };
        let build_request = order(arguments, chosen, network, reference_image)?;
        let outcomes =
            pipeline::build(session.workspace(), &build_request, registry, self.runtime, &|_, _| Ok(()));
        let mut outcome = pipeline::only(outcomes?)?;
        if arguments.confirm {
            outcome.observed = self.confirm(&outcome, &build_request.upstream)?;
        }
        let rebuilt = pipeline::store(session.workspace())?;
        let finding = Finding::of(original.as_ref(), chosen, (&rebuilt, &outcome))?;
        if let (true, Some(record)) = (arguments.online, &outcome.record) {
            self.response_store.name(outcome.executed.image.manifest(), record, outcome.finished)?;
        }
        let subject = chosen.subject;
        self.sign(pinned, chosen, &outcome, finding.verdict())?;
        Ok(Rebuilt { subject, platform: outcome.parameters.platform.clone(), outcome, finding })
    }

    /// Asks the servers for everything that was replayed.
    fn confirm(&self, outcome: &BuildOutcome, upstream: &recorder::Upstream) -> Result<Responses> {
        let report = |one: &Confirmed, done, total| {
            let verdict = one.verdict.name();
            self.session.workspace().report(&Event::Asked { url: &one.url, verdict, done, total });
        };
        let all = confirm::confirm(&outcome.responses, upstream, self.runtime, &report).map_err(|cause| {
            Error::new(Kind::Machine, "the servers cannot be asked from here").because(cause)
        })?;
        let record = outcome.record.ok_or_else(|| Error::new(Kind::Bug, "a replay without a record"))?;
        Ok(Responses::Confirmed(confirm::confirmation(&all, record, jiff::Timestamp::now())))
    }

    /// Signs that the rebuild came to nothing, and why, so that it is not mistaken for silence.
    fn sign_incomplete(&self, pinned: Option<&Pinned>, chosen: &Chosen, error: &Error) -> Result<()> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let name = pinned.map_or_else(|| "image".to_owned(), |pinned| pinned.repository().to_string());
        let parameters = &chosen.provenance().build_definition.external_parameters;
        let said = Incomplete {
            builder: identity.builder_id.to_owned(),
            commit: parameters.commit.clone(),
            provenance: chosen.bundle,
            reason: attestations::Foreign::new(&errors::chain::line(error)).to_string(),
            attempted_on: jiff::Timestamp::now(),
        };
        let bundle = provenance::sign_incomplete(&name, &chosen.subject, said, identity.key)?;
        self.hand_out(pinned, &parameters.platform, &bundle)
    }

    /// For an index, adds a hint: a machine without an emulator can still rebuild its own platform's image.
    fn in_index(&self, error: Error) -> Error {
        match (self.is_one_of_several && error.kind() == Kind::Machine, error.hint_text()) {
            (true, Some(hint)) => {
                let more = format!("{hint}; or repeat some of the index's images with --platform");
                error.hint(more)
            }
            _ => error,
        }
    }

    fn sign(
        &self,
        pinned: Option<&Pinned>,
        chosen: &Chosen,
        outcome: &BuildOutcome,
        verdict: RebuildVerdict,
    ) -> Result<()> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let of = RebuildOf { subject: chosen.subject, provenance: chosen.bundle, verdict };
        let name = match pinned {
            Some(pinned) => pinned.repository().to_string(),
            None => outcome.parameters.image.clone(),
        };
        let bundle = provenance::sign(outcome, &[], Some(of), &name, identity)?;
        self.hand_out(pinned, &outcome.parameters.platform, &bundle)
    }

    /// Writes a signed statement to the file that was asked for, and attaches it to the image in its registry.
    fn hand_out(&self, pinned: Option<&Pinned>, platform: &str, bundle: &SignedBundle) -> Result<()> {
        let arguments = self.arguments;
        if let Some(path) = &arguments.bundle_out {
            let platform = self.is_one_of_several.then_some(platform);
            files::write(&bundle_path(path, platform), bundle.to_bytes())?;
        }
        if let (Some(pinned), false) = (pinned, arguments.no_attach) {
            self.registry.attach(pinned, &self.registry.describe(pinned)?, &[bundle])?;
        }
        Ok(())
    }
}

impl Rebuilt {
    /// Whether the image is the same, and nothing that entered is another thing now.
    fn is_the_same(&self) -> bool {
        let differs =
            matches!(&self.outcome.observed, Responses::Confirmed(found) if !found.differs.is_empty());
        self.finding.verdict() == RebuildVerdict::Identical && !differs
    }

    fn json(&self, arguments: &Arguments, signed: bool) -> serde_json::Value {
        json!({
            "event": "rebuilt",
            "subject": self.subject,
            "platform": self.platform,
            "digest": self.outcome.executed.image.digest(),
            "online": arguments.online,
            "responses": self.outcome.observed,
            "exchanges": self.outcome.responses.exchanges().count(),
            "identical": self.finding.verdict() == RebuildVerdict::Identical,
            "comparison": json_of(&self.finding),
            "signed": signed,
        })
    }
}

fn evidence(arguments: &Arguments, registry: &Registry, pinned: Option<&Pinned>) -> Result<Chosen> {
    let trust = match &arguments.builder_keys {
        None => Trust::Unverified,
        Some(path) => Trust::Keys(reviews::read_keys(path, FILE_LIMIT)?),
    };
    let candidates = match (&arguments.provenance, pinned) {
        (Some(path), _) => vec![(path.display().to_string(), files::read(path, FILE_LIMIT)?)],
        (None, Some(pinned)) => {
            registry.attachments(pinned)?.into_iter().map(|found| (found.origin, found.bytes)).collect()
        }
        (None, None) => return Err(Error::new(Kind::Usage, "give an image reference or --provenance FILE")),
    };
    let chosen = choose(&candidates, pinned.map(Pinned::digest), &trust)?;
    let platform = platform_of(&chosen)?;
    match arguments.platforms.is_empty() || arguments.platforms.contains(&platform) {
        true => Ok(chosen),
        false => Err(Error::new(Kind::NotFound, format!("{} is for {platform}", chosen.subject))
            .hint("leave out --platform, or name the image that is meant")),
    }
}

fn platform_of(chosen: &Chosen) -> Result<Platform> {
    let text = &chosen.provenance().build_definition.external_parameters.platform;
    text.parse().map_err(|why: String| Error::new(Kind::Input, format!("the provenance: {why}")))
}

fn order(
    arguments: &Arguments,
    chosen: &Chosen,
    network: NetworkSource,
    reference_image: Option<ReferenceImage>,
) -> Result<BuildRequest> {
    let parameters = &chosen.provenance().build_definition.external_parameters;
    let uri = parameters.source.strip_prefix("git+").unwrap_or(&parameters.source);
    let location = match &arguments.repo {
        None => Location::parse(uri)?,
        Some(other) => Location::parse(other)?.standing_for(uri),
    };
    Ok(BuildRequest {
        location,
        commit: parameters.commit.clone(),
        what: BuildSelection::Recorded {
            parameters: Box::new(parameters.clone()),
            bases: chosen
                .provenance()
                .recorded_bases()
                .map_err(|cause| Error::new(Kind::Input, cause.to_string()))?,
        },
        bases: arguments.bases.iter().cloned().collect(),
        network,
        reference_image,
        upstream: arguments.private_hosts.permit(arguments.reach.upstream()?)?,
        alone: None,
        limits: arguments.limits.clone(),
        // Only the secrets that the first build used.
        secrets: Secrets::read(&arguments.secrets)?.only(&parameters.secrets)?,
    })
}

/// The original image, if it is available.
fn original(
    arguments: &Arguments,
    session: &Session,
    registry: &Registry,
    pinned: Option<&Pinned>,
    chosen: &Chosen,
) -> Result<Option<ReferenceImage>> {
    let location = match (pinned, &arguments.against) {
        (Some(pinned), _) => pinned.to_string(),
        (None, Some(folder)) => folder.clone(),
        (None, None) => return Ok(None),
    };
    let platform = platform_of(chosen)?;
    let (store, image) =
        find(&location, pinned.is_none().then_some(&platform), registry, session.workspace())?;
    match image.digest() == chosen.subject {
        true => Ok(Some(ReferenceImage { store, image })),
        false => Err(Error::new(
            Kind::Input,
            format!("{location} is {}, and the provenance is about {}", image.digest(), chosen.subject),
        )),
    }
}
