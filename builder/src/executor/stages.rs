//! The stages of one build with their plans and resources. Nothing here changes while they are built.

use std::collections::BTreeMap;

use super::environment;
use super::stage::Resources;
use super::steps::copy::ContextTree;
use crate::bases::Base;
use crate::error::{Error, Result};
use crate::plan::step::{Action, MountSource};
use crate::plan::{self, Plan};
use crate::progress::Label;

/// A needed stage with its steps.
pub(crate) type PlannedStage<'p> = (&'p plan::Needed, plan::Planned);

/// The stages of a build. A stage's *place* is its index in the plan, which is not its number in the Dockerfile.
pub(crate) struct Stages<'a> {
    /// The resources of each place, with a scratch folder of its own.
    pub(crate) stage_resources: &'a [Resources<'a>],
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) context: &'a ContextTree,
    /// The commit's time, in seconds since 1970.
    pub(crate) epoch: i64,
    /// The bases, by the number of the stage that starts from each.
    pub(crate) fetched: &'a BTreeMap<usize, Base>,
    pub(crate) planned: &'a [PlannedStage<'a>],
    /// The place of each stage, by its number.
    places: BTreeMap<usize, usize>,
    /// The places of the stages that make up the image, from the lowest.
    chain: Vec<usize>,
    /// The total number of steps.
    total: usize,
    /// The number of steps before those of each stage.
    before: Vec<usize>,
    /// Whether more than one stage has steps.
    are_several: bool,
}

impl<'a> Stages<'a> {
    /// The stages of a plan; `stage_resources` has one entry for each of `planned`.
    pub(crate) fn new(
        plan: &'a Plan<'a>,
        planned: &'a [PlannedStage<'a>],
        fetched: &'a BTreeMap<usize, Base>,
        stage_resources: &'a [Resources<'a>],
        context: &'a ContextTree,
        epoch: i64,
    ) -> Self {
        let places = planned.iter().enumerate().map(|(at, (needed, _))| (needed.stage, at)).collect();
        let before = planned
            .iter()
            .scan(0, |count, (_, stage)| Some(std::mem::replace(count, *count + stage.steps.len())));
        Self {
            stage_resources,
            plan,
            context,
            epoch,
            fetched,
            planned,
            chain: chain(planned, &places),
            before: before.collect(),
            total: planned.iter().map(|(_, stage)| stage.steps.len()).sum(),
            are_several: planned.iter().filter(|(_, stage)| !stage.steps.is_empty()).count() > 1,
            places,
        }
    }

    /// The place of the stage with this number, if it is needed.
    pub(crate) fn place(&self, stage: usize) -> Option<usize> {
        self.places.get(&stage).copied()
    }

    /// The places of the stages that make up the image, from the lowest.
    pub(crate) fn chain(&self) -> &[usize] {
        &self.chain
    }

    /// The base of the image, if it has one.
    pub(crate) fn base(&self) -> Option<&'a Base> {
        let lowest = self.chain.first()?;
        self.fetched.get(&self.planned[*lowest].0.stage)
    }

    /// The label of a step in reports.
    pub(crate) fn label(&self, at: usize, step: usize) -> Label {
        let stage = self.plan.name(self.planned[at].0.stage).to_string();
        let number = self.before[at] + step + 1;
        Label { number, total: self.total, stage, is_one_of_several: self.are_several }
    }
}

/// The places of the target, which is the last, and of the stages that it is based on; the lowest first.
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

/// Creates the scratch folder of a stage or step, with files that direct programs of this machine to the recorder.
/// Commands get copies of their own, since a step's changes must not reach the next one.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn furnish(Resources { scratch, capture, .. }: &Resources<'_>) -> Result<()> {
    let authority = (capture.ca_pem(), capture.ca_der());
    std::fs::create_dir(scratch)
        .and_then(|()| environment::write_mounted(scratch, authority, capture.is_replay()))
        .map_err(|cause| Error::io("writing into", scratch, cause))
}

/// The stages that a step takes files from, by number.
pub(crate) fn sources_of(action: &Action) -> Vec<usize> {
    match action {
        Action::Copy(copying) => copying.from.iter().copied().collect(),
        Action::Run(execution) => {
            let from = execution.mounts.iter().filter_map(|mounted| match &mounted.what {
                MountSource::Bind { from, .. } => *from,
                _ => None,
            });
            from.collect()
        }
        _ => Vec::new(),
    }
}
