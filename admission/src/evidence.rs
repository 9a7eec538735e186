//! Gathering evidence: bundles from files, folders and registries. Nothing here is believed; it is only bounded.

use std::path::Path;

use attestations::bundle;
use attestations::decision::{MAX_EVIDENCE as MAX_BUNDLES, WantedBase, is_signed};
use attestations::{Evidence, Gathered, Pinned};
use errors::{Error, Kind, Result, chain, files};
use images::Store;
use images::registry::{Budget, Client};

use crate::policy::Loaded;

/// The most bytes of all evidence of one decision, about the image and its bases.
pub(crate) const MAX_EVIDENCE: u64 = 64 << 20;
/// The most bundles from one folder.
const MAX_FILES: usize = 512;
/// The most places that one base is looked for in. More are not a choice among them: each may hold a veto.
const MAX_PLACES: usize = 4;

/// Gathers the evidence of one decision, within one budget.
pub(crate) struct Gathering<'a> {
    client: &'a Client,
    policies: &'a Loaded,
    kept: Option<&'a Store>,
    budget: Budget,
}

impl<'a> Gathering<'a> {
    /// One for a decision by `policies`. What is in `kept` is not fetched again; what somebody of them signed is put there.
    pub(crate) fn new(client: &'a Client, policies: &'a Loaded, kept: Option<&'a Store>) -> Self {
        Self { client, policies, kept, budget: Budget::new(MAX_EVIDENCE) }
    }

    /// The policies that are decided by.
    pub(crate) fn policies(&self) -> &'a Loaded {
        self.policies
    }

    /// How many bytes of evidence there are at least, when those are too many.
    pub(crate) fn exceeded(&self) -> Option<u64> {
        self.budget.exceeded()
    }

    /// The bundles in a file, or in every `.json` and `.jsonl` file of a folder. A file may hold several: lines of JSON, or
    /// one value after the other.
    ///
    /// # Errors
    /// When one cannot be read or is too large: evidence that is named has to be there. Also beyond the budget.
    pub(crate) fn in_path(&self, path: &Path) -> Result<Vec<Evidence>> {
        if !path.is_dir() {
            return self.file(path);
        }
        let entries = std::fs::read_dir(path).map_err(|cause| Error::io("reading", path, cause))?;
        let mut files = Vec::new();
        for entry in entries {
            let file = entry.map_err(|cause| Error::io("reading", path, cause))?.path();
            let is_json = file.extension().is_some_and(|it| it == "json" || it == "jsonl");
            if is_json && file.is_file() {
                files.push(file);
            }
        }
        if files.len() > MAX_FILES {
            return Err(Error::new(
                Kind::Input,
                format!("{} holds {} bundles: {MAX_FILES} are the most", path.display(), files.len()),
            ));
        }
        files.sort();
        let mut found = Vec::new();
        for file in files {
            found.extend(self.file(&file)?);
        }
        Ok(found)
    }

    fn file(&self, path: &Path) -> Result<Vec<Evidence>> {
        let bytes = files::read(path, MAX_EVIDENCE)?;
        let taken = self.budget.take(bytes.len() as u64);
        taken.map_err(|cause| cause.during(format!("reading {}", path.display())))?;
        let parts = bundle::split(&bytes);
        if let [only] = parts.as_slice() {
            return Ok(vec![Evidence { origin: path.display().to_string(), bytes: only.to_vec() }]);
        }
        // One more than are looked at is a denial of its own; more need not be kept.
        let each = parts.iter().take(MAX_BUNDLES + 1).enumerate();
        let origin = |at: usize| format!("{} ({} of {})", path.display(), at + 1, parts.len());
        Ok(each.map(|(at, part)| Evidence { origin: origin(at), bytes: part.to_vec() }).collect())
    }

    /// The bundles that are attached to an image in its registry.
    ///
    /// # Errors
    /// When the registry fails: that is never the same as having none. Also beyond the budget.
    pub(crate) async fn attached(&self, pinned: &Pinned) -> Result<Vec<Evidence>> {
        let doing = format!("asking {} for what is attached to the image", pinned.repository().registry());
        let is_kept = |bundle: &[u8]| self.policies.each().any(|policy| is_signed(policy, bundle));
        let found = self.client.attachments_within(pinned, &self.budget, self.kept, &is_kept).await;
        Ok(found
            .map_err(|cause| cause.during(&doing))?
            .into_iter()
            .map(|attachment| Evidence { origin: attachment.origin, bytes: attachment.bytes })
            .collect())
    }

    /// The bundles that are attached to a base, in every place that its provenance names and the policy lets us ask. What
    /// goes wrong is part of the answer, which then never allows the base: a registry of somebody else's must not keep a
    /// node from saying why.
    pub(crate) async fn of_base(&self, base: &WantedBase) -> Gathered {
        if base.places.is_empty() {
            return Gathered::Nothing { why: format!("there is nowhere to ask: {}", base.not_asked) };
        }
        if base.places.len() > MAX_PLACES {
            let why =
                format!("it is in {} places: {MAX_PLACES} are the most that are asked", base.places.len());
            return Gathered::Nothing { why };
        }
        let mut bundles = Vec::new();
        for place in &base.places {
            match self.attached(place).await {
                Ok(found) => bundles.extend(found),
                Err(error) => return Gathered::Nothing { why: chain::line(&error) },
            }
        }
        Gathered::Bundles(bundles)
    }
}
