//! The task queue: what was asked for, how far it got, what came out. It survives a server that is killed at any
//! moment: a task that was accepted is finished, or is finished as failed with a reason, and never disappears.
//!
//! One SQLite file in WAL mode with `synchronous=FULL`. A change of state is one `UPDATE … WHERE state=…`, so two
//! workers, or a worker and a cancellation, cannot both win.

mod erase;
mod schema;
mod store;

use std::path::PathBuf;

use attestations::{Caller, Denial, Subject};
use serde::{Deserialize, Serialize};
pub use store::Queue;

use crate::{
    egress::Token,
    record::{RecordedTask, RunReport},
};

/// Most bytes of a task's input.
pub(crate) const MAX_INPUT: usize = 8 << 20;
/// Most bytes of a result that are kept.
pub(crate) const MAX_RESULT: usize = 64 << 20;
/// Most bytes of a container's output that are kept: both ends, see [`crate::record::Log`].
pub(crate) const MAX_LOG: usize = 1 << 20;
/// Most bytes of one text about a task: its reason, its denial, its admission, its record of egress.
pub(crate) const MAX_TEXT: usize = 8 << 20;
/// How often a task is started again after its server was killed, unless the queue was opened otherwise.
pub(crate) const DEFAULT_MAX_ATTEMPTS: u32 = 3;

/// Why the queue could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full. Nothing that was accepted is lost.
    #[error("the disk that holds {} is full", .0.display())]
    DiskFull(PathBuf),
    /// The file is of a newer program.
    #[error("{} has schema version {found}, and this program knows up to {known}", path.display())]
    Newer {
        /// The queue's file.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// Another server works on this queue.
    #[error("another server is already working on {}", .0.display())]
    InUse(PathBuf),
    /// The file's directory or lock cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// There is no such task.
    #[error("there is no task {0}")]
    NotFound(i64),
    /// The task is not in a state that allows this.
    #[error("task {id} is {state}")]
    WrongState {
        /// The task.
        id: i64,
        /// The state it is in.
        state: TaskState,
    },
    /// The idempotency key was used before, for something else.
    #[error("the idempotency key was already used for task {0}, which asks for something else")]
    KeyReused(i64),
    /// Something is larger than the queue keeps.
    #[error("the {what} is {size} bytes, over the limit of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A row does not read back as what is written there.
    #[error("the queue holds something that cannot be read: {0}")]
    Corrupt(String),
    /// SQLite failed in another way.
    #[error("the queue failed: {0}")]
    Sqlite(#[source] rusqlite::Error),
}

impl Error {
    /// Whether trying the same again can only fail again.
    pub(crate) fn lasts(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        match self {
            Error::TooLarge { .. } | Error::Corrupt(_) => true,
            Error::Sqlite(rusqlite::Error::SqliteFailure(cause, _)) => matches!(
                cause.code,
                Code::TooBig
                    | Code::ConstraintViolation
                    | Code::TypeMismatch
                    | Code::ApiMisuse
                    | Code::ParameterOutOfRange
            ),
            Error::Sqlite(rusqlite::Error::ToSqlConversionFailure(_)) => true,
            _ => false,
        }
    }
}

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// The image, as the caller names it.
    pub image: String,
    /// The algorithm's input: a JSON object, handed to it as it is.
    pub input: serde_json::Map<String, serde_json::Value>,
    /// Labels of configured databases.
    #[serde(default)]
    pub databases: Vec<String>,
    /// The same key with the same request gives the same task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The task's own token for the node's server. It is kept until the task has ended, and never shown.
    #[serde(default, skip_serializing)]
    pub token: Option<Token>,
    /// Who asks. The service knows it of the connection; no request can say it.
    #[serde(skip)]
    pub caller: Caller,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Waiting for a worker.
    Queued,
    /// Its image is being judged.
    Verifying,
    /// Its container runs.
    Running,
    /// It is over.
    Finished(Finish),
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// With a result.
    Completed,
    /// The algorithm ended with an error.
    Crashed,
    /// The policy does not admit the image.
    Denied,
    /// The node could not run it.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl TaskState {
    /// The state's one spelling, in the file and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Queued => "queued",
            TaskState::Verifying => "verifying",
            TaskState::Running => "running",
            TaskState::Finished(Finish::Completed) => "completed",
            TaskState::Finished(Finish::Crashed) => "crashed",
            TaskState::Finished(Finish::Denied) => "denied",
            TaskState::Finished(Finish::Failed) => "failed",
            TaskState::Finished(Finish::Cancelled) => "cancelled",
        }
    }

    fn parse(text: &str) -> Result<TaskState, Error> {
        Ok(match text {
            "queued" => TaskState::Queued,
            "verifying" => TaskState::Verifying,
            "running" => TaskState::Running,
            "completed" => TaskState::Finished(Finish::Completed),
            "crashed" => TaskState::Finished(Finish::Crashed),
            "denied" => TaskState::Finished(Finish::Denied),
            "failed" => TaskState::Finished(Finish::Failed),
            "cancelled" => TaskState::Finished(Finish::Cancelled),
            _ => return Err(Error::Corrupt(format!("a task in the state {text:?}"))),
        })
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TaskState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A task without its result and log, which can be large. In a list it is without its admission and egress, too.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// Its number, never used twice.
    pub id: i64,
    /// How far it is.
    pub state: TaskState,
    /// The image asked for.
    pub image: String,
    /// The databases asked for.
    pub databases: Vec<String>,
    /// Who asked.
    pub caller: Caller,
    /// Why it ended as it did, when that was not by completing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Every unmet condition, when the policy said no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial: Option<serde_json::Value>,
    /// Why it was allowed to run, when it was: the digest, the rule, the reviewers and the builders that counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<serde_json::Value>,
    /// What it asked of the outside, when it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<serde_json::Value>,
    /// How often it was started.
    pub attempts: u32,
    /// Whether somebody asked to cancel it.
    pub cancel_requested: bool,
    /// When it was accepted.
    pub created_at: jiff::Timestamp,
    /// When its state last changed.
    pub updated_at: jiff::Timestamp,
}

/// What a worker reports when it is done with a task.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With a result, which is JSON.
    Completed(Box<RunReport>),
    /// The algorithm ended with an error.
    Crashed {
        /// What is known of why.
        reason: String,
        /// What is known of the run.
        report: Box<RunReport>,
    },
    /// The policy does not admit the image.
    Denied(Box<Denial>),
    /// The node could not run it.
    Failed {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// It was stopped because somebody cancelled it; with what is known of the run, where it had started.
    Cancelled(Option<Box<RunReport>>),
}

/// A completed task's result on its way out, with what is written down about that.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Which task.
    pub place: RecordedTask,
    /// The image that made it.
    pub image: Subject,
    /// The entry of the node's log about the end of the run; none of a task that an older program ran.
    pub entry: Option<u64>,
    /// The result.
    pub result: Vec<u8>,
}

/// Whether a submission made a task or met one with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// A new task.
    New(i64),
    /// The task that the same key made before.
    Existing(i64),
}
