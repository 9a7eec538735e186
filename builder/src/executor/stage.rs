//! Doing a stage's steps: each makes one canonical layer, over what the steps before it left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attestations::Digest;
use attestations::provenance::LayerRecord;
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
use crate::plan;
use crate::plan::config;
use crate::plan::config::Config;
use crate::plan::step::{Action, Execution, Step};
use crate::progress::{Event, Label, SummaryStep};
use crate::secrets::Secrets;
use crate::workspace::Workspace;
use recorder::Recorder;

/// How many layers of a stage may be compressed while its next step goes on.
const MOST_WAITING: usize = 2;

/// The machine's part of a build.
#[derive(Clone, Copy)]
pub(crate) struct Resources<'a> {
    /// Where it reports.
    pub(crate) workspace: &'a Workspace,
    /// What runs commands.
    pub(crate) host: &'a Host,
    /// What runs commands for the platform that is built for.
    pub(crate) emulator: &'a Emulator,
    /// Where layers go.
    pub(crate) store: &'a Store,
    /// Unpacked layers.
    pub(crate) cache: &'a LayerCache,
    /// What records the network.
    pub(crate) capture: &'a Recorder,
    /// A folder of this build alone, for what is mounted into steps.
    pub(crate) scratch: &'a Path,
    /// What ends a running command when the person has had enough.
    pub(crate) canceller: &'a Canceller,
    /// What a step may use up.
    pub(crate) limits: &'a StepLimits,
    /// What steps may be told in confidence.
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

/// A layer that a step made, and what stands for it in the next one.
pub(crate) struct NewLayer {
    pub(crate) layer: Packing,
    pub(crate) files: LayerFiles,
}

pub(crate) enum LayerFiles {
    /// They lie in a folder.
    Written(Upper),
    /// They are only in the layer.
    Virtual(VirtualLayer),
}

impl LayerFiles {
    /// Whether they say anything about a path.
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

/// What came of a step.
pub(crate) struct StepResult {
    made: Option<NewLayer>,
    seconds: f64,
}

impl StepResult {
    /// What the layer is that it made, if it made one.
    pub(crate) fn diff_id(&self) -> Option<&Digest> {
        self.made.as_ref().map(|made| &made.layer.diff_id)
    }

    /// Takes another packing of the same layer, if there is one, in place of its own.
    pub(crate) fn pack(mut self, other: impl FnOnce(&Digest) -> Option<Packing>) -> Self {
        if let Some(made) = &mut self.made
            && let Some(packing) = other(&made.layer.diff_id)
        {
            made.layer = packing;
        }
        self
    }
}

/// A stage that is done, and what is to be told of it.
pub(crate) struct FinishedStage {
    pub(crate) built: StageState,
    pub(crate) reports: StepReports,
}

/// What is told of steps.
#[derive(Default)]
pub(crate) struct StepReports {
    /// What steps asked of the network.
    pub(crate) responses: Vec<recorder::StepExchanges>,
    pub(crate) unrecorded: Vec<String>,
    pub(crate) applied: Vec<AppliedRule>,
    pub(crate) steps: Vec<SummaryStep>,
    pub(crate) git: Vec<GitTaken>,
    /// The ids of the secrets that steps were told.
    pub(crate) secrets: BTreeSet<String>,
}

impl StepReports {
    /// Adds what is to be told behind it.
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

/// A stage that is going on.
pub(crate) struct StageRun<'a> {
    pub(crate) resources: &'a Resources<'a>,
    pub(crate) context: &'a ContextTree,
    pub(crate) epoch: i64,
    /// The stages it needs, by number.
    pub(crate) done: BTreeMap<usize, Arc<FinishedStage>>,
    pub(crate) reports: StepReports,
    pub(crate) waiting: PendingLayers<'a>,
    /// Whether its layers are the image's. Of others only the files are needed.
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

    /// Does one step, on what the stage has.
    pub(crate) fn perform(&mut self, stage: &StageState, step: &Step, label: &Label) -> Result<StepResult> {
        let workspace = self.resources.workspace;
        let line = step.line;
        workspace.report(&Event::Step { label, line, instruction: &step.text });
        let begun = Instant::now();
        let done = self.act(stage, step, label);
        let is_configuration = step.action == Action::Configure;
        let seconds = if is_configuration { 0.0 } else { begun.elapsed().as_secs_f64() };
        let failed = |_: &Error| {
            // What ran ahead and is not needed any more has not failed.
            if !self.resources.canceller.is_left_off() {
                workspace.report(&Event::StepFailed { label, line, seconds });
            }
        };
        let made = done.inspect_err(failed)?;
        let diff_id = made.as_ref().map(|made| made.layer.diff_id);
        workspace.report(&Event::StepDone { label, line, seconds, diff_id, is_configuration });
        Ok(StepResult { made, seconds })
    }

    /// Gives the stage what came of a step; says whether that is a layer.
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
            let what = format!("line {}: {}: {MAX_LAYERS} layers lie below it already", step.line, step.text);
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
                self.draw(stage, step, false, &mut |drawing| copy::make_folder(drawing, path, owner, epoch))
            }
        }
    }

    /// Draws a layer over what the stage has, or apart from it.
    pub(crate) fn draw<'t>(
        &mut self,
        stage: &StageState,
        step: &Step,
        apart: bool,
        put: &mut dyn FnMut(&mut VirtualLayerBuilder<'_, Content<'t>>) -> std::result::Result<(), CopyError>,
    ) -> Result<Option<NewLayer>> {
        let below = stage.root.layer_stack();
        let new = if apart { VirtualLayerBuilder::apart } else { VirtualLayerBuilder::over };
        let mut drawing = new(&below, self.epoch);
        // It is kept in any case: a later command may have to see it.
        let compression = if self.is_in_image { Compression::Gzip } else { Compression::None };
        let done = put(&mut drawing).and_then(|()| {
            drawing.write(self.resources.store, compression, Normaliser::Version1, &mut |content| content())
        });
        let (Written { layer, applied }, virtual_layer) = done.map_err(|cause| copy_failed(step, cause))?;
        self.reports.applied.extend(applied);
        let Some(layer) = layer else { return Ok(None) };
        Ok(Some(NewLayer { layer, files: LayerFiles::Virtual(virtual_layer) }))
    }

    /// The files of an earlier stage, as folders.
    pub(crate) fn folders_of(&self, stage: usize) -> Result<Vec<PathBuf>> {
        let earlier = self.done.get(&stage);
        let earlier =
            earlier.ok_or_else(|| Error::new(Kind::Bug, "a stage is looked into before it is built"))?;
        earlier.built.root.folders(self.resources)
    }

    /// Whom a name or number means in the image.
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

    /// Whose files are: a user's number alone stands for the group of the same number too, and a group without a name for root's.
    pub(crate) fn owner(&self, root: &StageFiles, text: &str, step: &Step) -> Result<(u32, u32)> {
        let (name, has_no_group) = text.strip_suffix(':').map_or((text, false), |name| (name, true));
        let (user, group) = match name.parse::<u32>() {
            Ok(number) => (number, number),
            Err(_) => self.user(root, name, step).map(|user| (user.uid, user.gid))?,
        };
        Ok((user, if has_no_group { 0 } else { group }))
    }
}

/// Whether a step has the secrets without which it cannot be done.
///
/// # Errors
/// [`Kind::NotFound`] when one was not given.
pub(crate) fn check_secrets(step: &Step, given: &Secrets) -> Result<()> {
    let Action::Run(Execution { secrets, .. }) = &step.action else { return Ok(()) };
    match secrets.iter().find(|one| one.required && given.get(&one.id).is_none()) {
        None => Ok(()),
        Some(SecretMount { id, .. }) => {
            let what =
                format!("line {}: {}: the secret {id} is required and was not given", step.line, step.text);
            Err(Error::new(Kind::NotFound, what).hint(format!("give it: --secret id={id},src=FILE")))
        }
    }
}

/// What the base's history says made each of its layers.
fn created_by_of_layers(config: &Config) -> Vec<String> {
    let with_layer = config.history.iter().filter(|entry| !entry.empty_layer);
    with_layer.map(|entry| entry.created_by.clone().unwrap_or_default()).collect()
}
