//! `build`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attestations::review::{Parameters, Role, RoleError};
use attestations::{Commit, Digest, Reference, Signer};
use errors::files;
use images::export::Content;
use images::{Image, Index, Platform};

use super::registries::{PrivateHosts, Reach};
use super::report::Report;
use super::{Answer, Session};
use crate::executor::limits::StepLimits;
use crate::parameters::BuildSelection;
use crate::pipeline::{self, BuildOutcome, BuildRequest, NetworkSource};
use crate::publish::BuiltImage;
use crate::publish::export::{ImageNames, Output};
use crate::publish::push::Push;
use crate::registry::Registry;
use crate::review::gate as reviews;
use crate::review::gate::{Demand, HandedIn};
use crate::speculation::reference::ReferenceImage;

use super::password::PasswordArguments;
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::provenance::{self, Identity};
use crate::secrets::{Given, Secrets};
use crate::source::{Location, Snapshot};
use recorder::{PrivateResponses, ResponseStore};

/// Largest bundle or file of keys read, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  Build a commit, without pushing or signing:
    countersign-builder build --repo . --commit $(git rev-parse HEAD)
  Build, sign, and push under two tags, with provenance and recorded responses attached:
    countersign-builder build --repo https://git.example/glm --commit 3f1c… --key ci.pem \\
      --builder-id https://ci.example -t registry.example/glm:1.2 -t registry.example/glm:1 --push
  Write a file for `docker load`, for a machine without a registry:
    countersign-builder build --repo . --commit 3f1c… -t org/glm:1.2 \\
      --output type=docker-archive,dest=glm.tar
  Build another Dockerfile of the repository, in a folder of it:
    countersign-builder build --repo . --commit 3f1c… --file docker/gpu.Dockerfile --context glm
  Build again from the recorded responses, without network access:
    countersign-builder build --repo . --commit 3f1c… --replay sha256:…
  Build the next commit faster, by speculating on the previous image:
    countersign-builder build --repo . --commit 81ab… --like sha256:…
  Use a base image from a folder, build for two platforms, and print progress as JSON:
    countersign-builder build --repo . --commit 3f1c… --base debian:12=./debian \\
      --platform linux/amd64,linux/arm64 --progress=json";

/// Its arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Git repository that holds the source: a local path or a URL.
    #[arg(long, value_name = "PATH|URL")]
    repo: String,
    /// Full ID of the commit to build; branches, tags and short IDs are refused because they can change meaning.
    #[arg(long, value_name = "ID")]
    commit: String,
    /// Image to build, by its name in countersign.toml; needed only when the file names several.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Dockerfile to build, by its path in the commit, instead of the one that countersign.toml names or that is in the
    /// context.
    #[arg(long, short, value_name = "PATH")]
    file: Option<String>,
    /// Folder of the commit that COPY and ADD see, instead of the one that countersign.toml names or the whole
    /// repository.
    #[arg(long, value_name = "FOLDER")]
    context: Option<String>,
    /// Dockerfile stage to build, instead of the one that countersign.toml names.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value for an ARG of the Dockerfile; may be given several times.
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = pair)]
    arguments: Vec<(String, String)>,
    /// Label to add to the image, besides those of its Dockerfile; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Secret for RUN --mount=type=secret, read from a file or an environment variable; it is never stored, and the
    /// build fails if it would end up in a layer or a record.
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    secrets: Vec<Given>,
    /// Platforms to build for, such as linux/amd64,linux/arm64; several make a multi-platform image index, and RUN
    /// for a foreign architecture needs QEMU registered with binfmt_misc.
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// Where to take the base image that the Dockerfile calls NAME from: a folder with an OCI image layout, or
    /// another image reference.
    #[arg(long = "base", value_name = "NAME=FOLDER|REFERENCE", value_parser = pair)]
    bases: Vec<(String, String)>,
    /// Signed reviews of the commit, as `review sign` writes them; they are attached to the pushed image.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    reviews: Vec<PathBuf>,
    /// Refuse to build unless this many different reviewers have approved the commit, in this role (code, if none is
    /// given); may be given once for each role.
    #[arg(long, value_name = "[ROLE=]N", value_parser = required, requires = "reviewer_keys")]
    require_reviews: Vec<(Role, usize)>,
    /// File with the public keys of the reviewers that count, as PEM blocks or OpenSSH lines.
    #[arg(long, value_name = "FILE")]
    reviewer_keys: Option<PathBuf>,
    /// Name of the image with a tag, for --output and for --push without a value; may be given several times.
    #[arg(long = "tag", short, value_name = "REFERENCE", value_parser = tagged)]
    tags: Vec<Reference>,
    /// Push the image with its signed reviews, provenance and recorded responses to this reference; without a value,
    /// to every --tag.
    #[arg(long, value_name = "REFERENCE", num_args = 0..=1, default_missing_value = "", value_parser = push)]
    push: Option<To>,
    /// Do not keep the responses that steps got from the network, only their digests; the build can then be repeated
    /// only as long as the servers answer the same.
    #[arg(long)]
    no_keep: bool,
    /// Keep the recorded responses in the state directory only, instead of also attaching them to the pushed image.
    #[arg(long, conflicts_with = "no_keep")]
    no_attach_materials: bool,
    /// Also attach the responses that were given to steps with secrets or to requests with credentials; whoever can
    /// read the image in the registry can then read them.
    #[arg(long, conflicts_with_all = ["no_keep", "no_attach_materials"])]
    attach_private: bool,
    /// Build with the recorded responses and base images that the commit's Dockerfile.lock names; steps get no
    /// network.
    #[arg(long, conflicts_with_all = ["no_keep", "replay"])]
    locked: bool,
    /// Exit with code 1 and push nothing if the build used base images or packages other than those in the commit's
    /// lock file.
    #[arg(long)]
    deny_drift: bool,
    /// Build with the recorded responses of an earlier build, named by the digest of its image or of its record;
    /// steps get no network.
    #[arg(long, value_name = "DIGEST", conflicts_with = "no_keep")]
    replay: Option<Digest>,
    /// Earlier image in the state directory, such as the previous commit's, on whose layers RUN steps start early; a
    /// step runs again if an earlier layer has changed, so the result is the same.
    #[arg(long, value_name = "DIGEST", conflicts_with_all = ["replay", "locked"])]
    like: Option<Digest>,
    /// Write the image to a folder as an OCI image layout; same as --output type=oci,tar=false,dest=FOLDER.
    #[arg(long, value_name = "FOLDER")]
    oci: Option<PathBuf>,
    /// Write the image to a file or folder: type oci (tar=false for a folder) or docker-archive
    /// (name=REPOSITORY:TAG), or only its root file system: type tar or local.
    #[arg(long = "output", value_name = "type=TYPE,dest=PATH")]
    outputs: Vec<Output>,
    /// Write the signed provenance to this file; with several platforms, to one file each, with the platform in its
    /// name.
    #[arg(long, value_name = "FILE", requires = "key")]
    bundle_out: Option<PathBuf>,
    /// Attach signed SBOMs to the pushed image, as SPDX 2.3 and as CycloneDX 1.6.
    #[arg(long, requires = "key", requires = "push")]
    sbom: bool,
    /// List every file that was normalised for reproducibility, and the rule that changed it.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    private_hosts: PrivateHosts,
    #[command(flatten)]
    limits: StepLimits,
}

/// The options of commands that sign provenance.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Signing")]
pub(crate) struct Signing {
    /// Private key that signs the provenance: PKCS#8 PEM, OpenSSH, or ssh-agent:NAME for one in an SSH agent.
    #[arg(long, value_name = "FILE", requires = "builder_id")]
    pub(crate) key: Option<PathBuf>,
    /// Where the key's password comes from.
    #[command(flatten)]
    pub(crate) password: PasswordArguments,
    /// URI that names this builder in provenance and in policies.
    #[arg(long, env = "COUNTERSIGN_BUILDER_ID", value_name = "URI")]
    pub(crate) builder_id: Option<String>,
}

impl Signing {
    /// Opens the key, if one is given. Done before the work, so that a wrong password costs nothing.
    ///
    /// # Errors
    /// When the key cannot be opened.
    pub(crate) fn open(&self, session: &Session) -> Result<Option<Box<dyn Signer>>> {
        self.key.as_ref().map(|path| self.password.open(path, session.workspace())).transpose()
    }
}

/// `NAME=VALUE`
///
/// # Errors
/// Without a name.
pub(crate) fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text} is not of the form NAME=VALUE")),
    }
}

/// `[ROLE=]N`
fn required(text: &str) -> std::result::Result<(Role, usize), String> {
    let (role, count) = match text.split_once('=') {
        Some((role, count)) => (role.parse().map_err(|cause: RoleError| cause.to_string())?, count),
        None => (Role::code(), text),
    };
    let count = count.parse().map_err(|_| format!("{count} is no number of reviewers"))?;
    Ok((role, count))
}

/// The roles that reviews are asked for, each once.
fn roles(required: &[(Role, usize)]) -> Result<BTreeMap<Role, usize>> {
    let mut roles = BTreeMap::new();
    for (role, count) in required {
        if roles.insert(role.clone(), *count).is_some() {
            let text = format!("--require-reviews is given twice for the role {role}");
            return Err(Error::new(Kind::Usage, text).hint("give it once for each role"));
        }
    }
    Ok(roles)
}

/// Where to push.
#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    /// To every `--tag`.
    Tags,
    /// To this reference only; tags are then names in written files.
    There(Reference),
}

fn push(text: &str) -> std::result::Result<To, String> {
    match text {
        "" => Ok(To::Tags),
        text => tagged(text).map(To::There),
    }
}

/// A reference that can name an image: with a tag, since there is no default one, and without a digest.
fn tagged(text: &str) -> std::result::Result<Reference, String> {
    let reference: Reference =
        text.parse().map_err(|cause: attestations::ReferenceError| cause.to_string())?;
    match (reference.tag(), reference.digest()) {
        (Some(_), None) => Ok(reference),
        _ => Err(format!("{text} must name a tag and no digest")),
    }
}

/// A full commit id.
///
/// # Errors
/// [`Kind::Usage`] for anything else.
pub(crate) fn commit(text: &str) -> Result<Commit> {
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
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let response_store = (!arguments.no_keep)
        .then(|| ResponseStore::open(session.workspace().state_dir()).map(Arc::new))
        .transpose()?;
    let outputs: Vec<Output> =
        arguments.oci.iter().cloned().map(Output::layout).chain(arguments.outputs.iter().cloned()).collect();
    outputs.iter().try_for_each(Output::check)?;
    let destinations = destinations(arguments)?;
    let build_request = order(arguments, response_store.as_ref(), &outputs, session)?;
    let keys = match &arguments.reviewer_keys {
        None => Vec::new(),
        Some(path) => reviews::read_keys(path, FILE_LIMIT)?,
    };
    let handed_in = arguments
        .reviews
        .iter()
        .map(|path| HandedIn::parse(&path.display().to_string(), &files::read(path, FILE_LIMIT)?, &keys))
        .collect::<Result<Vec<_>>>()?;
    let demand = Demand { roles: roles(&arguments.require_reviews)?, now: jiff::Timestamp::now() };
    let key = arguments.signing.open(session)?;
    let runtime = session.workspace().runtime()?;
    let registry =
        Registry::new(arguments.reach.registries()?, session.workspace(), runtime.handle().clone());
    let gate = |commit: &Snapshot<'_>, parameters: &Parameters| {
        reviews::check(&demand, &handed_in, commit, parameters)
    };
    let outcomes = pipeline::build(session.workspace(), &build_request, &registry, runtime.handle(), &gate)?;

    let drifts = outcomes.iter().map(BuildOutcome::drift).collect::<Vec<_>>();
    if arguments.deny_drift && drifts.iter().any(|drift| !drift.is_empty()) {
        return Err(Error::new(Kind::Refused, "the build used other things than the commit's lock says")
            .details(drifts.concat())
            .hint("review the new ones and commit a new lock, or build exactly the old ones with --locked"));
    }
    let store = pipeline::store(session.workspace())?;
    let builds = outcomes
        .into_iter()
        .zip(drifts)
        .map(|(outcome, drift)| {
            finish(arguments, outcome, drift, response_store.as_deref(), &handed_in, key.as_deref())
        })
        .collect::<Result<Vec<_>>>()?;
    let images: Vec<&Image> = builds.iter().map(|built| &built.outcome.executed.image).collect();
    let index = (images.len() > 1).then(|| Index::assemble(&store, &images)).transpose()?;
    let content = match &index {
        Some(index) => Content::index(index, &images),
        None => Content::image(images.first().ok_or_else(|| Error::new(Kind::Bug, "nothing was built"))?),
    };
    let names = ImageNames { tags: each_once(&arguments.tags), image: order_name(&builds) };
    for output in &outputs {
        let begun = Instant::now();
        output.write(session.workspace(), &store, content, &names)?;
        let path = output.destination();
        session.workspace().report(&Event::Wrote { path, seconds: begun.elapsed().as_secs_f64() });
    }
    if let Some(path) = &arguments.bundle_out {
        for built in &builds {
            let path = bundle_path(path, index.as_ref().map(|_| built.outcome.parameters.platform.as_str()));
            built.bundle.iter().try_for_each(|bundle| files::write(&path, bundle.to_bytes()))?;
        }
    }
    let subject = |outcome: &BuildOutcome| subject_name(arguments, outcome);
    let push = Push {
        workspace: session.workspace(),
        registry: &registry,
        store: &store,
        builds: &builds,
        index: index.as_ref(),
        subject: &subject,
        reviews: handed_in.iter().map(|review| &review.bundle).collect(),
        sbom_signer: key.as_deref().filter(|_| arguments.sbom),
        materials_from: response_store.as_deref().filter(|_| !arguments.no_attach_materials),
        private: match arguments.attach_private {
            true => PrivateResponses::Include,
            false => PrivateResponses::Withhold,
        },
    };
    push.to_all(&destinations)?;
    let report = Report {
        builds: &builds,
        index: index.as_ref(),
        pushed: destinations.iter().map(ToString::to_string).collect(),
        written: outputs
            .iter()
            .skip(arguments.oci.iter().count())
            .map(|output| output.destination().display().to_string())
            .collect(),
        explain: arguments.explain,
    };
    session.result(&report.text(), &report.json())?;
    Ok(Answer::Yes)
}

fn order(
    arguments: &Arguments,
    response_store: Option<&Arc<ResponseStore>>,
    outputs: &[Output],
    session: &Session,
) -> Result<BuildRequest> {
    let kept = response_store
        .zip(arguments.replay.as_ref())
        .map(|(response_store, digest)| response_store.find(digest))
        .transpose()?;
    let network = match (response_store, &kept) {
        (None, _) => NetworkSource::Named,
        (Some(response_store), _) if arguments.locked => NetworkSource::Locked(response_store.clone()),
        (Some(response_store), None) => NetworkSource::Kept(response_store.writer()),
        (Some(response_store), Some(kept)) => {
            NetworkSource::Replayed(response_store.replay(&kept.record)?.into())
        }
    };
    let store = || pipeline::store(session.workspace());
    let reference_image = match (&kept, &arguments.like) {
        (Some(kept), _) => ReferenceImage::at_hand(store()?, &kept.image)?,
        (None, Some(digest)) => Some(ReferenceImage::named(store()?, digest)?),
        (None, None) => None,
    };
    let replays = matches!(network, NetworkSource::Replayed(_) | NetworkSource::Locked(_));
    let why = replays.then_some("what a build kept can be replayed for its own platform only");
    Ok(BuildRequest {
        network,
        location: Location::parse(&arguments.repo)?,
        commit: commit(&arguments.commit)?,
        what: BuildSelection::Project {
            image: arguments.image.clone(),
            dockerfile: arguments.file.clone(),
            context: arguments.context.clone(),
            target: arguments.target.clone(),
            arguments: arguments.arguments.iter().cloned().collect(),
            labels: arguments.labels.iter().cloned().collect(),
            platforms: arguments.platforms.iter().cloned().collect(),
        },
        bases: arguments.bases.iter().cloned().collect::<BTreeMap<_, _>>(),
        reference_image,
        upstream: arguments.private_hosts.permit(arguments.reach.upstream()?)?,
        limits: arguments.limits.clone(),
        alone: why.or_else(|| outputs.iter().find_map(Output::alone)).map(str::to_owned),
        secrets: Secrets::read(&arguments.secrets)?,
    })
}

/// The references to push to, in the order of the command line, each once.
fn destinations(arguments: &Arguments) -> Result<Vec<Reference>> {
    let all = match &arguments.push {
        None => return Ok(Vec::new()),
        Some(To::There(reference)) => return Ok(vec![reference.clone()]),
        Some(To::Tags) => &arguments.tags,
    };
    if all.is_empty() {
        return Err(Error::new(Kind::Usage, "--push has nowhere to push to")
            .hint("give --push REFERENCE, or --tag REFERENCE beside it"));
    }
    Ok(each_once(all))
}

fn each_once(all: &[Reference]) -> Vec<Reference> {
    let is_first = |(at, reference): &(usize, &Reference)| !all[..*at].contains(reference);
    all.iter().enumerate().filter(is_first).map(|(_, reference)| reference.clone()).collect()
}

/// Names the stored responses of a build, and signs its provenance.
fn finish(
    arguments: &Arguments,
    outcome: BuildOutcome,
    drift: Vec<String>,
    response_store: Option<&ResponseStore>,
    handed_in: &[HandedIn],
    key: Option<&dyn Signer>,
) -> Result<BuiltImage> {
    let materials = match (response_store, &outcome.record) {
        (Some(response_store), Some(record)) => {
            Some(response_store.name(outcome.executed.image.manifest(), record, outcome.finished)?)
        }
        _ => None,
    };
    let bundle = match (key, &arguments.signing.builder_id) {
        (Some(key), Some(builder_id)) => {
            let name = subject_name(arguments, &outcome);
            Some(provenance::sign(&outcome, handed_in, None, &name, &Identity { builder_id, key })?)
        }
        _ => None,
    };
    Ok(BuiltImage { outcome, drift, materials, bundle })
}

fn subject_name(arguments: &Arguments, outcome: &BuildOutcome) -> String {
    let first = match &arguments.push {
        Some(To::There(reference)) => Some(reference),
        Some(To::Tags) => arguments.tags.first(),
        None => None,
    };
    first.map_or_else(|| outcome.parameters.image.clone(), |it| it.repository().to_string())
}

/// The image's name in `countersign.toml`, which is the same for all platforms.
fn order_name(builds: &[BuiltImage]) -> String {
    builds.first().map_or_else(String::new, |built| built.outcome.parameters.image.clone())
}

/// The path of a bundle. With several platforms each has a file of its own, such as `build.linux-arm64.json`.
pub(crate) fn bundle_path(path: &Path, platform: Option<&str>) -> PathBuf {
    let Some(platform) = platform.map(|text| text.replace('/', "-")) else { return path.to_owned() };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}.{platform}.{extension}"),
        _ => format!("{name}.{platform}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bundle_has_a_name_of_its_own() {
        let path = |text: &str, platform| bundle_path(Path::new(text), platform).display().to_string();
        assert_eq!(path("/a/b.json", None), "/a/b.json");
        assert_eq!(path("/a/b.json", Some("linux/arm/v7")), "/a/b.linux-arm-v7.json");
        assert_eq!(path("b", Some("linux/arm64")), "b.linux-arm64");
    }
}
