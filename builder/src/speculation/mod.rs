//! Commands that do not wait for those before them. An image that the build repeats, or comes close to, says what each step came to, so a command
//! runs on that. None of it is believed. What came of a command counts once the steps before it have come, one by one, to the very
//! layers that it stood on; otherwise it is thrown away, and the command runs again on what they did come to.
//!
//! What costs little is not taken from the image: a COPY from the commit is done on the way, so that a command which stands on what changed
//! since can run ahead too. An image of another commit has that commit's time on all that its steps made, in place of which this one's is set. The
//! image's layers are compressed here again, as those of the steps have to be; that counts for a step which comes to the same layer.

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

/// What came of something that was done ahead.
pub(crate) enum Attempt {
    /// A command ran, on these layers.
    Done(Vec<Digest>, StepResult, Box<StepReports>),
    /// A command failed, on these layers.
    Failed(Vec<Digest>, Error),
    /// A layer is compressed, or will be.
    Packed,
    /// It could not be done, or was not worth it: nothing is known of it.
    Unready,
}

/// What may be done ahead.
pub(crate) struct Speculation<'a> {
    stages: &'a Stages<'a>,
    reference_image: Option<&'a ReferenceImage>,
    /// The time of the image's commit, if this one's is another.
    other: Option<i64>,
    /// The steps of the stages whose layers are the image's, in their order: the stage's place in the plan, and the number in it.
    steps: Vec<(usize, usize)>,
    /// The number of the foretold layer that each of them made, if it made one; of those that the image tells of.
    made: Vec<Option<usize>>,
    /// Commands, then layers, each in their order.
    tasks: Vec<EarlyTask>,
    /// What should lie below each step and above the last, as far as anybody had to know.
    predicted: Mutex<Vec<Predicted>>,
    /// Held by who finds out more of it.
    predicting: Mutex<()>,
    /// Layers that were compressed on the way, by what they are.
    packings: Mutex<BTreeMap<Digest, Packing>>,
    pub(crate) pool: TaskPool<Attempt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EarlyTask {
    /// The command with this number among the steps.
    Command(usize),
    /// What the step with this number made is to be compressed.
    Packing(usize),
}

/// What should lie below a step.
#[derive(Clone, Default)]
struct Predicted {
    root: StageFiles,
    diff_ids: Vec<Digest>,
    /// Whether a step came to something else than the image has; what commands made of that is not known then.
    has_changed: bool,
    /// Whether it is not known what lies there.
    is_unknown: bool,
}

impl<'a> Speculation<'a> {
    /// What of these stages can be done ahead of its turn.
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
        // What costs little is compressed where it is done.
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

    /// How many things may be done ahead.
    pub(crate) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// What was compressed ahead of the layer that a step came to. If that is still going on, it is left off.
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

    /// The number of a step among those of the image.
    fn step(&self, place: usize, step: usize) -> Option<usize> {
        self.steps.binary_search(&(place, step)).ok()
    }

    /// Whether a command goes on, or went, on other layers than these.
    fn ran_on_other_layers(&self, step: usize, diff_ids: &[Digest]) -> bool {
        self.predicted()
            .get(step)
            .is_some_and(|predicted| predicted.is_unknown || predicted.diff_ids != diff_ids)
    }

    /// The layer that a step should come to, if any; none when that is not known.
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
            .ok_or_else(|| Error::new(Kind::Bug, "something is done ahead and nothing was reference_image"))
    }

    fn predicted(&self) -> MutexGuard<'_, Vec<Predicted>> {
        self.predicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of a step that ran ahead, if it did and counts.
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

    /// Ends what runs ahead when a command came to something else than was foretold: all of it stands on that.
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

    /// Tells that what came of a command does not count, if it was begun.
    fn drop(&self, task: usize, attempt: &Attempt) {
        let (EarlyTask::Command(number), Attempt::Done(..) | Attempt::Failed(..)) =
            (self.tasks[task], attempt)
        else {
            return;
        };
        let (place, index) = self.steps[number];
        let (step, label) = (&self.stages.planned[place].1.steps[index], self.stages.label(place, index));
        // It asks for the same again, and is answered from the beginning.
        self.stages.stage_resources[place].capture.again(&step.id);
        self.stages.stage_resources[place]
            .workspace
            .report(&Event::StepDropped { label: &label, line: step.line });
    }

    /// Does one of the course's tasks.
    pub(crate) fn run_task(&self, task: usize, canceller: &Canceller) -> Attempt {
        let done = match self.tasks[task] {
            EarlyTask::Command(number) => self.run_early(number, canceller),
            EarlyTask::Packing(number) => self.compress_early(number, canceller).map(|()| Attempt::Packed),
        };
        done.unwrap_or_else(|cause| {
            if !canceller.is_cancelled() {
                let message = format!("something could not be done ahead, and waits for its turn: {cause}");
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
            // It has to lie in a folder to be changed, and is compressed on the way.
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

    /// What should lie below a step.
    fn predict_below(&self, number: usize, resources: &Resources<'_>) -> Result<Predicted> {
        let _laying = self.predicting.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// What lies below the first step.
    fn predict_base(&self, resources: &Resources<'_>) -> Result<Predicted> {
        let Some(Base { image, .. }) = self.stages.base() else { return Ok(Predicted::default()) };
        let root = StageFiles::of_base(resources.cache.lower_dirs(resources.store, image)?);
        Ok(Predicted { root, diff_ids: image.diff_ids().to_vec(), ..Predicted::default() })
    }

    /// What should lie above a step.
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
            if let Some(NewLayer { layer, files: LayerFiles::Virtual(drawn) }) = made {
                self.packings().insert(layer.diff_id, layer.clone());
                predicted.root.add_virtual(layer, drawn);
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

    /// A layer of the image as it should come out in this build. If it becomes another on the way, it is compressed where it is to be kept.
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

/// Whether a step is sooner done than taken from an image: it takes its files from the commit.
fn is_cheap(action: &Action) -> bool {
    match action {
        Action::Configure | Action::Workdir { .. } => true,
        Action::Run(_) => false,
        Action::Copy(copying) => {
            copying.from.is_none() && copying.sources.iter().all(|source| matches!(source, Source::Path(_)))
        }
    }
}

/// The commands that are worth running ahead, and may be: another one comes before them, and nothing but layers and the network is
/// told to them. A secret is told to nothing that stands on layers which nobody came to yet, and what a stage gives is only known once
/// it is done.
fn commands<'s>(made: &[Option<usize>], steps: impl Iterator<Item = &'s Step>) -> Vec<usize> {
    let may = |step: &Step| match &step.action {
        Action::Run(execution) => execution.secrets.is_empty() && sources_of(&step.action).is_empty(),
        _ => false,
    };
    let dear = steps.enumerate().filter(|(_, step)| !is_cheap(&step.action));
    // All that lies below is told.
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

    /// The lines of the commands that may run ahead, when the image tells of so many steps.
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
        // All that lies below has to be told, and not what the command itself came to.
        assert_eq!(ahead(text, 5), [4, 7]);
        assert_eq!(ahead(text, 4), [4]);
        assert_eq!(ahead(text, 2), [4]);
        assert_eq!(ahead(text, 1), [0; 0]);
        // Fetching takes as long as a command; a command that takes files of a stage waits for it.
        let text = "FROM scratch AS s\nFROM scratch\nADD http://a.example/x /\nRUN one\nRUN --mount=from=s,target=/s two\nRUN three";
        assert_eq!(ahead(text, 4), [4, 6]);
    }
}
