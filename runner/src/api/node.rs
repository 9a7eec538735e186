//! `countersign-runner serve`: the interface before a real node.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use attestations::Decision;
use clap::Args;
use errors::chain;
use sandbox::Canceller;
use serde_json::{Value, json};

use super::{CancelFlag, Execute, ExecuteOutcome, Listen, TaskRequest, cli::DEFAULT_SOCKET};
use crate::{
    admission::{Registry, Request},
    config::{Config, EngineKind},
    engine::Ending,
    error::{Error, Kind, Result},
    node::{Node, Outcome, Report, Run},
    queue::{self, DEFAULT_MAX_ATTEMPTS, Queue},
    task::Input,
};

/// Take tasks over a Unix socket, and run those that the policy admits.
#[derive(Debug, Clone, Args)]
pub struct ServeCommand {
    /// The socket to listen on; who may open it may submit tasks.
    #[arg(long, default_value = DEFAULT_SOCKET, env = "COUNTERSIGN_RUNNER_SOCKET", value_name = "PATH")]
    socket: PathBuf,
    /// Listen on this loopback address instead, and ask for the token of --token-file.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "token_file")]
    listen: Option<SocketAddr>,
    /// The file with the token for --listen, mode 0600; made when it is missing.
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
    /// Tasks at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "NUMBER")]
    workers: u16,
    /// How often a task is started again after the server was killed while working on it.
    #[arg(long, default_value_t = DEFAULT_MAX_ATTEMPTS, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    max_attempts: u32,
    /// A bundle, or a folder of bundles (*.json), besides what the registry has. May be repeated.
    #[arg(long, value_name = "PATH")]
    evidence: Vec<PathBuf>,
    /// Ask no registry: images are named by digest, and evidence comes from --evidence alone.
    #[arg(long)]
    offline: bool,
}

impl ServeCommand {
    /// Serves until SIGTERM or SIGINT. Makes a runtime of its own: not to be called inside one.
    ///
    /// # Errors
    /// When the queue or the socket cannot be had.
    pub fn run(&self, config: Config) -> Result<()> {
        config.make_state_dir()?;
        let path = config.state_dir.join("queue.db");
        let queue = Queue::open_with(&path, self.max_attempts).map_err(queue_failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime =
            runtime.map_err(|cause| Error::new(Kind::Machine, "starting the runtime").because(cause))?;
        let registry = if self.offline { Registry::Offline } else { Registry::Asked };
        let engine = config.engine;
        let node = Node::new(config, runtime.handle().clone());
        let service = Service {
            node,
            engine,
            evidence: self.evidence.clone(),
            registry,
            runtime: runtime.handle().clone(),
        };
        let serving = super::serve(self.place()?, queue, Arc::new(service), usize::from(self.workers));
        let ended = runtime.block_on(serving);
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended.map_err(|cause| match cause {
            super::Error::Queue(cause) => queue_failed(cause),
            super::Error::InUse(_) | super::Error::NotASocket(_) | super::Error::NotLoopback(_) => {
                Error::new(Kind::Usage, "the interface cannot listen there").because(cause)
            }
            super::Error::Untrusted(cause) => cause,
            cause => Error::new(Kind::Machine, "serving the interface").because(cause),
        })
    }

    fn place(&self) -> Result<Listen> {
        if let (Some(address), Some(token_file)) = (self.listen, &self.token_file) {
            return Ok(Listen::Loopback { address, token_file: token_file.clone() });
        }
        if let Some(folder) = self.socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            make_folder(folder, 0o755)?;
        }
        Ok(Listen::Unix(self.socket.clone()))
    }
}

fn queue_failed(cause: queue::Error) -> Error {
    let hint = match &cause {
        queue::Error::DiskFull(_) => Some("free space on that disk; nothing that was accepted is lost"),
        queue::Error::InUse(_) => Some("stop the other server, or give this one another --state-dir"),
        queue::Error::Newer { .. } => Some("use the newer program, or another --state-dir"),
        _ => None,
    };
    let error = Error::new(Kind::Machine, "opening the queue");
    let error = hint.into_iter().fold(error, Error::hint);
    error.because(cause)
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    let made: io::Result<()> = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|cause| Error::io("making", path, cause))
}

/// A node as what executes tasks.
struct Service {
    node: Node,
    engine: EngineKind,
    evidence: Vec<PathBuf>,
    registry: Registry,
    runtime: tokio::runtime::Handle,
}

impl Service {
    fn request(&self, image: &str, function: Option<String>) -> Result<Request> {
        let reference = image.parse();
        let reference = reference.map_err(|cause: attestations::ReferenceError| {
            Error::new(Kind::Usage, "the image's name is not usable").because(cause)
        })?;
        Ok(Request { reference, function, evidence: self.evidence.clone(), registry: self.registry })
    }

    fn run(&self, task: &TaskRequest, cancel: &CancelFlag) -> Result<Outcome> {
        let input = serde_json::to_vec(&task.input)
            .map_err(|cause| Error::new(Kind::Bug, "writing the input").because(cause))?;
        let canceller = Canceller::new();
        let stop = canceller.clone();
        cancel.on_cancel(move || stop.cancel());
        let run = Run {
            request: self.request(&task.image, None)?,
            input: Input::parse(&input)?,
            databases: task.databases.clone(),
            extra: BTreeMap::new(),
            engine: self.engine,
            canceller,
        };
        self.node.run_telling(run, || cancel.running())
    }
}

impl Execute for Service {
    fn execute(&self, task: &TaskRequest, cancel: CancelFlag) -> ExecuteOutcome {
        match self.run(task, &cancel) {
            Ok(Outcome::Ran(report)) => ran(*report),
            Ok(Outcome::Denied(denial)) => match serde_json::to_value(&*denial) {
                Ok(denial) => ExecuteOutcome::Denied { denial },
                // Still a denial, and never anything else.
                Err(cause) => ExecuteOutcome::Denied { denial: json!({ "unwritable": cause.to_string() }) },
            },
            Err(error) => {
                let remedy = error.hint_text().unwrap_or("see the reason, and the server's log").to_owned();
                ExecuteOutcome::Failed { reason: chain::line(&error), remedy }
            }
        }
    }

    fn verify(&self, image: &str, function: Option<&str>) -> std::result::Result<Value, String> {
        let decided = self
            .request(image, function.map(str::to_owned))
            .and_then(|request| self.runtime.block_on(self.node.verify(&request)));
        match decided.map_err(|error| chain::line(&error))? {
            Decision::Admitted(admitted) => Ok(json!({ "verdict": "admitted", "admitted": admitted })),
            Decision::Denied(denial) => Ok(json!({ "verdict": "denied", "denial": denial })),
        }
    }
}

fn ran(report: Report) -> ExecuteOutcome {
    let log = report.log.bytes().to_vec();
    match (report.ending, report.result) {
        (Ending::Exited(0), Some(result)) => ExecuteOutcome::Completed { result, log },
        (ending, _) => ExecuteOutcome::Crashed { reason: format!("the algorithm failed: {ending}"), log },
    }
}
