//! Who wants to see bytes on their way: for people who wait, and for nothing else.

use std::sync::Arc;

use super::Client;

/// What is told of blobs on their way, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// So many more bytes have to move: what is there already is not among them.
    Expected(u64),
    /// So many more bytes have moved. What breaks off and begins again is counted again.
    Moved(u64),
}

/// Is called from whichever thread moves the bytes, and must not wait.
pub(super) type Observer = Arc<dyn Fn(Traffic) + Send + Sync>;

impl Client {
    /// Tells `observer` of every blob's bytes, as they move.
    #[must_use]
    pub fn observed(mut self, observer: impl Fn(Traffic) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    pub(super) fn saw(&self, traffic: Traffic) {
        saw(self.observer.as_ref(), traffic);
    }
}

/// The same for who cannot keep the client.
pub(super) fn saw(observer: Option<&Observer>, traffic: Traffic) {
    if let Some(observer) = observer {
        observer(traffic);
    }
}
