//! From a parsed Dockerfile to what has to be done: the stages the target needs, and each stage's steps with every
//! variable expanded. Pure: nothing is run, fetched or looked up.

use std::collections::{BTreeMap, BTreeSet};

use images::Platform;

use super::config::{Config, History};
use super::platform;
use super::stage::{Argument, State};
use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::remote::Remote;
use crate::dockerfile::{
    Chmod, Copy, Dockerfile, DockerfileError, Instruction, Located, Network, Problem, SecretMount, expand,
};

/// What of the Dockerfile is to be built.
#[derive(Debug, Clone)]
pub struct Request {
    /// The stage; the last one by default.
    pub target: Option<String>,
    /// Values of `ARG`s.
    pub arguments: BTreeMap<String, String>,
    /// Labels that the target gets beside its own. They leave no trace in the history, as in BuildKit.
    pub labels: BTreeMap<String, String>,
    /// What it is built for.
    pub platform: Platform,
    /// The `created` of everything made, as RFC 3339.
    pub created: String,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image, named as the Dockerfile does after expansion.
    Image(String),
    /// An earlier stage, by its number.
    Stage(usize),
}

/// A stage that the target needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Its number in the Dockerfile.
    pub stage: usize,
    /// What it starts from.
    pub base: Base,
}

/// What one instruction does, with everything expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The instruction's line.
    pub line: usize,
    /// The instruction as written.
    pub text: String,
    /// What the history says; empty when it says nothing.
    pub created_by: String,
    /// What is done to the files.
    pub action: Action,
}

impl Step {
    /// Whether it runs a command.
    pub fn is_run(&self) -> bool {
        matches!(self.action, Action::Run(_))
    }
}

/// What is done to the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: only the configuration changes.
    Configure,
    /// A command is run.
    Run(Execution),
    /// Files are copied.
    Copy(Copying),
    /// A folder is made.
    Workdir {
        /// Absolute.
        path: String,
        /// Whose it becomes; empty is root.
        user: String,
    },
}

/// A command that is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// Its words.
    pub args: Vec<String>,
    /// Variables of `ENV` and `ARG`, without what the build adds.
    pub env: Vec<(String, String)>,
    /// Where.
    pub cwd: String,
    /// As whom; empty is root.
    pub user: String,
    /// What it reaches.
    pub network: Network,
    /// A program that the Dockerfile itself holds.
    pub script: Option<Script>,
    /// What it sees beside its root.
    pub mounts: Vec<Mounted>,
    /// Which secrets it is given.
    pub secrets: Vec<SecretMount>,
}

/// Files that are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copying {
    /// A stage by its number, instead of the repository.
    pub from: Option<usize>,
    /// In the order in which they are copied.
    pub sources: Vec<Source>,
    /// Files that the Dockerfile itself holds.
    pub inline: Vec<Inline>,
    /// Whether an archive of the repository is to be unpacked, as by `ADD`.
    pub archives: bool,
    /// Whether an archive that is fetched is to be unpacked.
    pub remote_archives: bool,
    /// Absolute; a slash at the end means a folder.
    pub destination: String,
    /// `user[:group]`
    pub chown: Option<String>,
    /// Permissions.
    pub chmod: Option<Chmod>,
    /// What is not copied.
    pub excludes: Ignore,
    /// Whether the folders above a source are made as well.
    pub parents: bool,
    /// Whether it is put there without a look at what is there already.
    pub apart: bool,
}

/// Where something that is copied comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path or pattern.
    Path(String),
    /// Something to fetch.
    Remote(Remote),
}

/// What a step sees beside its root, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Absolute.
    pub target: String,
    /// What is there.
    pub what: What,
}

/// What is mounted into a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An empty folder.
    Cache {
        /// Its permissions.
        mode: u32,
        /// User and group.
        owner: (u32, u32),
        /// Whether writing is allowed.
        writable: bool,
    },
    /// An empty file system in memory.
    Temporary {
        /// Bytes at most.
        size: Option<u64>,
        /// Whether writing is allowed.
        writable: bool,
    },
    /// A file or folder.
    Bind {
        /// A stage by its number, instead of the repository.
        from: Option<usize>,
        /// The path there.
        source: String,
        /// Whether writing is allowed.
        writable: bool,
    },
}

/// A program that is mounted into the step that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Where the step sees it.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A file in the Dockerfile's own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inline {
    /// The name that it has in a folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A stage's steps and the configuration they lead to.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// In order, one per instruction.
    pub steps: Vec<Step>,
    /// Without layers and history of this stage; the history belongs to what execution finds.
    pub config: Config,
    /// Its `ARG`s, which stages that start from it have too.
    pub(super) arguments: Vec<Argument>,
}

/// The whole file with the values it is built with.
#[derive(Debug)]
pub struct Plan<'a> {
    file: &'a Dockerfile,
    request: &'a Request,
    globals: BTreeMap<String, String>,
    needed: Vec<Needed>,
    /// Images that files are copied from. Each is a stage of its own, numbered behind those of the file.
    images: Vec<&'a str>,
}

impl<'a> Plan<'a> {
    /// Finds the stages that the target needs, in the order to build them.
    ///
    /// # Errors
    /// An unknown target or stage, a build argument that no `ARG` declares, an expansion that cannot be done.
    pub fn new(file: &'a Dockerfile, request: &'a Request) -> Result<Self, DockerfileError> {
        let mut globals = platform::arguments(&request.platform);
        let last = || file.stages.last().and_then(|stage| stage.name.clone());
        let stage = request.target.clone().or_else(last).unwrap_or_else(|| "default".to_owned());
        globals.insert("TARGETSTAGE".to_owned(), stage);
        let mut plan = Self { file, request, globals, needed: Vec::new(), images: images_copied_from(file) };
        plan.check_arguments()?;
        plan.read_globals()?;
        let target = match &request.target {
            None => file.stages.len() - 1,
            Some(name) => file
                .stage(name)
                .ok_or_else(|| Problem::syntax(format!("there is no stage {name} to build")).at(1))?,
        };
        let mut wanted = BTreeSet::from([target]);
        // Stages only refer to earlier ones, so one pass from the back finds all.
        for stage in (0..=target).rev() {
            if wanted.contains(&stage) {
                let base = plan.base(stage)?;
                wanted.extend(plan.references(stage, &base)?);
                plan.needed.insert(0, Needed { stage, base });
            }
        }
        let images: Vec<usize> = wanted.into_iter().filter(|stage| *stage >= file.stages.len()).collect();
        for stage in images.into_iter().rev() {
            let base = match plan.images[stage - file.stages.len()] {
                "scratch" => Base::Scratch,
                name => Base::Image(name.to_owned()),
            };
            plan.needed.insert(0, Needed { stage, base });
        }
        Ok(plan)
    }

    /// The stages to build, in order; the target is the last.
    pub fn needed(&self) -> &[Needed] {
        &self.needed
    }

    /// Whether the Dockerfile itself has commands to run for the target; its bases may add some.
    pub fn runs(&self) -> bool {
        let stages = self.needed.iter().filter_map(|needed| self.file.stages.get(needed.stage));
        let mut instructions = stages.flat_map(|stage| &stage.instructions);
        instructions.any(|located| matches!(located.value, Instruction::Run(_)))
    }

    /// The steps of `stage` on top of `base`, an image.
    ///
    /// # Errors
    /// An expansion that cannot be done, or a value that its instruction does not allow.
    pub fn steps(&self, stage: usize, base: Config) -> Result<Planned, DockerfileError> {
        self.steps_over(stage, base, Vec::new())
    }

    /// The steps of `stage` on top of what another comes to.
    ///
    /// # Errors
    /// As [`Self::steps`].
    pub fn steps_on(&self, stage: usize, base: &Planned) -> Result<Planned, DockerfileError> {
        self.steps_over(stage, base.config.clone(), base.arguments.clone())
    }

    fn steps_over(
        &self,
        stage: usize,
        mut base: Config,
        arguments: Vec<Argument>,
    ) -> Result<Planned, DockerfileError> {
        let Some(written) = self.file.stages.get(stage) else {
            return Ok(Planned { steps: Vec::new(), config: base, arguments });
        };
        let triggers = triggers(&mut base).map_err(|problem| problem.at(written.line))?;
        let mut state = State::new(self, stage, base, arguments);
        let mut steps = Vec::new();
        for (text, value) in triggers {
            let located = Located { line: written.line, text, value };
            steps.push(state.step(&located).map_err(|problem| problem.at(written.line))?);
        }
        for located in &written.instructions {
            steps.push(state.step(located).map_err(|problem| problem.at(located.line))?);
        }
        let State { mut config, arguments, .. } = state;
        if self.needed.last().is_some_and(|target| target.stage == stage) {
            config.config.labels.extend(self.request.labels.clone());
        }
        Ok(Planned { steps, config, arguments })
    }

    /// What a stage is called in what people read.
    pub fn name(&self, stage: usize) -> String {
        match self.file.stages.get(stage) {
            Some(written) => written.name.clone().unwrap_or_else(|| format!("stage {stage}")),
            None => self
                .images
                .get(stage - self.file.stages.len())
                .map_or_else(String::new, |it| (*it).to_owned()),
        }
    }

    pub(super) fn escape(&self) -> char {
        self.file.escape
    }

    /// The value given for an `ARG`.
    pub(super) fn given(&self, name: &str) -> Option<&String> {
        self.request.arguments.get(name)
    }

    /// The value of an `ARG` before the first `FROM`.
    pub(super) fn global(&self, name: &str) -> Option<String> {
        self.globals.get(name).cloned()
    }

    /// The `created` of everything made.
    pub fn created(&self) -> &str {
        &self.request.created
    }

    /// The history entry of a step, if it has one.
    pub fn history(&self, step: &Step, has_layer: bool) -> Option<History> {
        (!step.created_by.is_empty()).then(|| History {
            created: Some(self.request.created.clone()),
            created_by: Some(step.created_by.clone()),
            empty_layer: !has_layer,
            ..History::default()
        })
    }

    fn check_arguments(&self) -> Result<(), DockerfileError> {
        let in_stages =
            self.file.stages.iter().flat_map(|stage| &stage.instructions).filter_map(
                |located| match &located.value {
                    Instruction::Arg(pairs) => Some(pairs),
                    _ => None,
                },
            );
        let declared: BTreeSet<&str> = in_stages
            .chain(self.file.arguments.iter().map(|located| &located.value))
            .flatten()
            .map(|pair| pair.name.as_str())
            .collect();
        // Arguments stand in the history and in the provenance, for everybody to read.
        if let Some(name) = self.request.arguments.keys().find(|name| looks_secret(name)) {
            let what = format!("the build argument {name}, which looks like a secret,");
            let instead =
                "nobody else could repeat the build: leave out what needs it, or rename it if it is none";
            return Err(Problem::unsupported(what, instead).at(1));
        }
        match self.request.arguments.keys().find(|name| !declared.contains(name.as_str())) {
            Some(name) => Err(Problem::syntax(format!("no ARG declares the build argument {name}")).at(1)),
            None => Ok(()),
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
                .position(|other| other.name.as_deref() == Some(&name.to_lowercase()));
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

    /// Of an image the one for this build's platform is taken; nothing and another stage have none of their own.
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
        for located in &self.file.stages[stage].instructions {
            for name in sources_of(&located.value) {
                stages.push(self.earlier(stage, name).map_err(|problem| problem.at(located.line))?);
            }
        }
        Ok(stages)
    }

    pub(super) fn earlier(&self, stage: usize, name: &str) -> Result<usize, Problem> {
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

/// What `--from` names and no stage is called.
fn images_copied_from(file: &Dockerfile) -> Vec<&str> {
    let mut images = Vec::new();
    for located in file.stages.iter().flat_map(|stage| &stage.instructions) {
        for name in sources_of(&located.value) {
            if file.stage(name).is_none() && name.parse::<usize>().is_err() && !images.contains(&name) {
                images.push(name);
            }
        }
    }
    images
}

/// The stages and images that an instruction takes files from.
fn sources_of(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Copy(Copy { from, .. }) => from.as_deref().into_iter().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
        _ => Vec::new(),
    }
}

/// What a base wants done first in whatever is built on it.
fn triggers(base: &mut Config) -> Result<Vec<(String, Instruction)>, Problem> {
    let texts = super::config::take_triggers(&mut base.config).map_err(|cause| {
        Problem::syntax(format!("the base's ONBUILD instructions cannot be read: {cause}"))
    })?;
    texts.into_iter().map(|text| Dockerfile::trigger(&text).map(|it| (text, it))).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
