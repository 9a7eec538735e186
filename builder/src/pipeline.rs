//! A whole build: from the request to the image in the store and the facts that its provenance states.

mod files;

use std::collections::BTreeMap;
use std::sync::Arc;

use attestations::provenance::{ExternalParameters, RecordedBase, Responses, Spoken};
use attestations::review::Parameters;
use attestations::{Commit, Digest, Tree};
use images::{LayerCache, Platform, Store};
use jiff::Timestamp;
use sandbox::Canceller;

use crate::bases::{Bases, Registry};
use crate::error::{Error, Kind, Result};
use crate::executor::emulation::Emulator;
use crate::executor::limits::StepLimits;
use crate::executor::scratch::Scratch;
use crate::executor::stage::Resources;
use crate::executor::steps::copy::{ContextTree, Elsewhere, Taken};
use crate::lock::{self, Lock, LockedBase};
use crate::packages::{self, Packages};
use crate::parameters::{self, BuildSelection};
use crate::plan::{Plan, PlanRequest};
use crate::progress::{Event, Summary};
use crate::project::{self, Project, Recipe};
use crate::scheduler::{Executed, execute};
use crate::secrets::Secrets;
use crate::source::{Access, GitRecipe, Location, Repository, Snapshot, Writers};
use crate::speculation::reference::ReferenceImage;
use crate::workspace::Workspace;
use recorder::{Endpoint, Mode, Options, Record, Recorder, Replay, ResponseStore, StoreWriter, Upstream};

/// What to build, and how.
#[derive(Debug, Clone)]
pub(crate) struct BuildRequest {
    /// The repository.
    pub(crate) location: Location,
    /// The commit.
    pub(crate) commit: Commit,
    /// Which image of the commit to build.
    pub(crate) what: BuildSelection,
    /// `--base NAME=WHERE`.
    pub(crate) bases: BTreeMap<String, String>,
    /// Where the steps' requests are answered from.
    pub(crate) network: NetworkSource,
    /// An image that the build is expected to reproduce, or nearly so, if its layers are in the store. Its commands
    /// can then run before the steps ahead of them are done.
    pub(crate) reference_image: Option<ReferenceImage>,
    /// How servers are reached.
    pub(crate) upstream: Upstream,
    /// Why only one platform is allowed, if so.
    pub(crate) alone: Option<String>,
    /// The resources that each step may use.
    pub(crate) limits: StepLimits,
    /// The secrets that its steps may use.
    pub(crate) secrets: Secrets,
}

/// Where the steps' requests are answered from.
#[derive(Debug, Clone)]
pub(crate) enum NetworkSource {
    /// The real servers; responses are recorded by digest only.
    Named,
    /// The real servers; responses are stored as well.
    Kept(StoreWriter),
    /// The recorded responses of an earlier build, and nothing else.
    Replayed(Arc<Replay>),
    /// The same, by the record that the commit's lock names. The bases are those of the lock too.
    Locked(Arc<ResponseStore>),
}

/// The result of a build for one platform.
pub(crate) struct BuildOutcome {
    /// The image, its layers and the reports of its steps.
    pub(crate) executed: Executed,
    /// The parameters of the build, as its provenance states them.
    pub(crate) parameters: ExternalParameters,
    /// The commit's tree.
    pub(crate) tree: Tree,
    /// Who wrote and committed the commit.
    pub(crate) writers: Writers,
    /// The commit's time, in seconds since 1970.
    pub(crate) epoch: i64,
    /// How its responses were come by.
    pub(crate) observed: Responses,
    /// The packages of the image, and those that were fetched for it.
    pub(crate) packages: Packages,
    /// What its steps took of that which the commit only names.
    pub(crate) elsewhere: Taken,
    /// The commit's lock, if it has one.
    pub(crate) lock: Option<Lock>,
    /// The emulator that ran its commands, if any: the program's name and digest.
    pub(crate) emulator: Option<(String, String)>,
    /// The record of its exchanges with the network.
    pub(crate) responses: Record,
    /// The digest of that record, if it is stored.
    pub(crate) record: Option<Digest>,
    /// When the build began.
    pub(crate) started: Timestamp,
    /// When it ended.
    pub(crate) finished: Timestamp,
}

impl BuildOutcome {
    /// The inputs that the build used, in the form of a lock.
    pub(crate) fn used(&self) -> Lock {
        let bases = self.executed.bases.iter().map(|base| {
            let locked =
                LockedBase { digest: base.image.digest(), from: base.uri.clone(), index: base.index };
            (base.asked.clone(), locked)
        });
        let of_build = self.packages.installed.iter().filter(|package| package.is_of_build());
        let packages =
            of_build.map(|package| (package.purl.to_string(), package.file.as_ref().map(|file| file.digest)));
        let fetched = self.packages.passed_by.iter().map(|file| (file.purl.to_string(), file.digest));
        Lock::new(self.record, bases, packages, fetched)
    }

    /// The inputs that differ from the commit's lock, a line each; empty without a lock.
    pub(crate) fn drift(&self) -> Vec<String> {
        self.lock.as_ref().map(|lock| lock::drift(lock, &self.used())).unwrap_or_default()
    }
}

/// The image store below the state directory.
///
/// # Errors
/// When it cannot be created.
pub(crate) fn store(workspace: &Workspace) -> Result<Store> {
    Store::open(workspace.state_dir().join("images")).map_err(Error::from)
}

/// Builds the request for each platform in order, once `gate` has passed the commit. Returns at least one outcome.
///
/// # Errors
/// See [`Kind`]. Nothing is pushed or tagged here, so a failed build leaves nothing but unused blobs.
pub(crate) fn build(
    workspace: &Workspace,
    build_request: &BuildRequest,
    registry: &dyn Registry,
    runtime: &tokio::runtime::Handle,
    gate: &dyn Fn(&Snapshot<'_>, &Parameters) -> Result<()>,
) -> Result<Vec<BuildOutcome>> {
    let repository = Repository::open(workspace.state_dir(), &build_request.location)?;
    let snapshot = repository.commit(&build_request.commit)?;
    let project = Project::parse(snapshot.file(project::PATH, project::SIZE_LIMIT)?.as_deref())?;
    let recipe = parameters::recipe(&build_request.what, &project)?;
    gate(&snapshot, &parameters::to_be_reviewed(&recipe, None))?;
    parameters::refuse_secrets(&build_request.secrets, &recipe)?;
    let file = files::dockerfile(&snapshot, &recipe.dockerfile)?;
    let epoch = snapshot.committed_at();
    let created = rfc3339(epoch)?;
    let requests: Vec<PlanRequest> = parameters::platforms(&recipe)
        .into_iter()
        .map(|platform| PlanRequest {
            target: recipe.target.clone(),
            arguments: recipe.arguments.clone(),
            labels: recipe.labels.clone(),
            platform,
            created: created.clone(),
        })
        .collect();
    refuse_several(build_request, &requests)?;
    let named = |error: crate::dockerfile::DockerfileError| {
        Error::new(Kind::Input, format!("{}: {error}", recipe.dockerfile))
    };
    let plans = requests
        .iter()
        .map(|request| Ok((request, Plan::new(&file, request).map_err(named)?)))
        .collect::<Result<Vec<_>>>()?;
    let emulators: Vec<_> = requests.iter().map(|request| Emulator::of(&request.platform)).collect();
    // A platform that cannot be emulated here is refused before anything is done, even if others come first.
    for ((_, plan), emulator) in plans.iter().zip(&emulators) {
        if plan.runs() {
            emulator.check()?;
        }
    }
    let ignore = files::ignore(&snapshot, &recipe)?;
    let walk = snapshot.walk(&recipe.context, &|path| !ignore.leaves_out(path))?;
    let git = GitRecipe {
        state_dir: workspace.state_dir().to_owned(),
        location: build_request.location.clone(),
        commit: build_request.commit.clone(),
        recorded: match &build_request.what {
            BuildSelection::Project { .. } => None,
            BuildSelection::Recorded { parameters, .. } => parameters.git.clone(),
        },
    };
    let access = Access {
        state_dir: workspace.state_dir().to_owned(),
        location: build_request.location.clone(),
        upstream: build_request.upstream.clone(),
    };
    let elsewhere = Elsewhere::new(access, ignore.clone(), runtime.clone());
    let context = ContextTree::new(&snapshot, walk)?.with_elsewhere(&snapshot, &recipe.context, elsewhere)?;
    // Only the root of a repository has a `.git`.
    let context = if recipe.context.is_empty() { context.with_git(git, ignore) } else { context };
    let builds = PlatformBuilds {
        workspace,
        build_request,
        registry,
        runtime,
        lock: read_lock(&snapshot, &recipe)?,
        tree: snapshot.tree()?,
        writers: snapshot.writers(),
        project,
        recipe,
        epoch,
        host: sandbox::Host::open(&workspace.state_dir().join("sandbox"))
            .map_err(crate::executor::failures::machine)?,
        canceller: interruptible(workspace, runtime),
    };
    plans
        .into_iter()
        .zip(&emulators)
        .map(|((request, plan), emulator)| builds.build(&request.platform, plan, &context, emulator))
        .collect()
}

/// How a commit would be built, for its reviewers, and the commit's lock.
///
/// # Errors
/// When the commit has no such image, or a file that decides cannot be read.
pub(crate) fn plan_for_review(
    snapshot: &Snapshot<'_>,
    what: &BuildSelection,
) -> Result<(Parameters, Option<Lock>)> {
    let project = Project::parse(snapshot.file(project::PATH, project::SIZE_LIMIT)?.as_deref())?;
    let recipe = parameters::recipe(what, &project)?;
    files::dockerfile(snapshot, &recipe.dockerfile)?;
    let lock = read_lock(snapshot, &recipe)?;
    let bases = |lock: &Lock| lock.bases.iter().map(|(name, base)| (name.clone(), base.digest)).collect();
    Ok((parameters::to_be_reviewed(&recipe, lock.as_ref().map(bases)), lock))
}

/// What a commit builds by a selection, and the text of its Dockerfile.
///
/// # Errors
/// When the commit has no such image, or no such Dockerfile.
pub(crate) fn dockerfile_of(snapshot: &Snapshot<'_>, what: &BuildSelection) -> Result<(Recipe, Vec<u8>)> {
    let project = Project::parse(snapshot.file(project::PATH, project::SIZE_LIMIT)?.as_deref())?;
    let recipe = parameters::recipe(what, &project)?;
    let bytes = files::dockerfile_bytes(snapshot, &recipe.dockerfile)?;
    Ok((recipe, bytes))
}

/// How a commit says by itself that an image is built, whether it has the files for that or not.
///
/// # Errors
/// When the commit has no such image.
pub(crate) fn parameters_for_review(snapshot: &Snapshot<'_>, what: &BuildSelection) -> Result<Parameters> {
    let project = Project::parse(snapshot.file(project::PATH, project::SIZE_LIMIT)?.as_deref())?;
    Ok(parameters::to_be_reviewed(&parameters::recipe(what, &project)?, None))
}

/// The one outcome of a request for a single platform.
///
/// # Errors
/// [`Kind::Bug`] when there are several.
pub(crate) fn only(outcomes: Vec<BuildOutcome>) -> Result<BuildOutcome> {
    match <[BuildOutcome; 1]>::try_from(outcomes) {
        Ok([outcome]) => Ok(outcome),
        Err(several) => Err(Error::new(Kind::Bug, format!("{} images where one was ordered", several.len()))),
    }
}

/// What the builds for all platforms share.
struct PlatformBuilds<'a> {
    workspace: &'a Workspace,
    build_request: &'a BuildRequest,
    registry: &'a dyn Registry,
    runtime: &'a tokio::runtime::Handle,
    project: Project,
    recipe: Recipe,
    lock: Option<Lock>,
    tree: Tree,
    writers: Writers,
    epoch: i64,
    host: sandbox::Host,
    canceller: Canceller,
}

impl PlatformBuilds<'_> {
    /// Builds for one platform.
    fn build(
        &self,
        platform: &Platform,
        plan: Plan<'_>,
        context: &ContextTree,
        emulator: &Emulator,
    ) -> Result<BuildOutcome> {
        let (workspace, build_request) = (self.workspace, self.build_request);
        let started = Timestamp::now();
        workspace.report(&Event::Platform { platform: &platform.to_string() });
        let (mode, locked_bases) = mode(&build_request.network, self.lock.as_ref(), &self.recipe)?;
        let bases = Bases {
            given: &build_request.bases,
            project: &self.project,
            workspace,
            recorded: locked_bases.as_ref().or(recorded(&build_request.what)),
            registry: self.registry,
            platform,
        };
        let scratch = Scratch::new(workspace.state_dir())?;
        let store = store(workspace)?;
        let cache = LayerCache::open(workspace.state_dir().join("layers"))?;
        let upstream = build_request.upstream.clone();
        let options = Options { endpoints: endpoints(&self.recipe), upstream, ..Options::default() };
        let capture =
            Recorder::with_options(self.runtime.clone(), mode.clone(), options).map_err(|cause| {
                Error::new(Kind::Machine, "the recorder of the network could not be started").because(cause)
            })?;
        let resources = Resources {
            workspace,
            host: &self.host,
            emulator,
            store: &store,
            cache: &cache,
            capture: &capture,
            scratch: scratch.path(),
            canceller: &self.canceller,
            limits: &build_request.limits,
            secrets: &build_request.secrets,
        };
        let reference_image = match (&build_request.network, &mode) {
            (NetworkSource::Locked(response_store), Mode::Replay(replay)) => {
                ReferenceImage::of_record(store.clone(), response_store, &replay.digest())?
            }
            _ => build_request.reference_image.clone(),
        };
        let begun = std::time::Instant::now();
        let mut executed = execute(&resources, plan, context, &bases, self.epoch, reference_image.as_ref())?;
        workspace.report(&Event::Summary(&summary(platform, &executed, begun.elapsed().as_secs_f64())));
        let responses = Record::new(std::mem::take(&mut executed.responses));
        let inventory = std::mem::take(&mut executed.inventory);
        let packages = Packages::joined(inventory, packages::fetched(&responses.steps));
        let record = match &mode {
            Mode::Record(None) => None,
            Mode::Record(Some(writer)) => Some(writer.finish(&responses)?),
            Mode::Replay(replay) => Some(replay.digest()),
        };
        Ok(BuildOutcome {
            emulator: if executed.runs { emulator.part() } else { None },
            observed: match &mode {
                Mode::Record(_) => Responses::Fetched,
                Mode::Replay(_) => Responses::Replayed,
            },
            parameters: ExternalParameters {
                secrets: executed.secrets.clone(),
                git: context.git_taken(),
                overrides: parameters::overrides(
                    &build_request.what,
                    &self.project,
                    (&self.recipe, platform),
                    &executed.bases,
                )?,
                ..parameters::external(&build_request.location, &build_request.commit, &self.recipe, platform)
            },
            executed,
            tree: self.tree.clone(),
            writers: self.writers.clone(),
            epoch: self.epoch,
            packages,
            elsewhere: context.taken(),
            lock: self.lock.clone(),
            responses,
            record,
            started,
            finished: Timestamp::now(),
        })
    }
}

/// The first SIGINT or SIGTERM ends the running command, and the build cleans up. The second exits at once.
fn interruptible(workspace: &Workspace, runtime: &tokio::runtime::Handle) -> Canceller {
    use tokio::signal::unix::{SignalKind, signal};
    let canceller = Canceller::new();
    let (used, progress) = (canceller.clone(), workspace.progress().clone());
    runtime.spawn(async move {
        let (Ok(mut interrupt), Ok(mut end)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        loop {
            tokio::select! { _ = interrupt.recv() => {}, _ = end.recv() => {} }
            if used.is_cancelled() {
                progress.end_now();
                std::process::exit(i32::from(Kind::Step.exit_code()));
            }
            used.cancel();
            let message = "interrupted: the running steps are ended; interrupt again to exit at once";
            progress.report(&Event::Warning { message, path: None });
        }
    });
    canceller
}

fn summary(platform: &Platform, executed: &Executed, seconds: f64) -> Summary {
    let of_base = executed.layers.iter().filter(|layer| layer.from_base);
    let exchanges = || executed.responses.iter().flat_map(|step| &step.exchanges);
    Summary {
        platform: platform.to_string(),
        steps: executed.steps.clone(),
        base_layers: of_base.map(|layer| layer.size).collect(),
        seconds,
        exchanges: exchanges().count(),
        recorded: exchanges().fold(0, |sum, exchange| exchange.response.size.saturating_add(sum)),
    }
}

fn read_lock(snapshot: &Snapshot<'_>, recipe: &Recipe) -> Result<Option<Lock>> {
    let path = Lock::path(&recipe.dockerfile);
    let bytes = snapshot.file(&path, lock::SIZE_LIMIT)?;
    bytes.map(|bytes| Lock::parse(&path, &bytes)).transpose()
}

/// Bases that must be used, by the name in the Dockerfile: origin and digest.
type RecordedBases = BTreeMap<String, RecordedBase>;

fn mode(
    network: &NetworkSource,
    lock: Option<&Lock>,
    recipe: &Recipe,
) -> Result<(Mode, Option<RecordedBases>)> {
    Ok(match network {
        NetworkSource::Named => (Mode::Record(None), None),
        NetworkSource::Kept(writer) => (Mode::Record(Some(writer.clone())), None),
        NetworkSource::Replayed(replay) => (Mode::Replay(replay.clone()), None),
        NetworkSource::Locked(response_store) => {
            let missing = |what: &str| {
                Error::new(Kind::NotFound, format!("{} {what}", Lock::path(&recipe.dockerfile)))
                    .hint("build without --locked, and commit what `countersign-builder lock` makes of its provenance")
            };
            let lock = lock.ok_or_else(|| missing("is not in the commit"))?;
            let record =
                lock.record.ok_or_else(|| missing("names no record: its build kept no materials"))?;
            let replay = response_store.replay(&record).map_err(|cause| {
                Error::new(
                    cause.kind(),
                    format!("the materials that {} names cannot be used", Lock::path(&recipe.dockerfile)),
                )
                .hint("bring them with `materials pull REFERENCE` or `materials import FILE`")
                .because(cause)
            })?;
            (Mode::Replay(replay.for_any_step().into()), Some(lock.recorded_bases()))
        }
    })
}

fn endpoints(recipe: &Recipe) -> Vec<Endpoint> {
    let named = recipe.ports.iter().map(|(port, spoken)| match spoken {
        Spoken::Http => Endpoint::http(*port),
        Spoken::Https => Endpoint::https(*port),
    });
    [Endpoint::HTTP, Endpoint::HTTPS].into_iter().chain(named).collect()
}

fn recorded(what: &BuildSelection) -> Option<&BTreeMap<String, RecordedBase>> {
    match what {
        BuildSelection::Project { .. } => None,
        BuildSelection::Recorded { bases, .. } => Some(bases),
    }
}

fn refuse_several(build_request: &BuildRequest, requests: &[PlanRequest]) -> Result<()> {
    match &build_request.alone {
        Some(why) if requests.len() > 1 => {
            Err(Error::new(Kind::Usage, format!("only one platform at a time can be built: {why}"))
                .hint("give one with --platform"))
        }
        _ => Ok(()),
    }
}

fn rfc3339(seconds: i64) -> Result<String> {
    Timestamp::from_second(seconds)
        .map(|time| time.to_string())
        .map_err(|cause| Error::new(Kind::Input, "the commit's time is out of range").because(cause))
}
