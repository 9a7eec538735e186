//! Listing what was attached, although others do so at the same moment.
//!
//! A tag can only be written as a whole, and no registry offers more: whoever read it before somebody else wrote it
//! takes that entry away again (distribution-spec, "Referrers Tag Schema": protection against that is the
//! responsibility of clients). So a writer looks again after a pause, puts back what it saw and misses, also what
//! others lost, and is done when two looks agree. Registries with the API are looked at as well: some lose entries.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use attestations::{Digest, Pinned};

use super::super::client::Client;
use super::fallback::Tag;
use super::lists::{List, Written};
use super::referrers::Api;
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, RegistryFailure, Result};

/// Each look that finds something missing is followed by a write, as long as there are any left.
const WRITES: usize = 16;
/// The most looks. Two agree at once where nobody else writes.
const LOOKS: usize = 64;
/// The bounds of a pause.
const SHORTEST: Duration = Duration::from_millis(30);
const LONGEST: Duration = Duration::from_secs(2);
/// A pause takes as long as this many looks, at least, so that a writer who is between its look and its write gets done.
const ROUND_TRIPS: u32 = 4;

/// A manifest that was sent, and is to be listed.
pub(super) struct Sent {
    /// As a list names it.
    pub(super) entry: Descriptor,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether the registry said that it lists it.
    pub(super) is_promised: bool,
}

/// What came of listing.
pub(super) enum Settled {
    /// Everything is listed, and stays so.
    Yes,
    /// The registry does not let the list be written, for this reason.
    Refused(String),
}

impl Client {
    /// Adds entries to a list under a tag.
    ///
    /// # Errors
    /// When the registry fails, or keeps losing entries.
    pub(super) async fn settle(&self, subject: &Pinned, list: List, own: &[Descriptor]) -> Result<Settled> {
        let mut seen: BTreeMap<Digest, Descriptor> =
            own.iter().map(|entry| (entry.digest, entry.clone())).collect();
        let (mut before, mut pause) = (None, Pause::new());
        let (mut writes, mut is_fresh) = (0, true);
        for _ in 0..LOOKS {
            let begun = Instant::now();
            let listed = match self.read_list(subject, list).await? {
                Tag::Lists(listed) => listed,
                Tag::Subject if writes > 0 => {
                    return Ok(Settled::Refused(reads_as_digest(&list.tag(subject))));
                }
                Tag::Empty | Tag::Subject | Tag::Other => Vec::new(),
            };
            pause.measured(begun.elapsed());
            let now: BTreeSet<Digest> = listed.iter().map(|entry| entry.digest).collect();
            seen.extend(listed.iter().map(|entry| (entry.digest, entry.clone())));
            let lost = self.lost(subject, list, own, &now, &mut seen).await?;
            if lost.is_empty() {
                if before.as_ref() == Some(&now) {
                    return Ok(Settled::Yes);
                }
                before = Some(now);
                pause.rest().await;
                continue;
            }
            before = None;
            // The look before a write has to be fresh: what was written in a pause would be lost.
            if !is_fresh {
                is_fresh = true;
                pause.grow();
                pause.rest().await;
                continue;
            }
            if writes == WRITES {
                break;
            }
            if let Written::Refused(reason) = self.write_list(subject, list, [listed, lost].concat()).await? {
                return Ok(Settled::Refused(reason));
            }
            (writes, is_fresh) = (writes + 1, false);
        }
        Err(lost_for_good(subject, &format!("the tag {}", list.tag(subject))))
    }

    /// What is missing in a list: our own entries, and those of others that were there before and still exist.
    async fn lost(
        &self,
        subject: &Pinned,
        list: List,
        own: &[Descriptor],
        now: &BTreeSet<Digest>,
        seen: &mut BTreeMap<Digest, Descriptor>,
    ) -> Result<Vec<Descriptor>> {
        let missing: Vec<Descriptor> =
            seen.values().filter(|entry| !now.contains(&entry.digest)).cloned().collect();
        let mut lost = Vec::new();
        for entry in missing {
            let is_own = own.iter().any(|it| it.digest == entry.digest);
            if is_own || self.is_there(subject, list, &entry.digest).await? {
                lost.push(entry);
            } else {
                // It was deleted, with its entry: that is no loss.
                seen.remove(&entry.digest);
            }
        }
        Ok(lost)
    }

    /// Waits until the registry's own list has what was sent, and sends again what it lost.
    ///
    /// # Errors
    /// When the registry fails, or keeps losing entries.
    pub(super) async fn settle_by_registry(&self, subject: &Pinned, sent: &[Sent]) -> Result<()> {
        let (mut agreed, mut pause) = (0, Pause::new());
        for _ in 0..WRITES {
            let begun = Instant::now();
            let listed = match self.referrers(subject).await? {
                Api::Lists(listed) => listed,
                Api::Absent => Vec::new(),
            };
            pause.measured(begun.elapsed());
            let now: BTreeSet<Digest> = listed.iter().map(|entry| entry.digest).collect();
            let lost: Vec<&Sent> = sent.iter().filter(|it| !now.contains(&it.entry.digest)).collect();
            agreed = if lost.is_empty() { agreed + 1 } else { 0 };
            if agreed == 2 {
                return Ok(());
            }
            for it in lost {
                let digest = it.entry.digest.to_string();
                let bytes = it.bytes.clone();
                self.put_manifest(subject.repository(), &digest, descriptor::MANIFEST, bytes).await?;
                pause.grow();
            }
            pause.rest().await;
        }
        Err(lost_for_good(subject, "its list of referrers"))
    }
}

/// Why nothing can be listed in a registry that takes a tag for a digest.
fn reads_as_digest(tag: &str) -> String {
    format!("it has no referrers API, and takes the tag {tag} for the image's own digest")
}

fn lost_for_good(subject: &Pinned, what: &str) -> Error {
    let reason = format!(
        "{what} kept losing what was attached to {}: attach it again when nobody else does",
        subject.digest()
    );
    Error::registry(subject.repository().registry(), RegistryFailure::Answer, reason)
}

/// Pauses of random lengths.
struct Pause {
    least: Duration,
}

impl Pause {
    fn new() -> Self {
        Self { least: SHORTEST }
    }

    /// A look took so long.
    fn measured(&mut self, look: Duration) {
        self.least = self.least.max(look * ROUND_TRIPS).min(LONGEST);
    }

    /// Something was lost: longer from now on.
    fn grow(&mut self) {
        self.least = (self.least * 3 / 2).min(LONGEST);
    }

    /// Waits between one and two times the least.
    async fn rest(&self) {
        tokio::time::sleep(self.least + self.least.mul_f64(fraction())).await;
    }
}

/// A random number from 0 to 1: the seed that hash maps get. Writers only have to differ in it.
fn fraction() -> f64 {
    let seed = RandomState::new().build_hasher().finish();
    f64::from((seed >> 32) as u32) / f64::from(u32::MAX)
}
