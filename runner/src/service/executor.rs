//! What executes tasks: the node, or in tests a stand-in.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use admission::{Question, Sources};
use attestations::{Call, Decision, Older, Reference, Subject, run::Erasure};
use sandbox::Canceller;

use super::queue::{Outgoing, TaskRequest};
use crate::{
    config::EngineKind,
    error::{Error, Kind, Result},
    node::{Node, Outcome, RunRequest},
    record::RecordedTask,
    vantage6::Input,
};

/// What the service does with a task. Every call may block.
pub trait Execute: Send + Sync + 'static {
    /// Decides about a task's image and, when it is admitted, runs it to its end or until `canceller` is used. Calls
    /// `starting` when the image was admitted and its container is about to run.
    ///
    /// # Errors
    /// When the node cannot do it; a denial is not an error.
    fn execute(
        &self,
        task: &TaskRequest,
        place: &RecordedTask,
        canceller: &Canceller,
        starting: &dyn Fn(),
    ) -> Result<Outcome>;

    /// Writes down that a result leaves the node. Until that is done it is not given out.
    ///
    /// # Errors
    /// When it cannot be written.
    fn release(&self, outgoing: &Outgoing) -> Result<()>;

    /// Writes down that a task is about to be erased.
    ///
    /// # Errors
    /// When it cannot be written.
    fn erase(&self, task: u64, image: Subject, reason: Erasure) -> Result<()>;

    /// How long finished tasks are kept; none: until somebody erases them.
    fn keep(&self) -> Option<Duration>;

    /// Decides about an image, and about what is known of a call of it, without running it.
    ///
    /// # Errors
    /// When it cannot be decided; a denial is not an error.
    fn verify(&self, image: Reference, call: Call) -> Result<Decision>;
}

/// A node as what executes tasks.
pub(crate) struct NodeExecutor {
    /// The node.
    pub(crate) node: Arc<Node>,
    /// How long finished tasks are kept.
    pub(crate) keep: Option<Duration>,
    /// What starts the containers.
    pub(crate) engine: EngineKind,
    /// Files and folders with bundles.
    pub(crate) evidence: Vec<PathBuf>,
    /// Whether registries are asked.
    pub(crate) sources: Sources,
    /// The runtime on which registries are asked.
    pub(crate) runtime: tokio::runtime::Handle,
}

impl NodeExecutor {
    /// In the background: nobody waits for them here.
    fn ask_witnesses(&self) {
        let node = Arc::clone(&self.node);
        self.runtime.spawn(async move { node.ask_witnesses().await });
    }

    fn question(&self, reference: Reference, call: Call) -> Question {
        let (at, older) = (None, Older::Denied);
        Question { reference, call, evidence: self.evidence.clone(), sources: self.sources, at, older }
    }
}

impl Execute for NodeExecutor {
    fn execute(
        &self,
        task: &TaskRequest,
        place: &RecordedTask,
        canceller: &Canceller,
        starting: &dyn Fn(),
    ) -> Result<Outcome> {
        let reference: Reference = task
            .image
            .parse()
            .map_err(|cause| Error::new(Kind::Usage, "the image's name is not usable").because(cause))?;
        let input = serde_json::to_vec(&task.input)
            .map_err(|cause| Error::new(Kind::Bug, "writing the input").because(cause))?;
        let run = RunRequest {
            question: self.question(reference, Call::default()),
            input: Input::parse(&input)?,
            databases: task.databases.clone(),
            extra: BTreeMap::new(),
            caller: task.caller.clone(),
            token: task.token.clone(),
            engine: self.engine,
            canceller: canceller.clone(),
            place: place.clone(),
        };
        let outcome = self.node.run_telling(run, starting);
        self.ask_witnesses();
        outcome
    }

    fn release(&self, outgoing: &Outgoing) -> Result<()> {
        let Outgoing { place, image, entry, result } = outgoing;
        self.node.release(place, image, *entry, result).map(|_| ())
    }

    fn erase(&self, task: u64, image: Subject, reason: Erasure) -> Result<()> {
        self.node.book()?.erased(task, image, reason).map(|_| ())
    }

    fn keep(&self) -> Option<Duration> {
        self.keep
    }

    fn verify(&self, image: Reference, call: Call) -> Result<Decision> {
        self.runtime.block_on(self.node.verify(&self.question(image, call)))
    }
}
