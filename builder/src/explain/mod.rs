//! `explain-dockerfile`: the steps that a Dockerfile will run, and the causes of poor reproducibility in it. Advice
//! before a build, which has no effect on builds.

mod files;
mod hazards;
mod rules;
mod shell;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::dockerfile::{Command, Dockerfile, DockerfileError, Instruction};
use crate::plan::{Base, Plan, PlanRequest};

pub(crate) use files::{CommitFiles, Files, FolderFiles};
pub(crate) use hazards::Hazard;

/// The most characters of an instruction that is shown whole.
const MAX_SHOWN: usize = 100;

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
    /// The same, cut: how it begins, and how many commands it calls.
    #[serde(skip)]
    pub(crate) shown: String,
    /// Why it is hard to reproduce.
    pub(crate) hazards: Vec<Hazard>,
}

impl Explanation {
    /// Explains the stages that the target needs.
    ///
    /// # Errors
    /// Those that a build would have.
    pub(crate) fn new(
        file: &Dockerfile,
        request: &PlanRequest,
        files: &dyn Files,
    ) -> Result<Self, DockerfileError> {
        let plan = Plan::new(file, request)?;
        let mut stages = Vec::new();
        // A stage begins with what the one that it is based on has set.
        let mut scenes: BTreeMap<usize, rules::Scene<'_>> = BTreeMap::new();
        for needed in plan.needed() {
            let written = file.stages.get(needed.stage);
            let base = match &needed.base {
                Base::Scratch => "scratch".to_owned(),
                Base::Image(name) => name.clone(),
                Base::Stage(earlier) => plan.name(*earlier),
            };
            let is_image = matches!(needed.base, Base::Image(_));
            let begun = match &needed.base {
                Base::Stage(earlier) => scenes.get(earlier).cloned(),
                _ => None,
            };
            let mut scene = begun.unwrap_or_else(|| rules::Scene::new(files));
            let steps = plan.instructions(needed.stage);
            let steps = steps.map(|located| Step {
                line: located.line,
                instruction: located.text.clone(),
                shown: shown(&located.text, &located.value),
                hazards: rules::of_instruction(&located.value, &located.text, &mut scene),
            });
            let steps = steps.collect();
            scenes.insert(needed.stage, scene);
            stages.push(Stage {
                name: plan.name(needed.stage),
                line: written.map(|stage| stage.line),
                hazards: if is_image { rules::of_base(&base) } else { Vec::new() },
                steps,
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
            *count.entry(hazard.rule.name).or_default() += 1;
        }
        count
    }
}

/// How an instruction begins, and how much of it there is.
fn shown(text: &str, instruction: &Instruction) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((cut, _)) = words.char_indices().nth(MAX_SHOWN) else { return words };
    let calls = match instruction {
        Instruction::Run(run) => match &run.command {
            Command::Shell(script) => shell::commands(script, &[]).len(),
            Command::Exec(_) => 1,
        },
        _ => 0,
    };
    let count = if calls > 1 { format!(" ({calls} commands)") } else { String::new() };
    format!("{}…{count}", &words[..cut])
}
