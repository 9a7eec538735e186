//! Running the steps of a rebuild side by side. The image that is repeated says what each step came to, so a command need not wait for
//! those before it: it runs on the layers that the image has below it. None of that is believed. What came of a command
//! counts once the steps before it have come, one by one, to exactly these layers; otherwise it is thrown away, and the command
//! runs again on what they did come to.
//!
//! The image's layers are compressed here again meanwhile, as those of the steps have to be. That counts for a step that comes to the
//! same layer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use attestations::Digest;
use images::layer::{Compression, Limits, Packing, repack, unpack};
use images::{Descriptor, Image, Store};
use sandbox::{Canceller, Upper};

use super::add::name_of;
use super::ahead::{Ahead, Busy};
use super::bases::Base;
use super::execute::{Built, Performed, Records, Run, Workshop};
use super::failures::machine;
use super::packing::Waiting;
use super::plan::{Action, Plan, Step};
use super::root::Root;
use super::stages::{PlannedStage, Stages, furnish, sources_of};
use crate::error::{Error, Kind, Result, Told};
use crate::progress::Event;

/// The image that a build repeats, with its layers.
#[derive(Debug, Clone)]
pub struct Foretold {
    /// Where they are.
    pub store: Store,
    /// What it is.
    pub image: Image,
}

impl Foretold {
    /// The image with a digest, if it is in a store with all its layers.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn at_hand(store: Store, digest: &Digest) -> Result<Option<Self>> {
        let image = match Image::load(&store, digest) {
            Err(images::Error::NotFound { .. }) => return Ok(None),
            found => found.told()?,
        };
        let is_here = |layer: &Descriptor| store.path_of(&layer.digest).is_file();
        Ok(image.layers().iter().all(is_here).then_some(Self { store, image }))
    }
}

/// What came of something that was done ahead.
pub(super) enum Attempt {
    /// A command ran.
    Done(Performed, Box<Records>),
    /// It failed, and so it would on the same layers again.
    Failed(Error),
    /// A layer is compressed, or will be.
    Packed(Packing),
    /// It could not be done: nothing is known of it.
    Unready,
}

/// What may be done ahead.
pub(super) struct Course<'a> {
    foretold: Option<&'a Foretold>,
    /// Commands in the order of the Dockerfile, then layers in theirs.
    tasks: Vec<Task>,
    /// How many of the foretold layers should lie below a step, by the stage's place and the step's number in it.
    below: BTreeMap<(usize, usize), usize>,
    /// The foretold layers that commands stood on already.
    folders: Vec<Mutex<Option<Arc<Upper>>>>,
    /// How many of them are the base's.
    of_base: usize,
    pub(super) ahead: Ahead<Attempt>,
}

enum Task {
    Command(Command),
    /// The layer with this number is to be compressed.
    Packing(usize),
}

/// A command that may run ahead.
#[derive(Clone, Copy)]
struct Command {
    place: usize,
    step: usize,
    /// How many layers lie below it.
    below: usize,
}

impl<'a> Course<'a> {
    /// `chain` are the places of the stages whose layers are the image's, from the lowest.
    pub(super) fn new(
        foretold: Option<&'a Foretold>,
        plan: &Plan<'_>,
        planned: &[PlannedStage<'_>],
        chain: &[usize],
        base: Option<&Base>,
        processors: usize,
    ) -> Self {
        let of_base = base.map_or(0, |base| base.image.diff_ids().len());
        let below = foretold.map(|foretold| below(foretold, plan, planned, chain, base)).unwrap_or_default();
        let layers = foretold.map_or(0, |foretold| foretold.image.layers().len());
        // Where the image is of another base, nothing is known of any layer.
        let own = if below.is_empty() { layers } else { of_base };
        let commands = commands(&below, planned, chain).into_iter().map(Task::Command);
        let tasks: Vec<Task> = commands.chain((own..layers).map(Task::Packing)).collect();
        Self {
            foretold,
            ahead: Ahead::new(tasks.len(), processors),
            tasks,
            below,
            folders: (0..layers).map(|_| Mutex::default()).collect(),
            of_base,
        }
    }

    /// How many things may be done ahead.
    pub(super) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// The task of a step, if it has one.
    fn task_of(&self, place: usize, step: usize) -> Option<usize> {
        let is_it = |task: &Task| match task {
            Task::Command(command) => (command.place, command.step) == (place, step),
            Task::Packing(_) => false,
        };
        self.tasks.iter().position(is_it)
    }

    /// What was compressed ahead of the layer that a step came to.
    pub(super) fn packed(&self, diff_id: &Digest) -> Option<Packing> {
        let diff_ids = self.foretold?.image.diff_ids();
        let is_it =
            |task: &Task| matches!(task, Task::Packing(number) if diff_ids.get(*number) == Some(diff_id));
        match self.ahead.take(self.tasks.iter().position(is_it)?) {
            Some(Attempt::Packed(packing)) => Some(packing),
            _ => None,
        }
    }

    /// Whether the steps so far came to what was foretold.
    fn is_right(&self, place: usize, step: usize, diff_ids: &[Digest]) -> bool {
        let layers = self.foretold.map_or(&[][..], |foretold| foretold.image.diff_ids());
        let below = self.below.get(&(place, step)).and_then(|below| layers.get(..*below));
        below == Some(diff_ids)
    }

    fn foretold(&self) -> Result<&'a Foretold> {
        self.foretold.ok_or_else(|| Error::new(Kind::Bug, "something is done ahead and nothing was foretold"))
    }

    /// The folder of a foretold layer.
    fn folder(&self, number: usize, shop: &Workshop<'_>) -> Result<Arc<Upper>> {
        let Foretold { store, image } = self.foretold()?;
        let mut folder = self.folders[number].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upper) = &*folder {
            return Ok(upper.clone());
        }
        let upper = shop.host.folder().map_err(machine)?;
        unpack(store, &image.layers()[number], &image.diff_ids()[number], upper.path(), Limits::default())
            .told()?;
        Ok(folder.insert(Arc::new(upper)).clone())
    }
}

impl<'a> Stages<'a> {
    /// What came of a step that ran ahead, if it did and counts. Once it is seen that what was foretold is wrong, all that went on from it
    /// is ended.
    pub(super) fn attempt(
        &self,
        place: usize,
        step: usize,
        stage: &Built,
        busy: &Busy<'_, Attempt>,
    ) -> Option<Attempt> {
        let course = &self.course;
        let is_right = course.is_right(place, step, &stage.config.rootfs.diff_ids);
        match course.task_of(place, step) {
            Some(task) if is_right => course.ahead.claim(task, busy),
            _ => {
                if !is_right && self.chain.contains(&place) {
                    self.abandon();
                }
                None
            }
        }
    }

    fn abandon(&self) {
        for number in self.course.ahead.abandon(0) {
            let Task::Command(Command { place, step: index, .. }) = self.course.tasks[number] else {
                continue;
            };
            let (step, label) = (&self.planned[place].1.steps[index], self.label(place, index));
            // It asks for the same again, and is answered from the beginning.
            self.shops[place].capture.again(&name_of(step));
            self.shops[place].session.tell(&Event::StepDropped { label: &label, line: step.line });
        }
    }

    /// Does one of the course's tasks.
    pub(super) fn do_ahead(&self, number: usize, canceller: &Canceller) -> Attempt {
        let done = match self.course.tasks[number] {
            Task::Command(command) => self.run_ahead(command, canceller),
            Task::Packing(layer) => self.pack_ahead(layer, canceller).map(Attempt::Packed),
        };
        done.unwrap_or_else(|cause| {
            if !canceller.is_cancelled() {
                let message = format!("of the image that is repeated, nothing can be done ahead: {cause}");
                self.shops[0].session.tell(&Event::Warning { message: &message, path: None });
            }
            Attempt::Unready
        })
    }

    fn run_ahead(&self, command: Command, canceller: &Canceller) -> Result<Attempt> {
        let Command { place, step, .. } = command;
        let scratch = self.shops[place].scratch.with_extension(format!("ahead-{step}"));
        let shop = Workshop { scratch: &scratch, canceller, ..self.shops[place] };
        let stage = self.ground(command, &shop)?;
        let mut run = Run {
            is_in_image: true,
            shop: &shop,
            context: self.context,
            epoch: self.epoch,
            done: BTreeMap::new(),
            told: Records::default(),
            waiting: Waiting::default(),
        };
        let done = run.perform(&stage, &self.planned[place].1.steps[step], &self.label(place, step));
        Ok(match done {
            Ok(performed) => Attempt::Done(performed, Box::new(run.told)),
            Err(error) => Attempt::Failed(error),
        })
    }

    fn pack_ahead(&self, number: usize, canceller: &Canceller) -> Result<Packing> {
        let (Foretold { store, image }, into) = (self.course.foretold()?, self.shops[0].store);
        let layer = (store, &image.layers()[number], &image.diff_ids()[number]);
        let stop = || canceller.is_cancelled();
        repack(layer, (into, Compression::Gzip), Limits::default(), &stop).told()
    }

    /// The stage as it should be before a command.
    fn ground(&self, Command { place, below, .. }: Command, shop: &Workshop<'_>) -> Result<Built> {
        furnish(shop)?;
        let mut root = match self.base() {
            Some(base) => Root::of_base(shop.cache.lower_dirs(shop.store, &base.image).told()?),
            None => Root::default(),
        };
        for layer in self.course.of_base..below {
            root.add_written(self.course.folder(layer, shop)?);
        }
        let mut config = self.planned[place].1.config.clone();
        config.rootfs.diff_ids = self.course.foretold()?.image.diff_ids()[..below].to_vec();
        Ok(Built { config, layers: Vec::new(), root })
    }
}

/// How many of the image's layers lie below each step, for as long as its history tells of the same base and the same steps.
fn below(
    Foretold { image, .. }: &Foretold,
    plan: &Plan<'_>,
    planned: &[PlannedStage<'_>],
    chain: &[usize],
    base: Option<&Base>,
) -> BTreeMap<(usize, usize), usize> {
    let (layers, history) = base.map_or((&[][..], &[][..]), |Base { image, .. }| {
        (image.diff_ids(), image.config().history.as_slice())
    });
    let mut all = BTreeMap::new();
    let mut below = layers.len();
    let Some(mut told) = image.config().history.get(history.len()..) else { return all };
    if image.diff_ids().get(..below) != Some(layers) {
        return all;
    }
    for &place in chain {
        for (number, step) in planned[place].1.steps.iter().enumerate() {
            all.insert((place, number), below);
            let Some(own) = plan.history(step, true) else { continue };
            match told.split_first() {
                Some((next, rest)) if next.created_by == own.created_by => {
                    below += usize::from(!next.empty_layer);
                    told = rest;
                }
                _ => return all,
            }
            if below > image.diff_ids().len() {
                return all;
            }
        }
    }
    all
}

/// The commands that are worth running ahead, and may be: another one comes before them, and nothing but layers and the record is
/// told to them. A secret is told to nothing that stands on layers which nobody made here; what a stage gives is only known once it
/// is done; and of several steps that the record calls by one name, the answers belong to the first that asks.
fn commands(
    below: &BTreeMap<(usize, usize), usize>,
    planned: &[PlannedStage<'_>],
    chain: &[usize],
) -> Vec<Command> {
    let mut names = BTreeMap::<String, usize>::new();
    for step in planned.iter().flat_map(|(_, stage)| &stage.steps) {
        *names.entry(name_of(step)).or_default() += 1;
    }
    let may = |step: &Step| match &step.action {
        Action::Run(execution) => {
            execution.secrets.is_empty() && sources_of(&step.action).is_empty() && names[&name_of(step)] == 1
        }
        _ => false,
    };
    let steps =
        chain.iter().flat_map(|&place| planned[place].1.steps.iter().enumerate().map(move |it| (place, it)));
    let mut found = Vec::new();
    let mut is_first = true;
    for (place, (number, step)) in steps.filter(|(_, (_, step))| step.is_run()) {
        if let (false, true, Some(below)) = (is_first, may(step), below.get(&(place, number))) {
            found.push(Command { place, step: number, below: *below });
        }
        is_first = false;
    }
    found
}
