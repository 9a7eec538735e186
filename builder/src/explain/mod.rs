//! `explain-dockerfile`: the steps that a Dockerfile will run, and the causes of poor reproducibility in it. Advice
//! before a build, which has no effect on builds.

mod rules;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::dockerfile::{Dockerfile, DockerfileError};
use crate::plan::{Base, Plan, PlanRequest};

pub(crate) use rules::Hazard;

/// A Dockerfile as it will be built.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// How many stages the file has.
    pub(crate) stages_in_file: usize,
    /// The stages that the target needs, in the order in which they are built.
    pub(crate) stages: Vec<Stage>,
}

/// One stage.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    /// Its name or number.
    pub(crate) name: String,
    /// Its line; none for an image that files are copied from.
    pub(crate) line: Option<usize>,
    /// Its base.
    pub(crate) base: String,
    /// Why the base is hard to reproduce.
    pub(crate) hazards: Vec<Hazard>,
    /// Its instructions.
    pub(crate) steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    /// Its line.
    pub(crate) line: usize,
    /// As written, continuation lines joined.
    pub(crate) instruction: String,
    /// Why it is hard to reproduce.
    pub(crate) hazards: Vec<Hazard>,
}

impl Explanation {
    /// Explains the stages that the target needs.
    ///
    /// # Errors
    /// Those that a build would have.
    pub(crate) fn new(file: &Dockerfile, request: &PlanRequest) -> Result<Self, DockerfileError> {
        let plan = Plan::new(file, request)?;
        let mut stages = Vec::new();
        for needed in plan.needed() {
            let written = file.stages.get(needed.stage);
            let base = match &needed.base {
                Base::Scratch => "scratch".to_owned(),
                Base::Image(name) => name.clone(),
                Base::Stage(earlier) => plan.name(*earlier),
            };
            let is_image = matches!(needed.base, Base::Image(_));
            let steps = plan.instructions(needed.stage).map(|located| Step {
                line: located.line,
                instruction: located.text.clone(),
                hazards: rules::of_instruction(&located.value),
            });
            stages.push(Stage {
                name: plan.name(needed.stage),
                line: written.map(|stage| stage.line),
                hazards: if is_image { rules::of_base(&base) } else { Vec::new() },
                steps: steps.collect(),
                base,
            });
        }
        Ok(Self { stages_in_file: file.stages.len(), stages })
    }

    /// How often each rule applies.
    pub(crate) fn count(&self) -> BTreeMap<&'static str, usize> {
        let mut count = BTreeMap::new();
        let of_steps = self.stages.iter().flat_map(|stage| &stage.steps).flat_map(|step| &step.hazards);
        for hazard in self.stages.iter().flat_map(|stage| &stage.hazards).chain(of_steps) {
            *count.entry(hazard.rule).or_default() += 1;
        }
        count
    }
}
