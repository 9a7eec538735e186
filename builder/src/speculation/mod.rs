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
use crate::executor::compression::Waiting;
use crate::executor::failures::machine;
use crate::executor::stack::Root;
use crate::executor::stage::{Built, Files, Made, Performed, Records, Run, Workshop};
use crate::executor::stages::{Stages, furnish, sources_of};
use crate::plan::step::{Action, Source, Step};
use crate::progress::Event;
use crate::speculation::reference::Foretold;
use crate::speculation::tasks::{Ahead, Busy};

/// What came of something that was done ahead.
pub(crate) enum Attempt {
    /// A command ran, on these layers.
    Done(Vec<Digest>, Performed, Box<Records>),
    /// A command failed, on these layers.
    Failed(Vec<Digest>, Error),
    /// A layer is compressed, or will be.
    Packed,
    /// It could not be done, or was not worth it: nothing is known of it.
    Unready,
}

/// What may be done ahead.
pub(crate) struct Course<'a> {
    stages: &'a Stages<'a>,
    foretold: Option<&'a Foretold>,
    /// The time of the image's commit, if this one's is another.
    other: Option<i64>,
    /// The steps of the stages whose layers are the image's, in their order: the stage's place in the plan, and the number in it.
    steps: Vec<(usize, usize)>,
    /// The number of the foretold layer that each of them made, if it made one; of those that the image tells of.
    made: Vec<Option<usize>>,
    /// Commands, then layers, each in their order.
    tasks: Vec<Task>,
    /// What should lie below each step and above the last, as far as anybody had to know.
    ground: Mutex<Vec<Ground>>,
    /// Held by who finds out more of it.
    laying: Mutex<()>,
    /// Layers that were compressed on the way, by what they are.
    packings: Mutex<BTreeMap<Digest, Packing>>,
    pub(crate) ahead: Ahead<Attempt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// The command with this number among the steps.
    Command(usize),
    /// What the step with this number made is to be compressed.
    Packing(usize),
}

/// What should lie below a step.
#[derive(Clone, Default)]
struct Ground {
    root: Root,
    diff_ids: Vec<Digest>,
    /// Whether a step came to something else than the image has; what commands made of that is not known then.
    has_changed: bool,
    /// Whether it is not known what lies there.
    is_unknown: bool,
}

impl<'a> Course<'a> {
    /// What of these stages can be done ahead of its turn.
    pub(crate) fn new(foretold: Option<&'a Foretold>, stages: &'a Stages<'a>, processors: usize) -> Self {
        let (planned, chain, epoch) = (stages.planned, stages.chain(), stages.epoch);
        let of_stage = |&place: &usize| (0..planned[place].1.steps.len()).map(move |step| (place, step));
        let steps: Vec<_> = chain.iter().flat_map(of_stage).collect();
        let all = || steps.iter().map(|(place, step)| &planned[*place].1.steps[*step]);
        let made =
            foretold.map(|foretold| foretold.made(stages.base(), stages.plan, all())).unwrap_or_default();
        let commands = commands(&made, all()).into_iter().map(Task::Command);
        // What costs little is compressed where it is done.
        let is_worth_it = |(made, step): (&Option<usize>, &Step)| made.is_some() && !is_cheap(&step.action);
        let layers = made.iter().zip(all()).enumerate().filter(|(_, one)| is_worth_it(*one));
        let layers = layers.map(|(number, _)| Task::Packing(number));
        let tasks: Vec<Task> = commands.chain(layers).collect();
        let ahead = Ahead::new(tasks.len(), processors);
        Self {
            stages,
            foretold,
            other: foretold.and_then(Foretold::epoch).filter(|other| *other != epoch),
            steps,
            made,
            tasks,
            ground: Mutex::default(),
            laying: Mutex::default(),
            packings: Mutex::default(),
            ahead,
        }
    }

    /// How many things may be done ahead.
    pub(crate) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// What was compressed ahead of the layer that a step came to. If that is still going on, it is left off.
    pub(crate) fn packed(&self, place: usize, step: usize, diff_id: &Digest) -> Option<Packing> {
        if let Some(task) = self.step(place, step).and_then(|step| self.number(Task::Packing(step))) {
            self.ahead.leave_off(task);
        }
        self.packings().remove(diff_id)
    }

    fn packings(&self) -> MutexGuard<'_, BTreeMap<Digest, Packing>> {
        self.packings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, task: Task) -> Option<usize> {
        self.tasks.iter().position(|other| *other == task)
    }

    /// The number of a step among those of the image.
    fn step(&self, place: usize, step: usize) -> Option<usize> {
        self.steps.binary_search(&(place, step)).ok()
    }

    /// Whether a command goes on, or went, on other layers than these.
    fn stands_elsewhere(&self, step: usize, diff_ids: &[Digest]) -> bool {
        self.ground().get(step).is_some_and(|ground| ground.is_unknown || ground.diff_ids != diff_ids)
    }

    /// The layer that a step should come to, if any; none when that is not known.
    fn should_come_to(&self, step: usize) -> Option<Option<Digest>> {
        if self.other.is_none() {
            let layer = |number: usize| self.foretold.and_then(|it| it.image.diff_ids().get(number));
            return self.made.get(step).map(|made| made.and_then(layer).copied());
        }
        let ground = self.ground();
        let (below, above) = (ground.get(step)?, ground.get(step + 1)?);
        (!above.is_unknown).then(|| above.diff_ids.get(below.diff_ids.len()).copied())
    }

    fn foretold(&self) -> Result<&'a Foretold> {
        self.foretold.ok_or_else(|| Error::new(Kind::Bug, "something is done ahead and nothing was foretold"))
    }

    fn ground(&self) -> MutexGuard<'_, Vec<Ground>> {
        self.ground.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of a step that ran ahead, if it did and counts.
    pub(crate) fn attempt(
        &self,
        place: usize,
        step: usize,
        stage: &Built,
        busy: &Busy<'_, Attempt>,
    ) -> Option<Attempt> {
        let number = self.step(place, step)?;
        let task = self.number(Task::Command(number))?;
        let diff_ids = &stage.config.rootfs.diff_ids;
        if self.stands_elsewhere(number, diff_ids) {
            self.abandon(task..task + 1);
            return None;
        }
        let attempt = self.ahead.claim(task, busy)?;
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
        if !is_cheap && self.should_come_to(number).is_some_and(|expected| expected.as_ref() != diff_id) {
            self.abandon(0..self.count());
        }
    }

    fn abandon(&self, tasks: Range<usize>) {
        for (task, attempt) in self.ahead.abandon(tasks) {
            self.drop(task, &attempt);
        }
    }

    /// Tells that what came of a command does not count, if it was begun.
    fn drop(&self, task: usize, attempt: &Attempt) {
        let (Task::Command(number), Attempt::Done(..) | Attempt::Failed(..)) = (self.tasks[task], attempt)
        else {
            return;
        };
        let (place, index) = self.steps[number];
        let (step, label) = (&self.stages.planned[place].1.steps[index], self.stages.label(place, index));
        // It asks for the same again, and is answered from the beginning.
        self.stages.shops[place].capture.again(&step.id);
        self.stages.shops[place].workspace.report(&Event::StepDropped { label: &label, line: step.line });
    }

    /// Does one of the course's tasks.
    pub(crate) fn do_ahead(&self, task: usize, canceller: &Canceller) -> Attempt {
        let done = match self.tasks[task] {
            Task::Command(number) => self.run_ahead(number, canceller),
            Task::Packing(number) => self.pack_ahead(number, canceller).map(|()| Attempt::Packed),
        };
        done.unwrap_or_else(|cause| {
            if !canceller.is_cancelled() {
                let message = format!("something could not be done ahead, and waits for its turn: {cause}");
                self.stages.shops[0].workspace.report(&Event::Warning { message: &message, path: None });
            }
            Attempt::Unready
        })
    }

    fn run_ahead(&self, number: usize, canceller: &Canceller) -> Result<Attempt> {
        let (place, index) = self.steps[number];
        let scratch = self.stages.shops[place].scratch.with_extension(format!("ahead-{index}"));
        let shop = Workshop { scratch: &scratch, canceller, ..self.stages.shops[place] };
        furnish(&shop)?;
        let Ground { root, diff_ids, is_unknown, .. } = self.lay(number, &shop)?;
        if is_unknown {
            return Ok(Attempt::Unready);
        }
        let mut run = self.run(&shop);
        let stage = self.stage(place, root, diff_ids);
        let done =
            run.perform(&stage, &self.stages.planned[place].1.steps[index], &self.stages.label(place, index));
        let on = stage.config.rootfs.diff_ids;
        Ok(match done {
            Ok(performed) => Attempt::Done(on, performed, Box::new(run.told)),
            Err(error) => Attempt::Failed(on, error),
        })
    }

    fn pack_ahead(&self, number: usize, canceller: &Canceller) -> Result<()> {
        let (place, index) = self.steps[number];
        if self.other.is_some() {
            // It has to lie in a folder to be changed, and is compressed on the way.
            let scratch = self.stages.shops[place].scratch.with_extension(format!("layer-{index}"));
            let shop = Workshop { scratch: &scratch, canceller, ..self.stages.shops[place] };
            furnish(&shop)?;
            return self.lay(number + 1, &shop).map(drop);
        }
        let Some(Some(layer)) = self.made.get(number) else { return Ok(()) };
        let (foretold, into) = (self.foretold()?, self.stages.shops[place].store);
        let Foretold { store, image } = foretold;
        let (descriptor, diff_id) = (&image.layers()[*layer], image.diff_ids()[*layer]);
        let stop = || canceller.is_cancelled();
        let limits = foretold.limits(*layer);
        let packing = repack((store, descriptor, &diff_id), (into, Compression::Gzip), limits, &stop)?;
        self.packings().insert(diff_id, packing);
        Ok(())
    }

    /// What should lie below a step.
    fn lay(&self, number: usize, shop: &Workshop<'_>) -> Result<Ground> {
        let _laying = self.laying.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (last, count) = {
                let all = self.ground();
                if let Some(found) = all.get(number) {
                    return Ok(found.clone());
                }
                (all.last().cloned(), all.len())
            };
            let next = match last {
                None => self.lowest(shop)?,
                Some(last) => self.over(last, count - 1, shop)?,
            };
            self.ground().push(next);
        }
    }

    /// What lies below the first step.
    fn lowest(&self, shop: &Workshop<'_>) -> Result<Ground> {
        let Some(Base { image, .. }) = self.stages.base() else { return Ok(Ground::default()) };
        let root = Root::of_base(shop.cache.lower_dirs(shop.store, image)?);
        Ok(Ground { root, diff_ids: image.diff_ids().to_vec(), ..Ground::default() })
    }

    /// What should lie above a step.
    fn over(&self, mut ground: Ground, number: usize, shop: &Workshop<'_>) -> Result<Ground> {
        let (place, index) = self.steps[number];
        let step = &self.stages.planned[place].1.steps[index];
        if ground.is_unknown || step.action == Action::Configure {
            return Ok(ground);
        }
        if is_cheap(&step.action) {
            let stage = self.stage(place, ground.root.clone(), ground.diff_ids.clone());
            let made = self.run(shop).act(&stage, step, &self.stages.label(place, index))?;
            let diff_id = made.as_ref().map(|made| made.layer.diff_id);
            let expected = match (self.other, self.made.get(number)) {
                (None, _) => self.should_come_to(number).flatten(),
                (Some(_), Some(Some(layer))) => Some(self.predict(*layer, &ground, Keeping::DiffId, shop)?.1),
                (Some(_), _) => None,
            };
            ground.has_changed |= diff_id != expected;
            ground.diff_ids.extend(diff_id);
            if let Some(Made { layer, files: Files::Virtual(drawn) }) = made {
                self.packings().insert(layer.diff_id, layer.clone());
                ground.root.add_virtual(layer, drawn);
            }
            return Ok(ground);
        }
        if ground.has_changed {
            return Ok(Ground { is_unknown: true, ..ground });
        }
        if let Some(Some(layer)) = self.made.get(number) {
            let (upper, diff_id) = self.predict(*layer, &ground, Compression::Gzip.into(), shop)?;
            ground.root.add_written(upper.into());
            ground.diff_ids.push(diff_id);
        }
        Ok(ground)
    }

    /// A layer of the image as it should come out in this build. If it becomes another on the way, it is compressed where it is to be kept.
    fn predict(
        &self,
        layer: usize,
        below: &Ground,
        keeping: Keeping,
        shop: &Workshop<'_>,
    ) -> Result<(Upper, Digest)> {
        let foretold = self.foretold()?;
        let Foretold { store, image } = foretold;
        let (upper, diff_id) = (shop.host.folder().map_err(machine)?, image.diff_ids()[layer]);
        unpack(store, &image.layers()[layer], &diff_id, upper.path(), foretold.limits(layer))?;
        if self.other.is_none() {
            return Ok((upper, diff_id));
        }
        let times = Times { epoch: self.stages.epoch, other: self.other };
        let lowers = below.root.folders(shop)?;
        let written = from_upper(shop.store, upper.path(), &lowers, times, keeping, Normaliser::Version1);
        let nothing = || Error::new(Kind::Input, "a layer of the image changes nothing");
        let packing = written?.layer.ok_or_else(nothing)?;
        let diff_id = packing.diff_id;
        if keeping != Keeping::DiffId {
            self.packings().insert(diff_id, packing);
        }
        Ok((upper, diff_id))
    }

    fn stage(&self, place: usize, root: Root, diff_ids: Vec<Digest>) -> Built {
        let mut config = self.stages.planned[place].1.config.clone();
        config.rootfs.diff_ids = diff_ids;
        Built { config, layers: Vec::new(), root }
    }

    fn run<'s>(&'s self, shop: &'s Workshop<'s>) -> Run<'s> {
        Run {
            is_in_image: true,
            shop,
            context: self.stages.context,
            epoch: self.stages.epoch,
            done: BTreeMap::new(),
            told: Records::default(),
            waiting: Waiting::default(),
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
    use crate::plan::{Plan, Request};
    use images::Platform;

    /// The lines of the commands that may run ahead, when the image tells of so many steps.
    fn ahead(text: &str, known: usize) -> Vec<usize> {
        let file = Dockerfile::parse(text.as_bytes()).unwrap();
        let request = Request {
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
