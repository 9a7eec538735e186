//! Bundles whose signatures were checked before. A node is asked about the same evidence again and again, and neither a
//! bundle's bytes nor a policy's keys change.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Reason;
use super::evidence::Read;
use crate::digest::Digest;

/// The most bytes of bundles that are kept; beyond it all are forgotten.
const MAX_BYTES: usize = 64 << 20;
/// The most bundles that are kept.
const MAX_BUNDLES: usize = 8192;

/// What one bundle says, and which key of the policy signed it, by its place among them.
pub(super) type CachedRead = Result<(usize, Arc<Read>), Reason>;

/// What was found out about bundles, by the digest of the policy and that of the bundle's bytes. It lives as long as the
/// process, and nothing reaches it from outside.
#[derive(Default)]
pub struct Cache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    bytes: usize,
    found: HashMap<(Digest, Digest), CachedRead>,
}

impl Cache {
    /// What is known of a bundle, or what `find` finds out.
    pub(super) fn get(&self, policy: Digest, bundle: &[u8], find: impl FnOnce() -> CachedRead) -> CachedRead {
        let key = (policy, Digest::of(bundle));
        if let Some(known) = self.with(|kept| kept.found.get(&key).cloned()) {
            return known;
        }
        let found = find();
        self.with(|kept| {
            if kept.bytes + bundle.len() > MAX_BYTES || kept.found.len() >= MAX_BUNDLES {
                *kept = Kept::default();
            }
            // What is larger than everything together is not kept at all.
            if bundle.len() <= MAX_BYTES && kept.found.insert(key, found.clone()).is_none() {
                kept.bytes += bundle.len();
            }
        });
        found
    }

    fn with<T>(&self, work: impl FnOnce(&mut Kept) -> T) -> T {
        // A panic within leaves at most one bundle unknown.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bundles, bytes) = self.with(|kept| (kept.found.len(), kept.bytes));
        f.debug_struct("Cache").field("bundles", &bundles).field("bytes", &bytes).finish()
    }
}
