//! Doing what the plan says: bases are fetched and all is planned, then stages that do not need each other are built side by
//! side. What is told of them stands in the order of the Dockerfile, whichever was done first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attestations::provenance::LayerRecord;
use images::layer::Fired;
use images::{Image, Store};

use super::add::GitTaken;
use super::bases::{Base, Bases};
use super::config::{self, Config};
use super::copy::ContextTree;
use super::environment;
use super::execute::{Finished, Records, Run, Workshop, check_secrets};
use super::graph::{self, Done};
use super::packing::Waiting;
use super::plan::{self, Action, Plan, What};
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
    pub fired: Vec<Fired>,
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
struct Stages<'a> {
    shop: &'a Workshop<'a>,
    plan: &'a Plan<'a>,
    context: &'a ContextTree,
    epoch: i64,
    fetched: &'a BTreeMap<usize, Base>,
    planned: &'a [PlannedStage<'a>],
    /// The stages whose layers are the image's.
    in_image: BTreeSet<usize>,
}

/// Builds the plan's target.
///
/// # Errors
/// The first step that fails, with its line; bases that cannot be had; a machine that refuses.
pub fn execute(
    shop: &Workshop<'_>,
    plan: &Plan<'_>,
    context: &ContextTree,
    bases: &Bases<'_>,
    epoch: i64,
) -> Result<Executed> {
    // All bases are fetched and all stages planned before anything runs, so that mistakes show at once.
    let fetched = fetch(plan, bases, shop.store)?;
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
    let in_image = in_image(&planned);
    let stages = Stages { shop, plan, context, epoch, fetched: &fetched, planned: &planned, in_image };
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let stop = || shop.canceller.cancel();
    let finished = graph::in_order(&stages.needs(), workers, &stop, &|at, done| stages.build(at, done))?;
    let (mut last, mut told) = (None, Records::default());
    for stage in finished {
        let stage = Arc::into_inner(stage).ok_or_else(|| Error::new(Kind::Bug, "a stage is still in use"))?;
        told.exchanges.extend(stage.told.exchanges);
        told.materials.extend(stage.told.materials);
        told.unrecorded.extend(stage.told.unrecorded);
        told.fired.extend(stage.told.fired);
        told.steps.extend(stage.told.steps);
        told.git.extend(stage.told.git);
        told.secrets.extend(stage.told.secrets);
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
        fired: told.fired,
        git: told.git,
        secrets: told.secrets,
        bases,
        runs,
        steps: told.steps,
    })
}

impl Stages<'_> {
    /// Which stages each one needs, by their places in the plan.
    fn needs(&self) -> Vec<BTreeSet<usize>> {
        let place = |stage: &usize| self.planned.iter().position(|(needed, _)| needed.stage == *stage);
        let needs = |(needed, planned): &PlannedStage<'_>| {
            let base = match needed.base {
                plan::Base::Stage(earlier) => Some(earlier),
                _ => None,
            };
            let others = planned.steps.iter().flat_map(|step| sources_of(&step.action));
            base.into_iter().chain(others).filter_map(|stage| place(&stage)).collect()
        };
        self.planned.iter().map(needs).collect()
    }

    /// Builds the stage at a place of the plan, with a folder of its own for what its steps have mounted.
    fn build(&self, at: usize, done: &Done<Finished>) -> Result<Finished> {
        let scratch = self.shop.scratch.join(format!("stage-{at}"));
        let making = |cause| Error::io("writing into", &scratch, cause);
        std::fs::create_dir(&scratch).map_err(making)?;
        let capture = self.shop.capture;
        environment::write_mounted(&scratch, (capture.ca_pem(), capture.ca_der()), capture.is_replay())
            .map_err(making)?;
        let shop = Workshop { scratch: &scratch, ..*self.shop };
        let finished = self
            .planned
            .iter()
            .zip(done)
            .filter_map(|((needed, _), stage)| stage.as_ref().map(|stage| (needed.stage, stage.clone())));
        let (needed, planned) = &self.planned[at];
        let mut run = Run {
            is_in_image: self.in_image.contains(&needed.stage),
            shop: &shop,
            context: self.context,
            epoch: self.epoch,
            done: finished.collect(),
            told: Records::default(),
            waiting: Waiting::default(),
        };
        let mut stage = run.start(needed, self.fetched.get(&needed.stage))?;
        let name = self.plan.name(needed.stage);
        let (mut layers_of, history) = (stage.config.rootfs.clone(), stage.config.history.clone());
        stage.config = planned.config.clone();
        layers_of.kind = "layers".to_owned();
        (stage.config.rootfs, stage.config.history) = (layers_of, history);
        let steps = |stages: &[PlannedStage<'_>]| stages.iter().map(|(_, it)| it.steps.len()).sum::<usize>();
        let (before, total) = (steps(&self.planned[..at]), steps(self.planned));
        let working = self.planned.iter().filter(|(_, planned)| !planned.steps.is_empty()).count();
        for (number, step) in planned.steps.iter().enumerate() {
            let label = Label {
                number: before + number + 1,
                total,
                stage: name.to_string(),
                is_one_of_several: working > 1,
            };
            let has_layer = run.step(&mut stage, step, &label)?;
            stage.config.history.extend(self.plan.history(step, has_layer));
        }
        run.settle(&mut stage, 0)?;
        Ok(Finished { built: stage, told: run.told })
    }
}

/// The target, the last, and what it starts from, by their numbers.
fn in_image(planned: &[PlannedStage<'_>]) -> BTreeSet<usize> {
    let mut all = BTreeSet::new();
    let mut next = planned.last();
    while let Some((needed, _)) = next {
        all.insert(needed.stage);
        next = match needed.base {
            plan::Base::Stage(earlier) => planned.iter().find(|(needed, _)| needed.stage == earlier),
            _ => None,
        };
    }
    all
}

/// The stages that a step takes files from.
fn sources_of(action: &Action) -> Vec<usize> {
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

fn fetch(plan: &Plan<'_>, bases: &Bases<'_>, store: &Store) -> Result<BTreeMap<usize, Base>> {
    let mut by_name: BTreeMap<&str, Base> = BTreeMap::new();
    let mut by_stage = BTreeMap::new();
    for needed in plan.needed() {
        if let plan::Base::Image(name) = &needed.base {
            let base = match by_name.get(name.as_str()) {
                Some(known) => known.clone(),
                None => bases.get(name, store)?,
            };
            by_name.insert(name, base.clone());
            by_stage.insert(needed.stage, base);
        }
    }
    Ok(by_stage)
}

/// A needed stage with its steps.
type PlannedStage<'p> = (&'p plan::Needed, plan::Planned);

fn plan_all<'p>(
    plan: &'p Plan<'_>,
    fetched: &BTreeMap<usize, Base>,
    bases: &Bases<'_>,
) -> Result<Vec<PlannedStage<'p>>> {
    let mut configs: BTreeMap<usize, Config> = BTreeMap::new();
    let mut planned = Vec::new();
    for needed in plan.needed() {
        let from = match (&needed.base, fetched.get(&needed.stage)) {
            (plan::Base::Stage(earlier), _) => configs.get(earlier).cloned(),
            (plan::Base::Image(_), Some(base)) => Some(config::on_base(base.image.config())),
            _ => None,
        };
        let scratch = || config::scratch(bases.platform);
        let stage = plan.steps(needed.stage, from.unwrap_or_else(scratch))?;
        configs.insert(needed.stage, stage.config.clone());
        planned.push((needed, stage));
    }
    Ok(planned)
}
