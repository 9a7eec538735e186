//! Executes the steps of one stage. Each makes one canonical layer over those of the steps before it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attestations::provenance::LayerRecord;
use attestations::{Digest, Foreign};
use images::image::MAX_LAYERS;
use images::layer::{
    AppliedRule, Compression, Normaliser, Packing, VirtualLayer, VirtualLayerBuilder, Written,
};
use images::{Descriptor, LayerCache, Store};
use sandbox::{Canceller, Host, Upper, User};

use super::compression::PendingLayers;
use super::emulation::Emulator;
use super::failures::{cancelled, copy_failed, machine};
use super::limits::StepLimits;
use super::stage_files::StageFiles;
use super::steps::add::GitTaken;
use super::steps::copy;
use super::steps::copy::{Content, ContextTree, CopyError};
use crate::bases::{Base, layer_of_base, of_base};
use crate::dockerfile::SecretMount;
use crate::error::{Error, Kind, Result};
use crate::packages::Inventory;
use crate::plan;
use crate::plan::config;
use crate::plan::config::Config;
use crate::plan::step::{Action, Copying, Execution, MountSource, Source, Step};
use crate::progress::{Event, Label, SummaryStep};
use crate::secrets::Secrets;
use crate::workspace::Workspace;
use recorder::Recorder;

/// How many layers of a stage may still be compressed when its next step starts.
const MOST_WAITING: usize = 2;

/// Everything that executing steps needs of the machine.
#[derive(Clone, Copy)]
pub(crate) struct Resources<'a> {
    /// Where progress is reported.
    pub(crate) workspace: &'a Workspace,
    /// The sandbox.
    pub(crate) host: &'a Host,
    /// How the platform's programs run here.
    pub(crate) emulator: &'a Emulator,
    /// The store for layers.
    pub(crate) store: &'a Store,
    /// The unpacked layers.
    pub(crate) cache: &'a LayerCache,
    /// The recorder of the network.
    pub(crate) capture: &'a Recorder,
    /// A folder of this build alone, for files that are mounted into steps.
    pub(crate) scratch: &'a Path,
    /// Ends running commands when the user cancels the build.
    pub(crate) canceller: &'a Canceller,
    /// The resources that a step may use.
    pub(crate) limits: &'a StepLimits,
    /// The secrets that steps may use.
    pub(crate) secrets: &'a Secrets,
}

/// A stage that is being built or is done.
#[derive(Clone)]
pub(crate) struct StageState {
    pub(crate) config: Config,
    pub(crate) layers: Vec<(Descriptor, LayerRecord)>,
    /// Its files.
    pub(crate) root: StageFiles,
}

/// A layer that a step made, with its files for the next steps.
pub(crate) struct NewLayer {
    pub(crate) layer: Packing,
    pub(crate) files: LayerFiles,
}

pub(crate) enum LayerFiles {
    /// They are in a folder.
    Written(Upper),
    /// They exist only in the compressed layer so far.
    Virtual(VirtualLayer),
}

impl LayerFiles {
    /// Whether the layer has an entry at or below a path.
    fn mention(&self, path: &Path) -> std::io::Result<bool> {
        match self {
            Self::Virtual(virtual_layer) => Ok(virtual_layer.mentions(path)),
            Self::Written(upper) => match std::fs::symlink_metadata(upper.path().join(path)) {
                Ok(_) => Ok(true),
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(cause) => Err(cause),
            },
        }
    }
}

/// The result of a step.
pub(crate) struct StepResult {
    made: Option<NewLayer>,
    seconds: f64,
}

impl StepResult {
    /// The diff ID of its layer, if it made one.
    pub(crate) fn diff_id(&self) -> Option<&Digest> {
        self.made.as_ref().map(|made| &made.layer.diff_id)
    }

    /// Replaces its layer by another compression of the same content, if there is one.
    pub(crate) fn pack(mut self, other: impl FnOnce(&Digest) -> Option<Packing>) -> Self {
        if let Some(made) = &mut self.made
            && let Some(packing) = other(&made.layer.diff_id)
        {
            made.layer = packing;
        }
        self
    }
}

/// A finished stage with its reports.
pub(crate) struct FinishedStage {
    pub(crate) built: StageState,
    pub(crate) reports: StepReports,
    /// What the image's files say of packages; nothing for any stage but the target.
    pub(crate) inventory: Inventory,
}

/// The reports of steps, which go into the provenance and the summary.
#[derive(Default)]
pub(crate) struct StepReports {
    /// The recorded exchanges with the network.
    pub(crate) responses: Vec<recorder::StepExchanges>,
    pub(crate) unrecorded: Vec<String>,
    pub(crate) applied: Vec<AppliedRule>,
    pub(crate) steps: Vec<SummaryStep>,
    pub(crate) git: Vec<GitTaken>,
    /// The ids of the secrets that steps used.
    pub(crate) secrets: BTreeSet<String>,
}

impl StepReports {
    /// Appends the reports of later steps.
    pub(crate) fn append(&mut self, later: Self) {
        let Self { responses, unrecorded, applied, steps, git, secrets } = later;
        self.responses.extend(responses);
        self.unrecorded.extend(unrecorded);
        self.applied.extend(applied);
        self.steps.extend(steps);
        self.git.extend(git);
        self.secrets.extend(secrets);
    }
}

/// A stage that is being built.
pub(crate) struct StageRun<'a> {
    pub(crate) resources: &'a Resources<'a>,
    pub(crate) context: &'a ContextTree,
    pub(crate) epoch: i64,
    /// The finished stages that it needs, by number.
    pub(crate) done: BTreeMap<usize, Arc<FinishedStage>>,
    pub(crate) reports: StepReports,
    pub(crate) waiting: PendingLayers<'a>,
    /// Whether its layers are part of the image. Other stages are only needed for their files.
    pub(crate) is_in_image: bool,
}

impl<'a> StageRun<'a> {
    /// A stage before its first step.
    pub(crate) fn start(&self, needed: &plan::Needed, base: Option<&Base>) -> Result<StageState> {
        if let plan::Base::Stage(earlier) = needed.base
            && let Some(built) = self.done.get(&earlier)
        {
            return Ok(built.built.clone());
        }
        let Some(base) = base else {
            let config = Config::default();
            return Ok(StageState { config, layers: Vec::new(), root: StageFiles::default() });
        };
        let folders = self.resources.cache.lower_dirs(self.resources.store, &base.image).map_err(Error::from);
        let folders = folders.map_err(|error| of_base(&base.asked, error))?;
        self.tell_of_devices(base)?;
        let config = config::on_base(base.image.config());
        let created_by = created_by_of_layers(&config);
        let layers = base.image.layers().iter().zip(base.image.diff_ids()).enumerate().map(
            |(index, (layer, diff_id))| {
                let record = LayerRecord {
                    diff_id: *diff_id,
                    digest: layer.digest,
                    size: layer.size,
                    created_by: created_by.get(index).cloned().unwrap_or_default(),
                    from_base: true,
                };
                (layer_of_base(layer), record)
            },
        );
        Ok(StageState { layers: layers.collect(), config, root: StageFiles::of_base(folders) })
    }

    /// A base's device nodes are in the image as they are, and in no step, as in a runtime that may make none.
    fn tell_of_devices(&self, base: &Base) -> Result<()> {
        let mut devices = Vec::new();
        for diff_id in base.image.diff_ids() {
            devices.extend(self.resources.cache.devices_left_out(diff_id)?);
        }
        let Some(first) = devices.first() else { return Ok(()) };
        let more = match devices.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "base {}: its device nodes are not there for steps: /{}{more}",
            base.asked,
            Foreign::new(first)
        );
        self.resources.workspace.report(&Event::Warning { message: &message, path: None });
        Ok(())
    }

    /// Executes one step on the stage's current layers.
    pub(crate) fn perform(&mut self, stage: &StageState, step: &Step, label: &Label) -> Result<StepResult> {
        let workspace = self.resources.workspace;
        let line = step.line;
        workspace.report(&Event::Step { label, line, instruction: &step.text });
        let begun = Instant::now();
        let done = self.act(stage, step, label);
        let is_configuration = step.action == Action::Configure;
        let seconds = if is_configuration { 0.0 } else { begun.elapsed().as_secs_f64() };
        let failed = |_: &Error| {
            // A cancelled early run is not a failure of the step.
            if !self.resources.canceller.is_left_off() {
                workspace.report(&Event::StepFailed { label, line, seconds });
            }
        };
        let made = done.inspect_err(failed)?;
        let diff_id = made.as_ref().map(|made| made.layer.diff_id);
        workspace.report(&Event::StepDone { label, line, seconds, diff_id, is_configuration });
        Ok(StepResult { made, seconds })
    }

    /// Adds the result of a step to the stage; returns whether there is a layer.
    pub(crate) fn take(
        &mut self,
        stage: &mut StageState,
        step: &'a Step,
        label: &Label,
        StepResult { made, seconds }: StepResult,
    ) -> Result<bool> {
        let instruction = step.text.clone();
        self.reports.steps.push(SummaryStep { label: label.to_string(), instruction, seconds, layer: None });
        let Some(NewLayer { layer, files }) = made else { return Ok(false) };
        stage.config.rootfs.diff_ids.push(layer.diff_id);
        if self.is_in_image {
            self.waiting.add(layer.clone(), step, label, self.reports.steps.len() - 1);
        }
        self.refresh(&|path| files.mention(path))?;
        match files {
            LayerFiles::Written(upper) => stage.root.add_written(Arc::new(upper)),
            LayerFiles::Virtual(virtual_layer) => stage.root.add_virtual(layer, virtual_layer),
        }
        self.settle(stage, MOST_WAITING)?;
        Ok(true)
    }

    pub(crate) fn act(&mut self, stage: &StageState, step: &Step, label: &Label) -> Result<Option<NewLayer>> {
        if self.resources.canceller.is_cancelled() {
            return Err(cancelled());
        }
        if step.action == Action::Configure {
            return Ok(None);
        }
        if stage.config.rootfs.diff_ids.len() >= MAX_LAYERS {
            let what = format!("{}: {MAX_LAYERS} layers lie below it already", step.named());
            return Err(Error::new(Kind::Input, what)
                .hint("an image has no more: join instructions, or copy what they made into a new stage"));
        }
        let epoch = self.epoch;
        match &step.action {
            Action::Configure => Ok(None),
            Action::Run(execution) => self.run(stage, step, execution, label),
            Action::Copy(copying) => self.copy(stage, step, copying, label),
            Action::Workdir { path, user } => {
                let owner = self.owner(&stage.root, user, step)?;
                self.build_virtual(stage, step, false, &mut |layer_builder| {
                    copy::make_folder(layer_builder, path, owner, epoch)
                })
            }
        }
    }

    /// Builds a virtual layer over those of the stage, or independently of them (`apart`, for `COPY --link`).
    pub(crate) fn build_virtual<'t>(
        &mut self,
        stage: &StageState,
        step: &Step,
        apart: bool,
        put: &mut dyn FnMut(&mut VirtualLayerBuilder<'_, Content<'t>>) -> std::result::Result<(), CopyError>,
    ) -> Result<Option<NewLayer>> {
        let below = stage.root.layer_stack();
        let new = if apart { VirtualLayerBuilder::apart } else { VirtualLayerBuilder::over };
        let mut layer_builder = new(&below, self.epoch);
        // The blob is kept even for other stages: a later command may need the files unpacked.
        let compression = if self.is_in_image { Compression::Gzip } else { Compression::None };
        let done = put(&mut layer_builder).and_then(|()| {
            layer_builder
                .write(self.resources.store, compression, Normaliser::Version1, &mut |content| content())
        });
        let (Written { layer, applied }, virtual_layer) = done.map_err(|cause| copy_failed(step, cause))?;
        self.reports.applied.extend(applied);
        let Some(layer) = layer else { return Ok(None) };
        Ok(Some(NewLayer { layer, files: LayerFiles::Virtual(virtual_layer) }))
    }

    /// The files of a finished stage, as folders.
    pub(crate) fn folders_of(&self, stage: usize) -> Result<Vec<PathBuf>> {
        let earlier = self.done.get(&stage);
        let earlier =
            earlier.ok_or_else(|| Error::new(Kind::Bug, "a stage is looked into before it is built"))?;
        earlier.built.root.folders(self.resources)
    }

    /// Resolves a user name or number in the image.
    pub(crate) fn user(&self, root: &StageFiles, text: &str, step: &Step) -> Result<User> {
        let text = if text.is_empty() { "0" } else { text };
        let refuse = |cause: Error| {
            Error::new(Kind::Input, format!("line {}: the image has no user {text}", step.line))
                .hint("make the user in an earlier RUN, or give its number")
                .because(cause)
        };
        let [passwd, group] = ["etc/passwd", "etc/group"].map(|path| root.user_table(path, self.resources));
        let (passwd, group) = (passwd.map_err(refuse)?, group.map_err(refuse)?);
        sandbox::resolve_user_in(&passwd, &group, text).map_err(machine).map_err(refuse)
    }

    /// Resolves an owner. A numeric user alone also sets the group of the same number; a group alone means root's.
    pub(crate) fn owner(&self, root: &StageFiles, text: &str, step: &Step) -> Result<(u32, u32)> {
        let (name, has_no_group) = text.strip_suffix(':').map_or((text, false), |name| (name, true));
        let (user, group) = match name.parse::<u32>() {
            Ok(number) => (number, number),
            Err(_) => self.user(root, name, step).map(|user| (user.uid, user.gid))?,
        };
        Ok((user, if has_no_group { 0 } else { group }))
    }
}

/// Checks that what a step takes from the commit is there, and fetches what the commit only names of it.
///
/// # Errors
/// [`Kind::Input`] when it is not there; what cannot be fetched.
pub(crate) fn check_sources(step: &Step, context: &ContextTree) -> Result<()> {
    let checked = match &step.action {
        Action::Copy(Copying { from: None, sources, excludes, parents, .. }) => {
            let paths: Vec<String> = sources
                .iter()
                .filter_map(|source| match source {
                    Source::Path(path) => Some(path.clone()),
                    Source::Remote(_) => None,
                })
                .collect();
            let request = copy::CopyRequest {
                excludes: Some(excludes),
                parents: *parents,
                ..copy::CopyRequest::plain(&paths, "/", 0)
            };
            copy::check(context, paths.iter().map(String::as_str)).and_then(|()| context.fetch_for(&request))
        }
        Action::Run(execution) => {
            let bound = execution.mounts.iter().filter_map(|mounted| match &mounted.what {
                MountSource::Bind { from: None, source, .. } => Some(source),
                _ => None,
            });
            bound.map(std::slice::from_ref).try_for_each(|source| {
                copy::check(context, source.iter().map(String::as_str))?;
                context.fetch_for(&copy::CopyRequest::plain(source, "/", 0))
            })
        }
        _ => Ok(()),
    };
    checked.map_err(|cause| copy_failed(step, cause))
}

/// Checks that the secrets that a step requires were given.
///
/// # Errors
/// [`Kind::NotFound`] when one was not given.
pub(crate) fn check_secrets(step: &Step, given: &Secrets) -> Result<()> {
    let Action::Run(Execution { secrets, .. }) = &step.action else { return Ok(()) };
    match secrets.iter().find(|one| one.required && given.get(&one.id).is_none()) {
        None => Ok(()),
        Some(SecretMount { id, .. }) => {
            let what = format!("{}: the secret {id} is required and was not given", step.named());
            Err(Error::new(Kind::NotFound, what).hint(format!("give it: --secret id={id},src=FILE")))
        }
    }
}

/// The `created_by` of each of the base's layers, according to its history.
fn created_by_of_layers(config: &Config) -> Vec<String> {
    let with_layer = config.history.iter().filter(|entry| !entry.empty_layer);
    with_layer.map(|entry| entry.created_by.clone().unwrap_or_default()).collect()
}
