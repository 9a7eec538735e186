//! Doing what the plan says: bases are fetched and all is planned, then stages are built side by side; one waits for another at
//! the step that needs it. What is told of them stands in the order of the Dockerfile, whichever was done first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use attestations::provenance::LayerRecord;
use images::layer::AppliedRule;
use images::{Image, Store};

use super::add::GitTaken;
use super::ahead::Over;
use super::bases::{Base, Bases};
use super::config;
use super::copy::ContextTree;
use super::course::{Attempt, Course};
use super::environment;
use super::execute::{Built, Finished, Records, Run, Workshop, check_secrets};
use super::foretold::Foretold;
use super::graph::{self, Came, Turn, Waits};
use super::packing::Waiting;
use super::plan::{self, Plan};
use super::root::Root;
use super::step::{Action, What};
use crate::capture::Exchange;
use crate::error::{Error, Kind, Result, Told};
use crate::materials;
use crate::progress::{Label, SummaryStep};

/// What came of it.
pub struct Executed {
    /// The image, in the store.
    pub image: Image,
    /// Its layers, from the lowest.
    pub layers: Vec<LayerRecord>,
    /// Every exchange over the network.
    pub exchanges: Vec<Exchange>,
    /// The same with their headers, step by step in the order of asking.
    pub materials: Vec<materials::Step>,
    /// Why the list of exchanges may not be all, if so.
    pub unrecorded: Vec<String>,
    /// Which rules changed what.
    pub applied: Vec<AppliedRule>,
    /// The commits that files were added from.
    pub git: Vec<GitTaken>,
    /// The ids of the secrets that steps were told.
    pub secrets: BTreeSet<String>,
    /// The bases that were used.
    pub bases: Vec<Base>,
    /// Whether commands were run.
    pub runs: bool,
    /// What was done, and how long it took.
    pub steps: Vec<SummaryStep>,
}

/// All stages.
pub(super) struct Stages<'a> {
    /// For each stage in the plan's order, with a folder of its own for what its steps have mounted.
    pub(super) shops: &'a [Workshop<'a>],
    plan: &'a Plan<'a>,
    pub(super) context: &'a ContextTree,
    pub(super) epoch: i64,
    fetched: &'a BTreeMap<usize, Base>,
    pub(super) planned: &'a [PlannedStage<'a>],
    /// Where each stage stands in the plan, by its number.
    places: BTreeMap<usize, usize>,
    /// The places of the stages whose layers are the image's, from the lowest.
    chain: Vec<usize>,
    /// What may be done ahead.
    pub(super) course: Course<'a>,
    /// How many steps there are in all.
    total: usize,
    /// How many of them there are before each stage.
    before: Vec<usize>,
    /// Whether more than one stage has any.
    are_several: bool,
}

/// A stage that is under way.
struct Going<'a> {
    run: Run<'a>,
    built: Built,
    /// How many of its steps are done.
    done: usize,
}

/// Builds the plan's target, which should come to what is `foretold`, if anything is.
///
/// # Errors
/// The first step that fails, with its line; bases that cannot be had; a machine that refuses.
pub fn execute(
    shop: &Workshop<'_>,
    mut plan: Plan<'_>,
    context: &ContextTree,
    bases: &Bases<'_>,
    epoch: i64,
    foretold: Option<&Foretold>,
) -> Result<Executed> {
    // All bases are fetched and all stages planned before anything runs, so that mistakes show at once.
    let fetched = fetch(&mut plan, bases, shop.store)?;
    plan.check_arguments()?;
    let plan = &plan;
    let planned = plan_all(plan, &fetched, bases)?;
    // Only now is it known what the bases' ONBUILD adds.
    let runs = planned.iter().flat_map(|(_, stage)| &stage.steps).any(|step| step.is_run());
    if runs {
        shop.emulator.check()?;
    }
    planned
        .iter()
        .flat_map(|(_, stage)| &stage.steps)
        .try_for_each(|step| check_secrets(step, shop.secrets))?;
    let folders: Vec<PathBuf> =
        (0..planned.len()).map(|at| shop.scratch.join(format!("stage-{at}"))).collect();
    let shops: Vec<_> = folders.iter().map(|scratch| Workshop { scratch, ..*shop }).collect();
    let places = planned.iter().enumerate().map(|(at, (needed, _))| (needed.stage, at)).collect();
    let chain = chain(&planned, &places);
    let before: Vec<usize> = planned
        .iter()
        .scan(0, |count, (_, stage)| Some(std::mem::replace(count, *count + stage.steps.len())))
        .collect();
    let base = chain.first().and_then(|at| fetched.get(&planned[*at].0.stage));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let stages = Stages {
        course: Course::new(foretold, plan, &planned, &chain, (base, epoch), processors),
        shops: &shops,
        plan,
        context,
        epoch,
        fetched: &fetched,
        planned: &planned,
        places,
        chain,
        before,
        total: planned.iter().map(|(_, stage)| stage.steps.len()).sum(),
        are_several: planned.iter().filter(|(_, stage)| !stage.steps.is_empty()).count() > 1,
    };
    let stop = || shop.canceller.cancel();
    let finished = std::thread::scope(|scope| {
        let _over = Over(&stages.course.ahead);
        for _ in 0..processors.min(stages.course.count()) {
            scope.spawn(|| {
                stages.course.ahead.work(shop.canceller, &|number, own| stages.do_ahead(number, own))
            });
        }
        graph::in_order(stages.all(), processors, &stop, &|at, going, came| stages.go_on(at, going, came))
    });
    let finished = finished?.ok_or_else(|| Error::new(Kind::Bug, "stages wait for each other"))?;
    let (mut last, mut told) = (None, Records::default());
    for stage in finished {
        let stage = Arc::into_inner(stage).ok_or_else(|| Error::new(Kind::Bug, "a stage is still in use"))?;
        told.append(stage.told);
        last = Some(stage.built);
    }
    let mut target = last.ok_or_else(|| Error::new(Kind::Bug, "the plan has no stage"))?;
    target.config.created = Some(plan.created().to_owned());
    let (blobs, records): (Vec<_>, Vec<_>) = target.layers.into_iter().unzip();
    let image = Image::assemble(shop.store, &target.config, blobs).told()?;
    let bases = fetched.into_values().collect();
    Ok(Executed {
        image,
        layers: records,
        exchanges: told.exchanges,
        materials: told.materials,
        unrecorded: told.unrecorded,
        applied: told.applied,
        git: told.git,
        secrets: told.secrets,
        bases,
        runs,
        steps: told.steps,
    })
}

impl Stages<'_> {
    /// Every stage before it begins: it waits for the one that it starts from.
    fn all(&self) -> Vec<Waits<Option<Going<'_>>>> {
        let base = |needed: &plan::Needed| match needed.base {
            plan::Base::Stage(earlier) => self.places.get(&earlier).copied(),
            _ => None,
        };
        let all = self.planned.iter().map(|(needed, _)| base(needed).into_iter().collect());
        all.map(|needs| Waits { state: None, needs }).collect()
    }

    /// Takes a stage to its end, or to the first step that needs a stage which it has not got.
    fn go_on<'s>(
        &'s self,
        at: usize,
        going: Option<Going<'s>>,
        came: Came<Finished>,
    ) -> Result<Turn<Option<Going<'s>>, Finished>> {
        let busy = self.course.ahead.busy();
        let came = came.into_iter().map(|(at, stage)| (self.planned[at].0.stage, stage)).collect();
        let mut going = match going {
            None => self.begin(at, came)?,
            Some(mut going) => {
                going.run.done.extend(came);
                going
            }
        };
        let Going { run, built, done } = &mut going;
        let (_, planned) = &self.planned[at];
        for step in &planned.steps[*done..] {
            let missing = sources_of(&step.action).into_iter().filter(|stage| !run.done.contains_key(stage));
            let needs: BTreeSet<_> = missing.filter_map(|stage| self.places.get(&stage).copied()).collect();
            if !needs.is_empty() {
                return Ok(Turn::Waits(Waits { state: Some(going), needs }));
            }
            let (number, label) = (*done, self.label(at, *done));
            *done += 1;
            let performed = match self.attempt(at, number, built, &busy) {
                Some(Attempt::Done(_, performed, told)) => {
                    run.told.append(*told);
                    performed
                }
                Some(Attempt::Failed(_, error)) => return Err(error),
                Some(Attempt::Packed | Attempt::Unready) | None => run.perform(built, step, &label)?,
            };
            self.check(at, number, performed.diff_id());
            let performed = performed.pack(|diff_id| self.course.packed(at, number, diff_id));
            let has_layer = run.take(built, step, &label, performed)?;
            built.config.history.extend(self.plan.history(step, has_layer));
        }
        if at + 1 == self.planned.len() {
            // Nobody needs the target's files any more, so they go while its layers are still compressed.
            built.root = Root::default();
        }
        run.settle(built, 0)?;
        let Going { run, built, .. } = going;
        Ok(Turn::Done(Finished { built, told: run.told }))
    }

    /// What a step is called.
    pub(super) fn label(&self, at: usize, step: usize) -> Label {
        let stage = self.plan.name(self.planned[at].0.stage).to_string();
        let number = self.before[at] + step + 1;
        Label { number, total: self.total, stage, is_one_of_several: self.are_several }
    }

    /// The base of the image, if it has one.
    pub(super) fn base(&self) -> Option<&Base> {
        let lowest = self.chain.first()?;
        self.fetched.get(&self.planned[*lowest].0.stage)
    }

    /// A stage before its first step, with the one that it starts from.
    fn begin(&self, at: usize, done: BTreeMap<usize, Arc<Finished>>) -> Result<Going<'_>> {
        let shop = &self.shops[at];
        furnish(shop)?;
        let (needed, planned) = &self.planned[at];
        let run = Run {
            is_in_image: self.chain.binary_search(&at).is_ok(),
            shop,
            context: self.context,
            epoch: self.epoch,
            done,
            told: Records::default(),
            waiting: Waiting::default(),
        };
        let mut built = run.start(needed, self.fetched.get(&needed.stage))?;
        let (mut layers_of, history) = (built.config.rootfs.clone(), built.config.history.clone());
        built.config = planned.config.clone();
        layers_of.kind = "layers".to_owned();
        (built.config.rootfs, built.config.history) = (layers_of, history);
        Ok(Going { run, built, done: 0 })
    }
}

/// Makes a shop's folder, with what every command has mounted.
pub(super) fn furnish(Workshop { scratch, capture, .. }: &Workshop<'_>) -> Result<()> {
    let authority = (capture.ca_pem(), capture.ca_der());
    std::fs::create_dir(scratch)
        .and_then(|()| environment::write_mounted(scratch, authority, capture.is_replay()))
        .map_err(|cause| Error::io("writing into", scratch, cause))
}

/// The places of the target, the last, and of what it starts from: the lowest first.
fn chain(planned: &[PlannedStage<'_>], places: &BTreeMap<usize, usize>) -> Vec<usize> {
    let mut chain = Vec::new();
    let mut next = planned.len().checked_sub(1);
    while let Some(place) = next {
        chain.push(place);
        next = match planned[place].0.base {
            plan::Base::Stage(earlier) => places.get(&earlier).copied(),
            _ => None,
        };
    }
    chain.reverse();
    chain
}

/// The stages that a step takes files from.
pub(super) fn sources_of(action: &Action) -> Vec<usize> {
    match action {
        Action::Copy(copying) => copying.from.iter().copied().collect(),
        Action::Run(execution) => {
            let from = execution.mounts.iter().filter_map(|mounted| match &mounted.what {
                What::Bind { from, .. } => *from,
                _ => None,
            });
            from.collect()
        }
        _ => Vec::new(),
    }
}

/// Fetches the bases, and those that their ONBUILD needs.
fn fetch(plan: &mut Plan<'_>, bases: &Bases<'_>, store: &Store) -> Result<BTreeMap<usize, Base>> {
    let mut by_name: BTreeMap<String, Base> = BTreeMap::new();
    let mut by_stage: BTreeMap<usize, Base> = BTreeMap::new();
    loop {
        let missing = plan.needed().iter().filter(|needed| !by_stage.contains_key(&needed.stage));
        let missing: Vec<(usize, String)> = missing
            .filter_map(|needed| match &needed.base {
                plan::Base::Image(name) => Some((needed.stage, name.clone())),
                _ => None,
            })
            .collect();
        if missing.is_empty() {
            return Ok(by_stage);
        }
        for (stage, name) in missing {
            let base = match by_name.get(&name) {
                Some(known) => known.clone(),
                None => bases.get(&name, store)?,
            };
            plan.learn(stage, base.image.config())?;
            by_name.insert(name, base.clone());
            by_stage.insert(stage, base);
        }
    }
}

/// A needed stage with its steps.
pub(super) type PlannedStage<'p> = (&'p plan::Needed, plan::Planned);

fn plan_all<'p>(
    plan: &'p Plan<'_>,
    fetched: &BTreeMap<usize, Base>,
    bases: &Bases<'_>,
) -> Result<Vec<PlannedStage<'p>>> {
    let mut planned: Vec<PlannedStage<'p>> = Vec::new();
    for needed in plan.needed() {
        let stage = match (&needed.base, fetched.get(&needed.stage)) {
            (plan::Base::Stage(earlier), _) => {
                let base = planned.iter().find(|(other, _)| other.stage == *earlier);
                let (_, base) =
                    base.ok_or_else(|| Error::new(Kind::Bug, "a stage is planned before its base"))?;
                plan.steps_on(needed.stage, base)?
            }
            (plan::Base::Image(_), Some(base)) => {
                plan.steps(needed.stage, config::on_base(base.image.config()))?
            }
            _ => plan.steps(needed.stage, config::scratch(bases.platform))?,
        };
        planned.push((needed, stage));
    }
    Ok(planned)
}
