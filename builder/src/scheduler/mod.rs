//! Carries out a plan: fetches the bases, plans all stages, and then builds the stages in parallel. A stage waits for
//! another only at the step that needs it. Reports keep the order of the Dockerfile, whichever stage finished first.

mod graph;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use attestations::provenance::LayerRecord;
use images::layer::AppliedRule;
use images::{Image, Store};

use crate::bases::{Base, Bases};
use crate::error::{Error, Kind, Result};
use crate::executor::compression::PendingLayers;
use crate::executor::stage::{
    FinishedStage, Resources, StageRun, StageState, StepReports, check_secrets, check_sources,
};
use crate::executor::stage_files::StageFiles;
use crate::executor::stages::{PlannedStage, Stages, furnish, sources_of};
use crate::executor::steps::add::GitTaken;
use crate::executor::steps::copy::ContextTree;
use crate::executor::survey::{Downloads, Survey};
use crate::packages::{self, Inventory};
use crate::plan::{self, Plan, config};
use crate::progress::SummaryStep;
use crate::scheduler::graph::{Results, Turn, Waits};
use crate::speculation::reference::ReferenceImage;
use crate::speculation::tasks::AbandonOnDrop;
use crate::speculation::{Attempt, Speculation};

/// The result of a build.
pub(crate) struct Executed {
    /// The image, in the store.
    pub(crate) image: Image,
    /// Its layers, from the lowest.
    pub(crate) layers: Vec<LayerRecord>,
    /// What its files say of packages.
    pub(crate) inventory: Inventory,
    /// The recorded exchanges of the steps with the network, in the order of their requests.
    pub(crate) responses: Vec<recorder::StepExchanges>,
    /// Why the list of exchanges may be incomplete, if so.
    pub(crate) unrecorded: Vec<String>,
    /// The normalisation rules that changed something.
    pub(crate) applied: Vec<AppliedRule>,
    /// The commits that files were added from.
    pub(crate) git: Vec<GitTaken>,
    /// The ids of the secrets that steps used.
    pub(crate) secrets: BTreeSet<String>,
    /// The bases that were used.
    pub(crate) bases: Vec<Base>,
    /// Whether commands were run.
    pub(crate) runs: bool,
    /// The steps with their durations.
    pub(crate) steps: Vec<SummaryStep>,
}

/// A stage that is being built.
struct StageInProgress<'a> {
    run: StageRun<'a>,
    built: StageState,
    /// How many of its steps are done.
    done: usize,
}

/// Builds the plan's target. If there is a reference image, commands run ahead on its layers.
///
/// # Errors
/// The first step that fails, with its line; bases that cannot be fetched or built upon; missing secrets; a machine
/// that cannot run the steps.
pub(crate) fn execute(
    resources: &Resources<'_>,
    mut plan: Plan<'_>,
    context: &ContextTree,
    bases: &Bases<'_>,
    epoch: i64,
    reference_image: Option<&ReferenceImage>,
) -> Result<Executed> {
    // All bases are fetched and all stages planned before anything runs, so that mistakes show at once.
    let fetched = fetch(&mut plan, bases, resources.store);
    // Only the bases show what their ONBUILD names. A name that is misspelt may be why one could not be fetched.
    bases.refuse_unused(&plan.bases())?;
    let fetched = fetched?;
    plan.check_arguments()?;
    let plan = &plan;
    let planned = plan_all(plan, &fetched, bases)?;
    // A base's ONBUILD may add commands, so this is only known now.
    let runs = planned.iter().flat_map(|(_, stage)| &stage.steps).any(|step| step.is_run());
    if runs {
        resources.emulator.check()?;
    }
    planned.iter().flat_map(|(_, stage)| &stage.steps).try_for_each(|step| {
        check_secrets(step, resources.secrets)?;
        check_sources(step, context)
    })?;
    let folders: Vec<PathBuf> =
        (0..planned.len()).map(|at| resources.scratch.join(format!("stage-{at}"))).collect();
    let stage_resources: Vec<_> = folders.iter().map(|scratch| Resources { scratch, ..*resources }).collect();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let stages = Stages::new(plan, &planned, &fetched, &stage_resources, context, epoch);
    let scheduler = Scheduler {
        stages: &stages,
        speculation: Speculation::new(reference_image, &stages, processors),
        downloads: Mutex::default(),
    };
    let speculation = &scheduler.speculation;
    let stop = || resources.canceller.cancel();
    let finished = std::thread::scope(|scope| {
        let _over = AbandonOnDrop(&speculation.pool);
        for _ in 0..processors.min(speculation.count()) {
            scope.spawn(|| {
                speculation.pool.work(resources.canceller, &|number, own| speculation.run_task(number, own))
            });
        }
        graph::in_order(scheduler.all(), processors, &stop, &|at, going, results| {
            scheduler.go_on(at, going, results)
        })
    });
    let finished = finished?.ok_or_else(|| Error::new(Kind::Bug, "stages wait for each other"))?;
    let (mut last, mut reports) = (None, StepReports::default());
    let mut inventory = Inventory::default();
    for stage in finished {
        let stage = Arc::into_inner(stage).ok_or_else(|| Error::new(Kind::Bug, "a stage is still in use"))?;
        reports.append(stage.reports);
        inventory = stage.inventory;
        last = Some(stage.built);
    }
    let mut target = last.ok_or_else(|| Error::new(Kind::Bug, "the plan has no stage"))?;
    target.config.created = Some(plan.created().to_owned());
    let (blobs, records): (Vec<_>, Vec<_>) = target.layers.into_iter().unzip();
    let image = Image::assemble(resources.store, &target.config, blobs)?;
    let bases = fetched.into_values().collect();
    Ok(Executed {
        image,
        layers: records,
        inventory,
        responses: reports.responses,
        unrecorded: reports.unrecorded,
        applied: reports.applied,
        git: reports.git,
        secrets: reports.secrets,
        bases,
        runs,
        steps: reports.steps,
    })
}

/// The stages of a build while it runs.
struct Scheduler<'a> {
    stages: &'a Stages<'a>,
    /// The early tasks.
    speculation: Speculation<'a>,
    /// What the finished stages fetched.
    downloads: Mutex<Downloads>,
}

impl Scheduler<'_> {
    /// Every stage before it begins: it waits for the stage that it is based on.
    fn all(&self) -> Vec<Waits<Option<StageInProgress<'_>>>> {
        let base = |needed: &plan::Needed| match needed.base {
            plan::Base::Stage(earlier) => self.stages.place(earlier),
            _ => None,
        };
        let all = self.stages.planned.iter().map(|(needed, _)| base(needed).into_iter().collect());
        all.map(|needs| Waits { state: None, needs }).collect()
    }

    /// Runs a stage to its end, or to the first step that needs a stage which is not done.
    fn go_on<'s>(
        &'s self,
        at: usize,
        going: Option<StageInProgress<'s>>,
        results: Results<FinishedStage>,
    ) -> Result<Turn<Option<StageInProgress<'s>>, FinishedStage>> {
        let processor = self.speculation.pool.processor();
        let results =
            results.into_iter().map(|(at, stage)| (self.stages.planned[at].0.stage, stage)).collect();
        let mut going = match going {
            None => self.begin(at, results)?,
            Some(mut going) => {
                going.run.done.extend(results);
                going
            }
        };
        let StageInProgress { run, built, done } = &mut going;
        let (_, planned) = &self.stages.planned[at];
        for step in &planned.steps[*done..] {
            let missing = sources_of(&step.action).into_iter().filter(|stage| !run.done.contains_key(stage));
            let needs: BTreeSet<_> = missing.filter_map(|stage| self.stages.place(stage)).collect();
            if !needs.is_empty() {
                return Ok(Turn::Waits(Waits { state: Some(going), needs }));
            }
            let (number, label) = (*done, self.stages.label(at, *done));
            *done += 1;
            let result_of_step = match self.speculation.attempt(at, number, built, &processor) {
                Some(Attempt::Done(_, result_of_step, reports)) => {
                    run.reports.append(*reports);
                    result_of_step
                }
                Some(Attempt::Failed(_, error)) => return Err(error),
                Some(Attempt::Packed | Attempt::Unready) | None => run.perform(built, step, &label)?,
            };
            self.speculation.check(at, number, result_of_step.diff_id());
            let result_of_step =
                result_of_step.pack(|diff_id| self.speculation.compressed_early(at, number, diff_id));
            let has_layer = run.take(built, step, &label, result_of_step)?;
            built.config.history.extend(self.stages.plan.history(step, has_layer));
        }
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        downloads.add(&packages::fetched(&run.reports.responses));
        let mut inventory = Inventory::default();
        if at + 1 == self.stages.planned.len() {
            // All that the target needs is done, so everything was fetched by now.
            let survey = Survey::begin(run.resources, &built.root, std::mem::take(&mut downloads))?;
            // No later stage needs the target's files, so they are removed while its layers are still being
            // compressed.
            built.root = StageFiles::default();
            run.settle(built, 0)?;
            inventory = survey.finish()?;
        } else {
            drop(downloads);
            run.settle(built, 0)?;
        }
        let StageInProgress { run, built, .. } = going;
        Ok(Turn::Done(FinishedStage { built, reports: run.reports, inventory }))
    }

    /// A stage before its first step, with the finished stages that it needs.
    fn begin(&self, at: usize, done: BTreeMap<usize, Arc<FinishedStage>>) -> Result<StageInProgress<'_>> {
        let resources = &self.stages.stage_resources[at];
        furnish(resources)?;
        let (needed, planned) = &self.stages.planned[at];
        let run = StageRun {
            is_in_image: self.stages.chain().binary_search(&at).is_ok(),
            resources,
            context: self.stages.context,
            epoch: self.stages.epoch,
            done,
            reports: StepReports::default(),
            waiting: PendingLayers::default(),
        };
        let mut built = run.start(needed, self.stages.fetched.get(&needed.stage))?;
        let (mut layers_of, history) = (built.config.rootfs.clone(), built.config.history.clone());
        built.config = planned.config.clone();
        layers_of.kind = "layers".to_owned();
        (built.config.rootfs, built.config.history) = (layers_of, history);
        Ok(StageInProgress { run, built, done: 0 })
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
