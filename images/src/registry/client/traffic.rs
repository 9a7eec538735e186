//! Observers of transferred bytes, for progress reports only.

use std::sync::Arc;

use super::Client;

/// A report about blobs being transferred, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// This many more bytes have to be transferred, not counting those that are already there.
    Expected(u64),
    /// This many more bytes were transferred. A transfer that starts again is counted again.
    Moved(u64),
}

/// Called on whichever thread transfers the bytes, and must not block.
pub(super) type Observer = Arc<dyn Fn(Traffic) + Send + Sync>;

impl Client {
    /// Reports every blob's bytes to `observer` while they are transferred.
    #[must_use]
    pub fn observed(mut self, observer: impl Fn(Traffic) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    pub(super) fn saw(&self, traffic: Traffic) {
        saw(self.observer.as_ref(), traffic);
    }
}

/// The same for callers that do not own the client.
pub(super) fn saw(observer: Option<&Observer>, traffic: Traffic) {
    if let Some(observer) = observer {
        observer(traffic);
    }
}
