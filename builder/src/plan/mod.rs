//! Plans a build from a parsed Dockerfile: the stages that the target needs, and each stage's steps with every
//! variable expanded. Pure: nothing is run, fetched or looked up.

pub(crate) mod config;
pub(crate) mod platform;
mod stage;
pub(crate) mod step;

use std::collections::{BTreeMap, BTreeSet};

use images::Platform;
use recorder::StepId;

use crate::dockerfile::{Copy, Dockerfile, DockerfileError, Instruction, Located, Problem, expand};
use crate::plan::config::{Config, History};
use crate::plan::stage::{Argument, StageExpansion};
use crate::plan::step::Step;

/// What to build of a Dockerfile.
#[derive(Debug, Clone)]
pub(crate) struct PlanRequest {
    /// The stage; the last one by default.
    pub(crate) target: Option<String>,
    /// Values of `ARG`s.
    pub(crate) arguments: BTreeMap<String, String>,
    /// Labels for the target in addition to its own. They are not in the history, as in BuildKit.
    pub(crate) labels: BTreeMap<String, String>,
    /// The target platform.
    pub(crate) platform: Platform,
    /// The `created` of the image and its history, as RFC 3339.
    pub(crate) created: String,
}

/// The base of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// No files.
    Scratch,
    /// An image, with its name in the Dockerfile after expansion.
    Image(String),
    /// An earlier stage, by its number.
    Stage(usize),
}

/// A stage that the target needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Its number in the Dockerfile.
    pub(crate) stage: usize,
    /// Its base.
    pub(crate) base: Base,
}

/// A stage's steps and the resulting configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// In order, one per instruction.
    pub(crate) steps: Vec<Step>,
    /// Without this stage's layers and history, which are only known once it has run.
    pub(crate) config: Config,
    /// Its `ARG`s, which stages based on it inherit.
    pub(crate) arguments: Vec<Argument>,
}

/// A Dockerfile with the values it is built with.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    file: &'a Dockerfile,
    request: &'a PlanRequest,
    globals: BTreeMap<String, String>,
    target: usize,
    needed: Vec<Needed>,
    /// The `ONBUILD` instructions that run first in a stage: those of an earlier stage, or of an image once it is
    /// known.
    triggers: BTreeMap<usize, Vec<Located<Instruction>>>,
    /// Images that files are copied from. Each is a stage of its own, numbered after those of the Dockerfile.
    images: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Finds the stages that the target needs, in the order to build them.
    ///
    /// # Errors
    /// An unknown target or stage, an argument that looks like a secret, an expansion that fails.
    pub(crate) fn new(file: &'a Dockerfile, request: &'a PlanRequest) -> Result<Self, DockerfileError> {
        let target = match &request.target {
            None => file.stages.len() - 1,
            Some(name) => file
                .stage(name)
                .ok_or_else(|| Problem::syntax(format!("there is no stage {name} to build")).at(1))?,
        };
        let mut globals = platform::arguments(&request.platform);
        let last = || file.stages.last().and_then(|stage| stage.name.clone());
        let stage = request.target.clone().or_else(last).unwrap_or_else(|| "default".to_owned());
        globals.insert("TARGETSTAGE".to_owned(), stage);
        let (needed, triggers, images) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut plan = Self { file, request, globals, target, needed, triggers, images };
        plan.refuse_secret_arguments()?;
        plan.read_globals()?;
        for (stage, written) in file.stages.iter().enumerate() {
            plan.note_images(&written.instructions);
            // An error in a base is reported when the stage is needed.
            if let Ok(Base::Stage(earlier)) = plan.base(stage) {
                let triggers = plan.left_by(earlier, written.line)?;
                plan.note_images(&triggers);
                plan.triggers.insert(stage, triggers);
            }
        }
        plan.needed = plan.find_needed()?;
        Ok(plan)
    }

    /// Adds the `ONBUILD` instructions of an image to a stage that is based on it. They may need further stages and
    /// images.
    ///
    /// # Errors
    /// When they are not a list of instructions, or contain one that is not allowed there.
    pub(crate) fn learn(&mut self, stage: usize, image: &Config) -> Result<(), DockerfileError> {
        let (Some(written), false) = (self.file.stages.get(stage), self.triggers.contains_key(&stage)) else {
            return Ok(());
        };
        let texts = crate::plan::config::triggers(&image.config).map_err(|cause| {
            Problem::syntax(format!("the base's ONBUILD instructions cannot be read: {cause}"))
                .at(written.line)
        })?;
        let triggers = triggers(texts, written.line)?;
        self.note_images(&triggers);
        let is_more = !triggers.is_empty();
        self.triggers.insert(stage, triggers);
        if is_more {
            self.needed = self.find_needed()?;
        }
        Ok(())
    }

    fn find_needed(&self) -> Result<Vec<Needed>, DockerfileError> {
        let mut wanted = BTreeSet::from([self.target]);
        let mut needed = Vec::new();
        // Stages only refer to earlier ones, so one pass from the last finds all.
        for stage in (0..=self.target).rev() {
            if wanted.contains(&stage) {
                let base = self.base(stage)?;
                wanted.extend(self.references(stage, &base)?);
                needed.push(Needed { stage, base });
            }
        }
        for stage in wanted.into_iter().rev().filter(|stage| *stage >= self.file.stages.len()) {
            let base = match self.name(stage).as_str() {
                "scratch" => Base::Scratch,
                name => Base::Image(name.to_owned()),
            };
            needed.push(Needed { stage, base });
        }
        needed.reverse();
        Ok(needed)
    }

    /// The instructions of a stage, after the `ONBUILD` ones of its base.
    pub(crate) fn instructions(&self, stage: usize) -> impl Iterator<Item = &Located<Instruction>> {
        let own = self.file.stages.get(stage).map_or(&[][..], |written| &written.instructions);
        self.triggers.get(&stage).into_iter().flatten().chain(own)
    }

    /// The `ONBUILD` instructions of an earlier stage, for the stage at `line`.
    fn left_by(&self, earlier: usize, line: usize) -> Result<Vec<Located<Instruction>>, DockerfileError> {
        let texts =
            self.file.stages[earlier].instructions.iter().filter_map(|located| match &located.value {
                Instruction::OnBuild(text) => Some(text.clone()),
                _ => None,
            });
        triggers(texts, line)
    }

    /// Notes the images that instructions copy from: `--from` names that no stage has.
    fn note_images(&mut self, instructions: &[Located<Instruction>]) {
        for name in instructions.iter().flat_map(|located| sources_of(&located.value)) {
            let is_stage = self.file.stage(name).is_some() || name.parse::<usize>().is_ok();
            if !is_stage && !self.images.iter().any(|image| image == name) {
                self.images.push(name.to_owned());
            }
        }
    }

    /// The stages to build, in order; the target is the last.
    pub(crate) fn needed(&self) -> &[Needed] {
        &self.needed
    }

    /// Every base image that the file names, needed for the target or not.
    pub(crate) fn bases(&self) -> BTreeSet<String> {
        let of_stages = (0..self.file.stages.len()).filter_map(|stage| match self.base(stage) {
            Ok(Base::Image(name)) => Some(name),
            _ => None,
        });
        of_stages.chain(self.images.iter().cloned()).collect()
    }

    /// Whether the Dockerfile has commands to run for the target; its bases may add more.
    pub(crate) fn runs(&self) -> bool {
        let mut instructions = self.needed.iter().flat_map(|needed| self.instructions(needed.stage));
        instructions.any(|located| matches!(located.value, Instruction::Run(_)))
    }

    /// The steps of `stage` on top of an image with the configuration `base`.
    ///
    /// # Errors
    /// An expansion that fails, or a value that its instruction does not allow.
    pub(crate) fn steps(&self, stage: usize, base: Config) -> Result<Planned, DockerfileError> {
        self.steps_over(stage, base, Vec::new())
    }

    /// The steps of `stage` on top of another stage.
    ///
    /// # Errors
    /// As [`Self::steps`].
    pub(crate) fn steps_on(&self, stage: usize, base: &Planned) -> Result<Planned, DockerfileError> {
        self.steps_over(stage, base.config.clone(), base.arguments.clone())
    }

    fn steps_over(
        &self,
        stage: usize,
        mut base: Config,
        arguments: Vec<Argument>,
    ) -> Result<Planned, DockerfileError> {
        if stage >= self.file.stages.len() {
            return Ok(Planned { steps: Vec::new(), config: base, arguments });
        }
        crate::plan::config::forget_triggers(&mut base.config);
        let mut state = StageExpansion::new(self, stage, base, arguments);
        let steps = self.instructions(stage);
        let steps = steps.map(|it| state.step(it).map_err(|problem| problem.at(it.line)));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let StageExpansion { mut config, arguments, .. } = state;
        if self.needed.last().is_some_and(|target| target.stage == stage) {
            config.config.labels.extend(self.request.labels.clone());
        }
        Ok(Planned { steps, config, arguments })
    }

    /// The name of a stage in messages.
    pub(crate) fn name(&self, stage: usize) -> String {
        match self.file.stages.get(stage) {
            Some(written) => written.name.clone().unwrap_or_else(|| format!("stage {stage}")),
            None => self.images.get(stage - self.file.stages.len()).cloned().unwrap_or_default(),
        }
    }

    /// The id of a stage's step: from the stage's name, or its number if it has no name or shares it with another.
    pub(crate) fn step_id(&self, stage: usize, number: usize) -> StepId {
        let name = self.file.stages.get(stage).and_then(|written| written.name.as_deref());
        let alone = |name: &&str| {
            let named = self.file.stages.iter().filter(|it| it.name.as_deref() == Some(*name));
            named.count() == 1
        };
        match name.filter(alone) {
            Some(name) => StepId::new(name, number),
            None => StepId::new(&stage.to_string(), number),
        }
    }

    pub(crate) fn escape(&self) -> char {
        self.file.escape
    }

    /// The value given for an `ARG`.
    pub(crate) fn given(&self, name: &str) -> Option<&String> {
        self.request.arguments.get(name)
    }

    /// The value of an `ARG` before the first `FROM`.
    pub(crate) fn global(&self, name: &str) -> Option<String> {
        self.globals.get(name).cloned()
    }

    /// The `created` of the image and its history.
    pub(crate) fn created(&self) -> &str {
        &self.request.created
    }

    /// The history entry of a step, if it has one.
    pub(crate) fn history(&self, step: &Step, has_layer: bool) -> Option<History> {
        (!step.created_by.is_empty()).then(|| History {
            created: Some(self.request.created.clone()),
            created_by: Some(step.created_by.clone()),
            empty_layer: !has_layer,
            ..History::default()
        })
    }

    /// Arguments are public: the history and the provenance contain them.
    fn refuse_secret_arguments(&self) -> Result<(), DockerfileError> {
        match self.request.arguments.keys().find(|name| looks_secret(name)) {
            None => Ok(()),
            Some(name) => Err(Problem::unsupported(
                format!("the build argument {name}, which looks like a secret,"),
                "nobody else could repeat the build: leave out what needs it, or rename it if it is none",
            )
            .at(1)),
        }
    }

    /// Refuses build arguments that nothing declares. The bases' `ONBUILD` must be known ([`Self::learn`]).
    ///
    /// # Errors
    /// The first one.
    pub(crate) fn check_arguments(&self) -> Result<(), DockerfileError> {
        let in_stages = (0..self.file.stages.len()).flat_map(|stage| self.instructions(stage));
        let in_stages = in_stages.filter_map(|located| match &located.value {
            Instruction::Arg(pairs) => Some(pairs),
            _ => None,
        });
        let declared: BTreeSet<&str> = in_stages
            .chain(self.file.arguments.iter().map(|located| &located.value))
            .flatten()
            .map(|pair| pair.name.as_str())
            .collect();
        match self.request.arguments.keys().find(|name| !declared.contains(name.as_str())) {
            None => Ok(()),
            Some(name) if is_of_proxy(name) => Err(Problem::unsupported(
                format!("the build argument {name}, which no ARG declares,"),
                "steps reach the recorder alone, which takes the proxies of the builder's own environment: set it there",
            )
            .at(1)),
            Some(name) => Err(Problem::syntax(format!("no ARG declares the build argument {name}")).at(1)),
        }
    }

    fn read_globals(&mut self) -> Result<(), DockerfileError> {
        for located in &self.file.arguments {
            for pair in &located.value {
                let given = self.request.arguments.get(&pair.name).cloned();
                let value = match (given, &pair.value) {
                    (Some(value), _) => Some(value),
                    (None, Some(text)) => {
                        Some(self.global_word(text).map_err(|problem| problem.at(located.line))?)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    self.globals.insert(pair.name.clone(), value);
                }
            }
        }
        Ok(())
    }

    fn global_word(&self, text: &str) -> Result<String, Problem> {
        Ok(expand::word(text, self.file.escape, &|name| self.globals.get(name).cloned())?)
    }

    fn base(&self, stage: usize) -> Result<Base, DockerfileError> {
        let from = &self.file.stages[stage];
        let find = || {
            let name = self.global_word(&from.base)?;
            let earlier = self.file.stages[..stage]
                .iter()
                .rposition(|other| other.name.as_deref() == Some(&name.to_lowercase()));
            match (name.as_str(), earlier) {
                ("", _) => Err(Problem::syntax(format!("the base {} is empty once expanded", from.base))),
                ("scratch", _) => Ok(Base::Scratch),
                (_, Some(index)) => Ok(Base::Stage(index)),
                (_, None) => {
                    self.check_platform(from.platform.as_deref())?;
                    Ok(Base::Image(name))
                }
            }
        };
        find().map_err(|problem: Problem| problem.at(from.line))
    }

    /// An image is taken for the build's platform; `scratch` and other stages have no platform of their own.
    fn check_platform(&self, written: Option<&str>) -> Result<(), Problem> {
        let Some(text) = written else { return Ok(()) };
        let asked = self.global_word(text)?;
        match platform::is_asked_by(&self.request.platform, &asked) {
            true => Ok(()),
            false => Err(Problem::unsupported(
                format!("FROM --platform={asked}"),
                "build everything for the platform of the image",
            )),
        }
    }

    fn references(&self, stage: usize, base: &Base) -> Result<Vec<usize>, DockerfileError> {
        let mut stages = Vec::new();
        if let Base::Stage(index) = base {
            stages.push(*index);
        }
        for located in self.instructions(stage) {
            for name in sources_of(&located.value) {
                stages.push(self.earlier(stage, name).map_err(|problem| problem.at(located.line))?);
            }
        }
        Ok(stages)
    }

    pub(crate) fn earlier(&self, stage: usize, name: &str) -> Result<usize, Problem> {
        let image = || self.images.iter().position(|image| *image == name);
        match (self.file.stage(name), image()) {
            (Some(index), _) if index < stage => Ok(index),
            (Some(_), _) => Err(Problem::syntax(format!(
                "{name} is its own or a later stage, so nothing can come from it"
            ))),
            (None, Some(index)) => Ok(self.file.stages.len() + index),
            (None, None) => Err(Problem::syntax(format!("{name} is neither a stage nor an image"))),
        }
    }
}

fn looks_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let parts: Vec<&str> = upper.split('_').collect();
    ["TOKEN", "PASSWORD", "PASSWD", "SECRET", "CREDENTIALS"].iter().any(|word| parts.contains(word))
        || ["API_KEY", "PRIVATE_KEY", "ACCESS_KEY", "SSH_KEY"].iter().any(|words| upper.contains(words))
}

/// Whether BuildKit would set the variable in every RUN without a declaration.
fn is_of_proxy(name: &str) -> bool {
    let known = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    known.iter().any(|proxy| *proxy == name || proxy.to_ascii_lowercase() == name)
}

/// The stages and images that an instruction takes files from.
fn sources_of(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Copy(Copy { from, .. }) => from.as_deref().into_iter().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
        _ => Vec::new(),
    }
}

/// Parses `ONBUILD` instructions for the stage at `line`.
fn triggers(
    texts: impl IntoIterator<Item = String>,
    line: usize,
) -> Result<Vec<Located<Instruction>>, DockerfileError> {
    texts.into_iter().map(|text| Dockerfile::trigger(&text, line)).collect()
}

#[cfg(test)]
mod tests;
