//! What an instruction comes to once everything in it is expanded: what is done to the files, and how the history tells it.

use recorder::StepId;

use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::remote::Remote;
use crate::dockerfile::{Chmod, Network, SecretMount};

/// What one instruction does, with everything expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Who it is in records and replays. Only meaningful for a step that can ask the network.
    pub(crate) id: StepId,
    /// The instruction's line.
    pub(crate) line: usize,
    /// The instruction as written.
    pub(crate) text: String,
    /// What the history says; empty when it says nothing.
    pub(crate) created_by: String,
    /// What is done to the files.
    pub(crate) action: Action,
}

impl Step {
    /// Whether it runs a command.
    pub(crate) fn is_run(&self) -> bool {
        matches!(self.action, Action::Run(_))
    }
}

/// What is done to the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
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

impl Action {
    /// Whether it can ask for something over the network.
    pub(crate) fn can_ask(&self) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Copy(copying) => copying.sources.iter().any(|it| matches!(it, Source::Remote(_))),
            Self::Configure | Self::Workdir { .. } => false,
        }
    }
}

/// A command that is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Execution {
    /// Its words.
    pub(crate) args: Vec<String>,
    /// Variables of `ENV` and `ARG`, without what the build adds.
    pub(crate) env: Vec<(String, String)>,
    /// Where.
    pub(crate) cwd: String,
    /// As whom; empty is root.
    pub(crate) user: String,
    /// What it reaches.
    pub(crate) network: Network,
    /// A program that the Dockerfile itself holds.
    pub(crate) script: Option<Script>,
    /// What it sees beside its root.
    pub(crate) mounts: Vec<Mounted>,
    /// Which secrets it is given.
    pub(crate) secrets: Vec<SecretMount>,
}

/// Files that are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copying {
    /// A stage by its number, instead of the repository.
    pub(crate) from: Option<usize>,
    /// In the order in which they are copied.
    pub(crate) sources: Vec<Source>,
    /// Files that the Dockerfile itself holds.
    pub(crate) inline: Vec<Inline>,
    /// Whether an archive of the repository is to be unpacked, as by `ADD`.
    pub(crate) archives: bool,
    /// Whether an archive that is fetched is to be unpacked.
    pub(crate) remote_archives: bool,
    /// Absolute; a slash at the end means a folder.
    pub(crate) destination: String,
    /// `user[:group]`
    pub(crate) chown: Option<String>,
    /// Permissions.
    pub(crate) chmod: Option<Chmod>,
    /// What is not copied.
    pub(crate) excludes: Ignore,
    /// Whether the folders above a source are made as well.
    pub(crate) parents: bool,
    /// Whether it is put there without a look at what is there already.
    pub(crate) apart: bool,
}

/// Where something that is copied comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A path or pattern.
    Path(String),
    /// Something to fetch.
    Remote(Remote),
}

/// What a step sees beside its root, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Absolute.
    pub(crate) target: String,
    /// What is there.
    pub(crate) what: MountSource,
}

/// What is mounted into a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// An empty folder.
    Cache {
        /// Its name: caches of one name, with the same permissions and owner, are one.
        id: String,
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
pub(crate) struct Script {
    /// Where the step sees it.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// A file in the Dockerfile's own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inline {
    /// The name that it has in a folder.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}
