//! Connection attempts to anything that is not served: they fail, and are reported to whoever reads the build's
//! output.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandbox::{Attempt, Watch};

use super::names::NameTable;
use crate::step::{IncidentKind, StepRecorder};

/// The interval of checks for new attempts.
const LOOK: Duration = Duration::from_millis(20);

/// The most different attempts of a step that are reported.
const MAX_REPORTED: usize = 64;

/// The blocked connections of one step.
pub(crate) struct BlockedConnections {
    watch: Watch,
    ports: Vec<u16>,
    names: Arc<NameTable>,
    reported: Mutex<BTreeSet<Attempt>>,
}

impl BlockedConnections {
    pub(crate) fn new(watch: Watch, ports: Vec<u16>, names: Arc<NameTable>) -> BlockedConnections {
        BlockedConnections { watch, ports, names, reported: Mutex::default() }
    }

    /// Reports attempts as they occur, until the task is aborted. The kernel queues some hundreds between two checks;
    /// of more than that not every one is reported.
    pub(crate) async fn follow(self: Arc<Self>, recorder: Arc<StepRecorder>) {
        loop {
            self.take_all(&recorder);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reports all attempts so far.
    pub(crate) fn take_all(&self, recorder: &StepRecorder) {
        // If the kernel fails to report more, the build need not fail: nothing entered it through these attempts.
        while let Ok(Some(attempt)) = self.watch.next() {
            self.report(attempt, recorder);
        }
    }

    fn report(&self, attempt: Attempt, recorder: &StepRecorder) {
        let ip = attempt.to.ip().to_canonical();
        // Loopback is allowed, and served ports report their own incidents.
        let captured =
            attempt.is_tcp && matches!(ip, IpAddr::V4(_)) && self.ports.contains(&attempt.to.port());
        if ip.is_loopback() || ip.is_unspecified() || captured {
            return;
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() >= MAX_REPORTED || !reported.insert(attempt) {
            return;
        }
        let host = self.names.name_of(ip).map_or_else(|| ip.to_string(), |name| name.to_string());
        let protocol = if attempt.is_tcp { "TCP" } else { "UDP" };
        let target = format!("{host} port {} over {protocol}", attempt.to.port());
        recorder.incident(IncidentKind::Blocked, &target, "", 0);
    }
}
