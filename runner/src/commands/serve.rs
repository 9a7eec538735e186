//! `countersign-runner serve`: the service in front of a node.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use admission::Sources;
use clap::Args;

use super::task::DEFAULT_SOCKET;
use crate::{
    config::Config,
    error::{Error, Kind, Result},
    node::{Node, Remembering},
    service::{
        self, Listen, NodeExecutor,
        queue::{self, DEFAULT_MAX_ATTEMPTS, Queue},
    },
};

/// Serve the task API on a Unix socket or loopback, and run the tasks that are admitted.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeCommand {
    /// Unix socket to listen on; anyone who may open it may submit tasks and read results.
    #[arg(long, default_value = DEFAULT_SOCKET, env = "COUNTERSIGN_RUNNER_SOCKET", value_name = "PATH")]
    socket: PathBuf,
    /// Listen on this loopback address instead of the socket; clients must send the token of --token-file.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "token_file")]
    listen: Option<SocketAddr>,
    /// File with the token that clients of --listen must send; created with mode 0600 if it does not exist.
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
    /// Most tasks that run at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "NUMBER")]
    workers: u16,
    /// Most times that a task is started, if the server is killed while the task runs.
    #[arg(long, default_value_t = DEFAULT_MAX_ATTEMPTS, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    max_attempts: u32,
    /// Signed statement (Sigstore bundle), or a folder of them (*.json), to consider besides those in the registry;
    /// may be given several times.
    #[arg(long, value_name = "PATH")]
    evidence: Vec<PathBuf>,
    /// Contact no registry: images must be named by digest, and all statements must be given with --evidence.
    #[arg(long)]
    offline: bool,
}

impl ServeCommand {
    /// Serves until SIGTERM or SIGINT. Makes a runtime of its own: not to be called inside one.
    ///
    /// # Errors
    /// When the queue or the socket cannot be had.
    pub(super) fn run(&self, config: Config) -> Result<()> {
        config.make_state_dir()?;
        let path = config.state_dir.join("queue.db");
        let queue = Queue::open_with(&path, self.max_attempts).map_err(queue_failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime =
            runtime.map_err(|cause| Error::new(Kind::Machine, "starting the runtime").because(cause))?;
        let sources = if self.offline { Sources::Offline } else { Sources::Registries };
        let engine = config.engine;
        let keep = config.record.keep_days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
        let node = Node::new(config, runtime.handle().clone(), Remembering::Always)?;
        // What cannot be written down does not run: better to hear it now.
        node.book()?;
        let executor = NodeExecutor {
            node: Arc::new(node),
            keep,
            engine,
            evidence: self.evidence.clone(),
            sources,
            runtime: runtime.handle().clone(),
        };
        let serving = service::serve(self.listen()?, queue, Arc::new(executor), usize::from(self.workers));
        let ended = runtime.block_on(serving);
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended.map_err(|cause| match cause {
            service::Error::Queue(cause) => queue_failed(cause),
            service::Error::InUse(_) | service::Error::NotASocket(_) | service::Error::NotLoopback(_) => {
                Error::new(Kind::Usage, "the interface cannot listen there").because(cause)
            }
            service::Error::Untrusted(cause) => cause,
            cause => Error::new(Kind::Machine, "serving the interface").because(cause),
        })
    }

    fn listen(&self) -> Result<Listen> {
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
