//! Speculative execution: commands run before the steps ahead of them are done, on layers taken from a reference
//! image.
//!
//! A reference image is one that the build is expected to reproduce, or nearly so. Its history says which layer each
//! step made, so a command can start on the layers that it is predicted to stand on. The prediction is not trusted:
//! an early result counts only once the preceding steps have produced, one by one, exactly the layers that it ran on.
//! Otherwise it is discarded and the command runs again on the actual layers.
//!
//! Cheap steps are not predicted from the reference image. A COPY from the commit is carried out early, so that
//! commands after a changed COPY can still run ahead. If the reference image was built from another commit, every
//! file that its steps made has that commit's time; it is replaced by this commit's. The layers of the reference
//! image are compressed early too, as those of the steps must be, and the compressed blob is used for a step that
//! produces the same layer.

pub(crate) mod reference;
pub(crate) mod tasks;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use attestations::Digest;
use images::layer::{Compression, Keeping, Normaliser, Packing, Times, from_upper, repack, unpack};
use sandbox::{Canceller, Upper};

use crate::bases::Base;
use crate::error::{Error, Kind, Result};
use crate::executor::compression::PendingLayers;
use crate::executor::failures::machine;
use crate::executor::stage::{
    LayerFiles, NewLayer, Resources, StageRun, StageState, StepReports, StepResult,
};
use crate::executor::stage_files::StageFiles;
use crate::executor::stages::{Stages, furnish, sources_of};
use crate::plan::step::{Action, Source, Step};
use crate::progress::Event;
use crate::speculation::reference::ReferenceImage;
use crate::speculation::tasks::{Busy, TaskPool};

/// The outcome of a task that ran early.
pub(crate) enum Attempt {
    /// A command succeeded on the layers with these diff IDs.
    Done(Vec<Digest>, StepResult, Box<StepReports>),
    /// A command failed on the layers with these diff IDs.
    Failed(Vec<Digest>, Error),
    /// A layer was compressed, or its compression has begun.
    Packed,
    /// It could not be done, or was not worth it; there is no result to use.
    Unready,
}

/// The early tasks of a build and what is predicted for them.
pub(crate) struct Speculation<'a> {
    stages: &'a Stages<'a>,
    reference_image: Option<&'a ReferenceImage>,
    /// The commit time of the reference image, if it differs from this commit's.
    other: Option<i64>,
    /// The steps of the stages that make up the final image, in order: the stage's index in the plan, and the step's
    /// in it.
    steps: Vec<(usize, usize)>,
    /// For each step that the reference image's history covers: the number of the layer that it made, if it made one.
    made: Vec<Option<usize>>,
    /// Commands, then layers, each in build order.
    tasks: Vec<EarlyTask>,
    /// The layers predicted below each step and above the last, computed on demand.
    predicted: Mutex<Vec<Predicted>>,
    /// Held while `predicted` is extended, so that nothing is predicted twice.
    predicting: Mutex<()>,
    /// Layers that were compressed early, by diff ID.
    packings: Mutex<BTreeMap<Digest, Packing>>,
    pub(crate) pool: TaskPool<Attempt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EarlyTask {
    /// Run the command of the step with this number.
    Command(usize),
    /// Compress the layer that the step with this number is predicted to make.
    Packing(usize),
}

/// The layers predicted below a step.
#[derive(Clone, Default)]
struct Predicted {
    root: StageFiles,
    diff_ids: Vec<Digest>,
    /// Whether an early step differs from the reference image. The layers of commands above it are then unknown.
    has_changed: bool,
    /// Whether the layers here cannot be predicted.
    is_unknown: bool,
}

impl<'a> Speculation<'a> {
    /// Selects the tasks of these stages that can run early.
    pub(crate) fn new(
        reference_image: Option<&'a ReferenceImage>,
        stages: &'a Stages<'a>,
        processors: usize,
    ) -> Self {
        let (planned, chain, epoch) = (stages.planned, stages.chain(), stages.epoch);
        let of_stage = |&place: &usize| (0..planned[place].1.steps.len()).map(move |step| (place, step));
        let steps: Vec<_> = chain.iter().flat_map(of_stage).collect();
        let all = || steps.iter().map(|(place, step)| &planned[*place].1.steps[*step]);
        let made = reference_image
            .map(|reference_image| reference_image.made(stages.base(), stages.plan, all()))
            .unwrap_or_default();
        let commands = commands(&made, all()).into_iter().map(EarlyTask::Command);
        // Cheap steps run early and are compressed then.
        let is_worth_it = |(made, step): (&Option<usize>, &Step)| made.is_some() && !is_cheap(&step.action);
        let layers = made.iter().zip(all()).enumerate().filter(|(_, one)| is_worth_it(*one));
        let layers = layers.map(|(number, _)| EarlyTask::Packing(number));
        let tasks: Vec<EarlyTask> = commands.chain(layers).collect();
        let pool = TaskPool::new(tasks.len(), processors);
        Self {
            stages,
            reference_image,
            other: reference_image.and_then(ReferenceImage::epoch).filter(|other| *other != epoch),
            steps,
            made,
            tasks,
            predicted: Mutex::default(),
            predicting: Mutex::default(),
            packings: Mutex::default(),
            pool,
        }
    }

    /// The number of early tasks.
    pub(crate) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Takes the layer that was compressed early, if it is the one that a step produced. A compression still under
    /// way is cancelled.
    pub(crate) fn compressed_early(&self, place: usize, step: usize, diff_id: &Digest) -> Option<Packing> {
        if let Some(task) = self.step(place, step).and_then(|step| self.number(EarlyTask::Packing(step))) {
            self.pool.cancel(task);
        }
        self.packings().remove(diff_id)
    }

    fn packings(&self) -> MutexGuard<'_, BTreeMap<Digest, Packing>> {
        self.packings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, task: EarlyTask) -> Option<usize> {
        self.tasks.iter().position(|other| *other == task)
    }

    /// The number of a step among those of the final image.
    fn step(&self, place: usize, step: usize) -> Option<usize> {
        self.steps.binary_search(&(place, step)).ok()
    }

    /// Whether a command ran early, or is running, on layers other than these.
    fn ran_on_other_layers(&self, step: usize, diff_ids: &[Digest]) -> bool {
        self.predicted()
            .get(step)
            .is_some_and(|predicted| predicted.is_unknown || predicted.diff_ids != diff_ids)
    }

    /// The layer that a step is predicted to make, if any. None when there is no prediction.
    fn expected_layer(&self, step: usize) -> Option<Option<Digest>> {
        if self.other.is_none() {
            let layer = |number: usize| self.reference_image.and_then(|it| it.image.diff_ids().get(number));
            return self.made.get(step).map(|made| made.and_then(layer).copied());
        }
        let predicted = self.predicted();
        let (below, above) = (predicted.get(step)?, predicted.get(step + 1)?);
        (!above.is_unknown).then(|| above.diff_ids.get(below.diff_ids.len()).copied())
    }

    fn reference_image(&self) -> Result<&'a ReferenceImage> {
        self.reference_image
            .ok_or_else(|| Error::new(Kind::Bug, "something runs early without a reference image"))
    }

    fn predicted(&self) -> MutexGuard<'_, Vec<Predicted>> {
        self.predicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The early result of a step, if it ran early and stood on the same layers.
    pub(crate) fn attempt(
        &self,
        place: usize,
        step: usize,
        stage: &StageState,
        processor: &Busy<'_, Attempt>,
    ) -> Option<Attempt> {
        let number = self.step(place, step)?;
        let task = self.number(EarlyTask::Command(number))?;
        let diff_ids = &stage.config.rootfs.diff_ids;
        if self.ran_on_other_layers(number, diff_ids) {
            self.abandon(task..task + 1);
            return None;
        }
        let attempt = self.pool.claim(task, processor)?;
        match &attempt {
            Attempt::Done(on, ..) | Attempt::Failed(on, _) if on != diff_ids => {
                self.drop(task, &attempt);
                None
            }
            _ => Some(attempt),
        }
    }

    /// Cancels all early tasks when a step other than a cheap one produced another layer than predicted: they all
    /// depend on it.
    pub(crate) fn check(&self, place: usize, step: usize, diff_id: Option<&Digest>) {
        let Some(number) = self.step(place, step) else { return };
        let is_cheap = is_cheap(&self.stages.planned[place].1.steps[step].action);
        if !is_cheap && self.expected_layer(number).is_some_and(|expected| expected.as_ref() != diff_id) {
            self.abandon(0..self.count());
        }
    }

    fn abandon(&self, tasks: Range<usize>) {
        for (task, attempt) in self.pool.abandon(tasks) {
            self.drop(task, &attempt);
        }
    }

    /// Reports that the early result of a command is discarded, if the command had begun.
    fn drop(&self, task: usize, attempt: &Attempt) {
        let (EarlyTask::Command(number), Attempt::Done(..) | Attempt::Failed(..)) =
            (self.tasks[task], attempt)
        else {
            return;
        };
        let (place, index) = self.steps[number];
        let (step, label) = (&self.stages.planned[place].1.steps[index], self.stages.label(place, index));
        // The command will send the same requests again; their numbering starts over.
        self.stages.stage_resources[place].capture.again(&step.id);
        self.stages.stage_resources[place]
            .workspace
            .report(&Event::StepDropped { label: &label, line: step.line });
    }

    /// Runs an early task.
    pub(crate) fn run_task(&self, task: usize, canceller: &Canceller) -> Attempt {
        let done = match self.tasks[task] {
            EarlyTask::Command(number) => self.run_early(number, canceller),
            EarlyTask::Packing(number) => self.compress_early(number, canceller).map(|()| Attempt::Packed),
        };
        done.unwrap_or_else(|cause| {
            if !canceller.is_cancelled() {
                let message = format!("a step could not run early, and waits for its turn: {cause}");
                self.stages.stage_resources[0]
                    .workspace
                    .report(&Event::Warning { message: &message, path: None });
            }
            Attempt::Unready
        })
    }

    fn run_early(&self, number: usize, canceller: &Canceller) -> Result<Attempt> {
        let (place, index) = self.steps[number];
        let scratch = self.stages.stage_resources[place].scratch.with_extension(format!("ahead-{index}"));
        let resources = Resources { scratch: &scratch, canceller, ..self.stages.stage_resources[place] };
        furnish(&resources)?;
        let Predicted { root, diff_ids, is_unknown, .. } = self.predict_below(number, &resources)?;
        if is_unknown {
            return Ok(Attempt::Unready);
        }
        let mut run = self.run(&resources);
        let stage = self.stage(place, root, diff_ids);
        let done =
            run.perform(&stage, &self.stages.planned[place].1.steps[index], &self.stages.label(place, index));
        let on = stage.config.rootfs.diff_ids;
        Ok(match done {
            Ok(result_of_step) => Attempt::Done(on, result_of_step, Box::new(run.reports)),
            Err(error) => Attempt::Failed(on, error),
        })
    }

    fn compress_early(&self, number: usize, canceller: &Canceller) -> Result<()> {
        let (place, index) = self.steps[number];
        if self.other.is_some() {
            // Normalising the times needs the layer unpacked in a folder; predicting it compresses it too.
            let scratch = self.stages.stage_resources[place].scratch.with_extension(format!("layer-{index}"));
            let resources = Resources { scratch: &scratch, canceller, ..self.stages.stage_resources[place] };
            furnish(&resources)?;
            return self.predict_below(number + 1, &resources).map(drop);
        }
        let Some(Some(layer)) = self.made.get(number) else { return Ok(()) };
        let (reference_image, into) = (self.reference_image()?, self.stages.stage_resources[place].store);
        let ReferenceImage { store, image } = reference_image;
        let (descriptor, diff_id) = (&image.layers()[*layer], image.diff_ids()[*layer]);
        let stop = || canceller.is_cancelled();
        let limits = reference_image.limits(*layer);
        let packing = repack((store, descriptor, &diff_id), (into, Compression::Gzip), limits, &stop)?;
        self.packings().insert(diff_id, packing);
        Ok(())
    }

    /// The layers predicted below a step.
    fn predict_below(&self, number: usize, resources: &Resources<'_>) -> Result<Predicted> {
        let _guard = self.predicting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (last, count) = {
                let all = self.predicted();
                if let Some(found) = all.get(number) {
                    return Ok(found.clone());
                }
                (all.last().cloned(), all.len())
            };
            let next = match last {
                None => self.predict_base(resources)?,
                Some(last) => self.predict_above(last, count - 1, resources)?,
            };
            self.predicted().push(next);
        }
    }

    /// The layers below the first step.
    fn predict_base(&self, resources: &Resources<'_>) -> Result<Predicted> {
        let Some(Base { image, .. }) = self.stages.base() else { return Ok(Predicted::default()) };
        let root = StageFiles::of_base(resources.cache.lower_dirs(resources.store, image)?);
        Ok(Predicted { root, diff_ids: image.diff_ids().to_vec(), ..Predicted::default() })
    }

    /// The layers predicted above a step.
    fn predict_above(
        &self,
        mut predicted: Predicted,
        number: usize,
        resources: &Resources<'_>,
    ) -> Result<Predicted> {
        let (place, index) = self.steps[number];
        let step = &self.stages.planned[place].1.steps[index];
        if predicted.is_unknown || step.action == Action::Configure {
            return Ok(predicted);
        }
        if is_cheap(&step.action) {
            let stage = self.stage(place, predicted.root.clone(), predicted.diff_ids.clone());
            let made = self.run(resources).act(&stage, step, &self.stages.label(place, index))?;
            let diff_id = made.as_ref().map(|made| made.layer.diff_id);
            let expected = match (self.other, self.made.get(number)) {
                (None, _) => self.expected_layer(number).flatten(),
                (Some(_), Some(Some(layer))) => {
                    Some(self.predict(*layer, &predicted, Keeping::DiffId, resources)?.1)
                }
                (Some(_), _) => None,
            };
            predicted.has_changed |= diff_id != expected;
            predicted.diff_ids.extend(diff_id);
            if let Some(NewLayer { layer, files: LayerFiles::Virtual(virtual_layer) }) = made {
                self.packings().insert(layer.diff_id, layer.clone());
                predicted.root.add_virtual(layer, virtual_layer);
            }
            return Ok(predicted);
        }
        if predicted.has_changed {
            return Ok(Predicted { is_unknown: true, ..predicted });
        }
        if let Some(Some(layer)) = self.made.get(number) {
            let (upper, diff_id) = self.predict(*layer, &predicted, Compression::Gzip.into(), resources)?;
            predicted.root.add_written(upper.into());
            predicted.diff_ids.push(diff_id);
        }
        Ok(predicted)
    }

    /// Unpacks a layer of the reference image as this build is predicted to make it. If its times are replaced, the
    /// new layer is compressed as well, unless `keeping` asks for its diff ID alone.
    fn predict(
        &self,
        layer: usize,
        below: &Predicted,
        keeping: Keeping,
        resources: &Resources<'_>,
    ) -> Result<(Upper, Digest)> {
        let reference_image = self.reference_image()?;
        let ReferenceImage { store, image } = reference_image;
        let (upper, diff_id) = (resources.host.folder().map_err(machine)?, image.diff_ids()[layer]);
        unpack(store, &image.layers()[layer], &diff_id, upper.path(), reference_image.limits(layer))?;
        if self.other.is_none() {
            return Ok((upper, diff_id));
        }
        let times = Times { epoch: self.stages.epoch, other: self.other };
        let lowers = below.root.folders(resources)?;
        let written =
            from_upper(resources.store, upper.path(), &lowers, times, keeping, Normaliser::Version1);
        let nothing = || Error::new(Kind::Input, "a layer of the image changes nothing");
        let packing = written?.layer.ok_or_else(nothing)?;
        let diff_id = packing.diff_id;
        if keeping != Keeping::DiffId {
            self.packings().insert(diff_id, packing);
        }
        Ok((upper, diff_id))
    }

    fn stage(&self, place: usize, root: StageFiles, diff_ids: Vec<Digest>) -> StageState {
        let mut config = self.stages.planned[place].1.config.clone();
        config.rootfs.diff_ids = diff_ids;
        StageState { config, layers: Vec::new(), root }
    }

    fn run<'s>(&'s self, resources: &'s Resources<'s>) -> StageRun<'s> {
        StageRun {
            is_in_image: true,
            resources,
            context: self.stages.context,
            epoch: self.stages.epoch,
            done: BTreeMap::new(),
            reports: StepReports::default(),
            waiting: PendingLayers::default(),
        }
    }
}

/// Whether carrying out a step costs less than unpacking its layer: it takes files from the commit alone.
fn is_cheap(action: &Action) -> bool {
    match action {
        Action::Configure | Action::Workdir { .. } => true,
        Action::Run(_) => false,
        Action::Copy(copying) => {
            copying.from.is_none() && copying.sources.iter().all(|source| matches!(source, Source::Path(_)))
        }
    }
}

/// The commands that are worth running early and allowed to: an expensive step precedes them, and they need nothing
/// but layers and the network. Commands with secrets never run early, since their layers are not confirmed yet; files
/// of another stage are only available once that stage is done.
fn commands<'s>(made: &[Option<usize>], steps: impl Iterator<Item = &'s Step>) -> Vec<usize> {
    let may = |step: &Step| match &step.action {
        Action::Run(execution) => execution.secrets.is_empty() && sources_of(&step.action).is_empty(),
        _ => false,
    };
    let dear = steps.enumerate().filter(|(_, step)| !is_cheap(&step.action));
    // The reference image must cover every step below.
    let is_known = |number: usize| number <= made.len();
    dear.skip(1).filter(|(number, step)| may(step) && is_known(*number)).map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dockerfile::Dockerfile;
    use crate::executor::stages::PlannedStage;
    use crate::plan::config;
    use crate::plan::{Plan, PlanRequest};
    use images::Platform;

    /// The lines of the commands that may run early, when the reference image covers `known` steps.
    fn ahead(text: &str, known: usize) -> Vec<usize> {
        let file = Dockerfile::parse(text.as_bytes()).unwrap();
        let request = PlanRequest {
            target: None,
            arguments: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: Platform::linux("amd64"),
            created: "2026-01-02T03:04:05Z".to_owned(),
        };
        let plan = Plan::new(&file, &request).unwrap();
        let needed = plan.needed().iter();
        let planned: Vec<PlannedStage<'_>> = needed
            .map(|needed| (needed, plan.steps(needed.stage, config::scratch(&request.platform)).unwrap()))
            .collect();
        let steps = &planned.last().unwrap().1.steps;
        let made = vec![None; known];
        let numbers = commands(&made, steps.iter());
        numbers.into_iter().map(|number| steps[number].line).collect()
    }

    #[test]
    fn the_first_command_and_what_is_told_more_than_layers_wait_for_their_turn() {
        let text = "FROM scratch\nCOPY a /\nRUN one\nRUN two\nWORKDIR /w\nRUN --mount=type=secret,id=s three\nRUN four";
        assert_eq!(ahead(text, 6), [4, 7]);
        // Every step below must be covered, but not the command itself.
        assert_eq!(ahead(text, 5), [4, 7]);
        assert_eq!(ahead(text, 4), [4]);
        assert_eq!(ahead(text, 2), [4]);
        assert_eq!(ahead(text, 1), [0; 0]);
        // Fetching takes as long as a command; a command that mounts files of a stage waits for that stage.
        let text = "FROM scratch AS s\nFROM scratch\nADD http://a.example/x /\nRUN one\nRUN --mount=from=s,target=/s two\nRUN three";
        assert_eq!(ahead(text, 4), [4, 6]);
    }
}
