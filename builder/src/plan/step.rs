//! A step: an instruction with everything expanded, as the action on the files and the entry in the history.

use attestations::Foreign;
use recorder::StepId;

use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::remote::Remote;
use crate::dockerfile::{Chmod, Network, SecretMount};

/// How many characters of an instruction a message shows.
const SHOWN: usize = 100;

/// An instruction with everything expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its id in records and replays. Only meaningful for a step that can use the network.
    pub(crate) id: StepId,
    /// The instruction's line.
    pub(crate) line: usize,
    /// The instruction as written.
    pub(crate) text: String,
    /// Its `created_by` in the history; empty if it has no entry.
    pub(crate) created_by: String,
    /// Its action.
    pub(crate) action: Action,
}

impl Step {
    /// Its line and how it begins, for messages: a command of many lines would hide what went wrong.
    pub(crate) fn named(&self) -> String {
        let mut shown: String = self.text.chars().take(SHOWN).collect();
        if shown.len() < self.text.len() {
            shown.push('…');
        }
        format!("line {}: {}", self.line, Foreign::new(&shown))
    }

    /// Whether it runs a command.
    pub(crate) fn is_run(&self) -> bool {
        matches!(self.action, Action::Run(_))
    }
}

/// The action of a step on the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: only the configuration changes.
    Configure,
    /// Runs a command.
    Run(Execution),
    /// Copies files.
    Copy(Copying),
    /// Creates a folder.
    Workdir {
        /// Absolute.
        path: String,
        /// Its owner; empty is root.
        user: String,
    },
}

impl Action {
    /// Whether it can use the network.
    pub(crate) fn can_ask(&self) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Copy(copying) => copying.sources.iter().any(|it| matches!(it, Source::Remote(_))),
            Self::Configure | Self::Workdir { .. } => false,
        }
    }
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Execution {
    /// Its words.
    pub(crate) args: Vec<String>,
    /// The variables of `ENV` and `ARG`, without those that the build adds.
    pub(crate) env: Vec<(String, String)>,
    /// The working directory.
    pub(crate) cwd: String,
    /// The user; empty is root.
    pub(crate) user: String,
    /// Its network access.
    pub(crate) network: Network,
    /// A program in the Dockerfile itself.
    pub(crate) script: Option<Script>,
    /// Its mounts.
    pub(crate) mounts: Vec<Mounted>,
    /// The secrets that it is given.
    pub(crate) secrets: Vec<SecretMount>,
}

/// Files to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copying {
    /// The stage by its number; the repository if none.
    pub(crate) from: Option<usize>,
    /// In the order in which they are copied.
    pub(crate) sources: Vec<Source>,
    /// Here-documents of the Dockerfile.
    pub(crate) inline: Vec<Inline>,
    /// Whether archives of the repository are unpacked, as by `ADD`.
    pub(crate) archives: bool,
    /// Whether fetched archives are unpacked.
    pub(crate) remote_archives: bool,
    /// Absolute; a slash at the end means a folder.
    pub(crate) destination: String,
    /// `user[:group]`
    pub(crate) chown: Option<String>,
    /// The permissions.
    pub(crate) chmod: Option<Chmod>,
    /// Patterns to leave out.
    pub(crate) excludes: Ignore,
    /// Whether the folders above a source are created as well.
    pub(crate) parents: bool,
    /// Whether the layer is made independently of those below (`--link`).
    pub(crate) apart: bool,
}

/// A source of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A path or pattern.
    Path(String),
    /// A remote source.
    Remote(Remote),
}

/// A mount, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Absolute.
    pub(crate) target: String,
    /// Its content.
    pub(crate) what: MountSource,
}

/// The content of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// An empty folder.
    Cache {
        /// Its name: caches with the same name, permissions and owner are one.
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
        /// The most bytes.
        size: Option<u64>,
        /// Whether writing is allowed.
        writable: bool,
    },
    /// A file or folder.
    Bind {
        /// The stage by its number; the repository if none.
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
    /// Its path in the step.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inline {
    /// Its file name.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}
