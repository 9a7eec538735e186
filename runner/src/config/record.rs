//! What is written down of what runs: the section `[record]`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What is written down of what runs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The key that signs the record: a file with an Ed25519 key. Without it the node makes one in its state directory.
    pub key: Option<PathBuf>,
    /// The folder of the log; by default `log` in the state directory.
    pub log: Option<PathBuf>,
    /// The log's name, as checkpoints give it; by default one that is made from the key.
    pub origin: Option<String>,
    /// The witnesses that are asked to cosign the log, as C2SP tlog-policy writes them; without it nobody is asked.
    pub witnesses: Option<PathBuf>,
    /// What happens without enough cosignatures.
    #[serde(default)]
    pub quorum: Quorum,
    /// Finished tasks are erased after so many days; without it they stay until somebody erases them.
    pub keep_days: Option<u16>,
}

/// What happens without enough cosignatures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quorum {
    /// A warning: witnesses are asked in the background, and nothing waits for them.
    #[default]
    Wanted,
    /// Nothing starts, and no result is given out.
    Required,
}

impl Record {
    /// Makes the paths relative to the configuration's folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.key, &mut self.log, &mut self.witnesses].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}
