//! What a step tries where nothing is captured: nothing comes of it, but the person who reads the build's output sees it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandbox::{Attempt, Watch};

use super::names::NameTable;
use crate::step::{IncidentKind, StepRecorder};

/// How long between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Different attempts of a step that are told of.
const MAX_TOLD: usize = 64;

/// One step's watch.
pub(crate) struct BlockedConnections {
    watch: Watch,
    ports: Vec<u16>,
    names: Arc<NameTable>,
    told: Mutex<BTreeSet<Attempt>>,
}

impl BlockedConnections {
    pub(crate) fn new(watch: Watch, ports: Vec<u16>, names: Arc<NameTable>) -> BlockedConnections {
        BlockedConnections { watch, ports, names, told: Mutex::default() }
    }

    /// Tells of attempts as they come, until the task is aborted. The kernel holds some hundreds between two looks; a step
    /// that tries more at once is told of all the same, if not of each.
    pub(crate) async fn follow(self: Arc<Self>, recorder: Arc<StepRecorder>) {
        loop {
            self.take_all(&recorder);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells of everything that was tried so far.
    pub(crate) fn take_all(&self, recorder: &StepRecorder) {
        // The kernel's refusal to tell more is no reason to end a build: nothing enters by what is told here.
        while let Ok(Some(attempt)) = self.watch.next() {
            self.report(attempt, recorder);
        }
    }

    fn report(&self, attempt: Attempt, recorder: &StepRecorder) {
        let ip = attempt.to.ip().to_canonical();
        // A step may talk to itself; and a captured port answers, and tells, for itself.
        let captured =
            attempt.is_tcp && matches!(ip, IpAddr::V4(_)) && self.ports.contains(&attempt.to.port());
        if ip.is_loopback() || ip.is_unspecified() || captured {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_TOLD || !told.insert(attempt) {
            return;
        }
        let host = self.names.name_of(ip).map_or_else(|| ip.to_string(), |name| name.to_string());
        let protocol = if attempt.is_tcp { "TCP" } else { "UDP" };
        let target = format!("{host} port {} over {protocol}", attempt.to.port());
        recorder.incident(IncidentKind::Blocked, &target, "", 0);
    }
}
