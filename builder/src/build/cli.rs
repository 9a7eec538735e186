//! `build`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attestations::{Commit, Digest, Reference, Signer};
use errors::{files, trusted};
use images::export::Content;
use images::{Image, Index, Platform};

use super::export::{Names, Output};
use super::foretold::Foretold;
use super::limits::StepLimits;
use super::order::{self, Network, Order, Outcome, What};
use super::push::Push;
use super::registries::Reach;
use super::registry::Registry;
use super::report::{Built, Report};
use super::reviews::{self, Demand, HandedIn};
use crate::cli::{Answer, Session};
use crate::error::{Error, Kind, Result, Told};
use crate::keys::{self, PasswordArguments};
use crate::lock::{self, Lock};
use crate::materials::Place;
use crate::progress::Event;
use crate::provenance::{self, Identity};
use crate::secrets::{Given, Secrets};
use crate::source::Location;

/// Largest bundle or file of keys read, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  Build a commit and see what comes of it:
    countersign-builder build --repo . --commit $(git rev-parse HEAD)
  The same under two names, signed, and pushed to both with all that is said about it:
    countersign-builder build --repo https://git.example/glm --commit 3f1c… --key ci.pem \\
      --builder-id https://ci.example -t registry.example/glm:1.2 -t registry.example/glm:1 --push
  For `docker load`, on a machine without a registry:
    countersign-builder build --repo . --commit 3f1c… -t org/glm:1.2 --output type=docker-archive,dest=glm.tar
  Again, from what the first build kept, without a network:
    countersign-builder build --repo . --commit 3f1c… --replay sha256:…
  The next commit, without waiting for what has stayed the same:
    countersign-builder build --repo . --commit 81ab… --like sha256:…
  A base that lies in a folder, two platforms, and progress for a machine:
    countersign-builder build --repo . --commit 3f1c… --base debian:12=./debian \\
      --platform linux/amd64,linux/arm64 --progress=json";

/// Its arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
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
    /// A secret for RUN --mount=type=secret, from a file or a variable of the environment. Its bytes are kept nowhere; a build
    /// that writes them down fails.
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    secrets: Vec<Given>,
    /// Build for these platforms, such as linux/arm64: with a comma between them, or given several times. Of more than one,
    /// the result is an index. What RUN needs of another processor's programs an emulator has to run.
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<Platform>,
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
    /// What the image is called, with a tag: in --output, and where --push without a value sends it. May be given several times.
    #[arg(long = "tag", short, value_name = "REFERENCE", value_parser = tagged)]
    tags: Vec<Reference>,
    /// Push the image and its statements there; without a value, to every --tag.
    #[arg(long, value_name = "REFERENCE", num_args = 0..=1, default_missing_value = "", value_parser = push)]
    push: Option<To>,
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
    /// An image in the state directory that this one should come close to, such as that of the commit before. A command then need not
    /// wait for those before it: it runs on what they came to for that image, and once more, network and all, where that turns out
    /// to be something else now. The result is the same.
    #[arg(long, value_name = "DIGEST", conflicts_with_all = ["replay", "locked"])]
    like: Option<Digest>,
    /// Put the image into a folder as an OCI image layout: the same as --output type=oci,tar=false,dest=FOLDER.
    #[arg(long, value_name = "FOLDER")]
    oci: Option<PathBuf>,
    /// Write the image to a file or folder: oci (tar=false for a folder), docker-archive (with name=REPOSITORY:TAG), or its
    /// root file system alone as tar or local.
    #[arg(long = "output", value_name = "type=TYPE,dest=PATH")]
    outputs: Vec<Output>,
    /// Write the signed provenance to a file; of several platforms, each to one with the platform in its name.
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
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    limits: StepLimits,
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

/// Where to push.
#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    /// To every `--tag`.
    Tags,
    /// There alone; tags name the image in files then.
    There(Reference),
}

fn push(text: &str) -> std::result::Result<To, String> {
    match text {
        "" => Ok(To::Tags),
        text => tagged(text).map(To::There),
    }
}

/// A name that can be given to an image: it has a tag, since there is no default one, and no digest.
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
    let outputs: Vec<Output> =
        arguments.oci.iter().cloned().map(Output::layout).chain(arguments.outputs.iter().cloned()).collect();
    outputs.iter().try_for_each(Output::check)?;
    let destinations = destinations(arguments)?;
    let order = order(arguments, place.as_ref(), &outputs, session)?;
    let keys = match &arguments.reviewer_keys {
        None => Vec::new(),
        Some(path) => {
            let text = String::from_utf8_lossy(&trusted::read(path, FILE_LIMIT)?).into_owned();
            reviews::keys(&text, &path.display().to_string())?
        }
    };
    let handed_in = arguments
        .reviews
        .iter()
        .map(|path| HandedIn::parse(&path.display().to_string(), &files::read(path, FILE_LIMIT)?, &keys))
        .collect::<Result<Vec<_>>>()?;
    let demand = Demand { threshold: arguments.require_reviews, keys };
    let key = arguments.signing.open(session)?;
    let runtime = session.runtime()?;
    let registry = Registry::new(arguments.reach.registries()?, session, runtime.handle().clone());
    let gate = |commit: &crate::source::Snapshot<'_>| reviews::check(&demand, &handed_in, commit);
    let outcomes = order::build(session, &order, &registry, runtime.handle(), &gate)?;

    let drifts = outcomes.iter().map(drift).collect::<Result<Vec<_>>>()?;
    if arguments.deny_drift && drifts.iter().any(|drift| !drift.is_empty()) {
        return Err(Error::new(Kind::Refused, "the build used other things than the commit's lock says")
            .details(drifts.concat())
            .hint("review the new ones and commit a new lock, or build exactly the old ones with --locked"));
    }
    let store = order::store(session)?;
    let builds = outcomes
        .into_iter()
        .zip(drifts)
        .map(|(outcome, drift)| {
            finish(arguments, outcome, drift, place.as_deref(), &handed_in, key.as_deref())
        })
        .collect::<Result<Vec<_>>>()?;
    let images: Vec<&Image> = builds.iter().map(|built| &built.outcome.executed.image).collect();
    let index = (images.len() > 1).then(|| Index::assemble(&store, &images)).transpose().told()?;
    let content = match &index {
        Some(index) => Content::index(index, &images),
        None => Content::image(images.first().ok_or_else(|| Error::new(Kind::Bug, "nothing was built"))?),
    };
    let names = Names { tags: each_once(&arguments.tags), image: order_name(&builds) };
    for output in &outputs {
        let begun = Instant::now();
        output.write(session, &store, content, &names)?;
        let path = output.destination();
        session.tell(&Event::Wrote { path, seconds: begun.elapsed().as_secs_f64() });
    }
    if let Some(path) = &arguments.bundle_out {
        for built in &builds {
            let path = bundle_path(path, index.as_ref().map(|_| built.outcome.parameters.platform.as_str()));
            built.bundle.iter().try_for_each(|bundle| files::write(&path, bundle.to_bytes()))?;
        }
    }
    let subject = |outcome: &Outcome| subject_name(arguments, outcome);
    let push = Push {
        session,
        registry: &registry,
        store: &store,
        builds: &builds,
        index: index.as_ref(),
        subject: &subject,
        reviews: handed_in.iter().map(|review| &review.bundle).collect(),
        bills_by: key.as_deref().filter(|_| arguments.sbom),
        materials_from: place.as_deref().filter(|_| !arguments.no_attach_materials),
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
    place: Option<&Arc<Place>>,
    outputs: &[Output],
    session: &Session,
) -> Result<Order> {
    let kept = place.zip(arguments.replay.as_ref()).map(|(place, digest)| place.find(digest)).transpose()?;
    let network = match (place, &kept) {
        (None, _) => Network::Named,
        (Some(place), _) if arguments.locked => Network::Locked(place.clone()),
        (Some(place), None) => Network::Kept(place.keeper()),
        (Some(place), Some(kept)) => Network::Replayed(place.replay(&kept.record)?.into()),
    };
    let store = || order::store(session);
    let foretold = match (&kept, &arguments.like) {
        (Some(kept), _) => Foretold::at_hand(store()?, &kept.image)?,
        (None, Some(digest)) => Some(Foretold::named(store()?, digest)?),
        (None, None) => None,
    };
    let replays = matches!(network, Network::Replayed(_) | Network::Locked(_));
    let why = replays.then_some("what a build kept can be replayed for its own platform only");
    Ok(Order {
        network,
        location: Location::parse(&arguments.repo)?,
        commit: commit(&arguments.commit)?,
        what: What::Project {
            image: arguments.image.clone(),
            target: arguments.target.clone(),
            arguments: arguments.arguments.iter().cloned().collect(),
            labels: arguments.labels.iter().cloned().collect(),
            platforms: arguments.platforms.iter().cloned().collect(),
        },
        bases: arguments.bases.iter().cloned().collect::<BTreeMap<_, _>>(),
        foretold,
        upstream: arguments.reach.upstream()?,
        limits: arguments.limits.clone(),
        alone: why.or_else(|| outputs.iter().find_map(Output::alone)).map(str::to_owned),
        secrets: Secrets::read(&arguments.secrets)?,
    })
}

/// Where the image is pushed to, in the order of the command line, each once.
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

/// How the build differs from its commit's lock.
fn drift(outcome: &Outcome) -> Result<Vec<String>> {
    let Some(lock) = &outcome.lock else { return Ok(Vec::new()) };
    let used = Lock::of(&provenance::of(outcome, &[], None, ""))?;
    Ok(lock::drift(lock, &used))
}

/// Names what was kept of a build, and signs its provenance.
fn finish(
    arguments: &Arguments,
    outcome: Outcome,
    drift: Vec<String>,
    place: Option<&Place>,
    handed_in: &[HandedIn],
    key: Option<&dyn Signer>,
) -> Result<Built> {
    let materials = match (place, &outcome.record) {
        (Some(place), Some(record)) => {
            Some(place.name(outcome.executed.image.manifest(), record, outcome.finished)?)
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
    Ok(Built { outcome, drift, materials, bundle })
}

fn subject_name(arguments: &Arguments, outcome: &Outcome) -> String {
    let first = match &arguments.push {
        Some(To::There(reference)) => Some(reference),
        Some(To::Tags) => arguments.tags.first(),
        None => None,
    };
    first.map_or_else(|| outcome.parameters.image.clone(), |it| it.repository().to_string())
}

/// The image's name in `countersign.toml`, which is the same for all platforms.
fn order_name(builds: &[Built]) -> String {
    builds.first().map_or_else(String::new, |built| built.outcome.parameters.image.clone())
}

/// A file holds one bundle: of several, each has its platform in the name, as in `build.linux-arm64.json`.
pub fn bundle_path(path: &Path, platform: Option<&str>) -> PathBuf {
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
