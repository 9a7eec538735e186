//! What every part of the builder needs: the state directory and the progress report.
//!
//! Printing a command's result is not part of it; that is for the command line (`commands`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};

/// The state directory and the reporter of one run of the program.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    state_dir: PathBuf,
    progress: Arc<Progress>,
}

impl Workspace {
    /// A workspace with its state below `state_dir`. Nothing is created yet.
    pub(crate) fn new(state_dir: impl Into<PathBuf>, progress: Arc<Progress>) -> Self {
        Self { state_dir: state_dir.into(), progress }
    }

    /// The state directory. Whoever needs a folder below it creates it.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Where progress is reported.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Reports an event on standard error. A reader that went away does not stop the work.
    pub(crate) fn report(&self, event: &Event<'_>) {
        self.progress.report(event);
    }

    /// A runtime for network requests.
    ///
    /// # Errors
    /// When the machine refuses threads or an event queue.
    pub(crate) fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|cause| Error::new(Kind::Machine, "starting the network runtime").because(cause))
    }
}
