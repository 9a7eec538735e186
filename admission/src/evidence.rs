//! Gathering evidence: bundles from files, folders and registries. Nothing here is believed; it is only bounded.

use std::path::Path;

use attestations::bundle;
use attestations::decision::{MAX_EVIDENCE as MAX_BUNDLES, WantedBase, is_signed};
use attestations::{Evidence, Gathered, GoneEvidence, Noticed, Pinned, Unmet, UnusedEvidence};
use errors::{Error, Kind, Result, chain, files};
use images::Store;
use images::registry::{Attached, Budget, Client};

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

/// What was found about an image.
#[derive(Debug, Default)]
pub(crate) struct GatheredEvidence {
    /// The bundles.
    pub(crate) bundles: Vec<Evidence>,
    /// What else was noticed.
    pub(crate) noticed: Noticed,
}

impl GatheredEvidence {
    /// Adds what was found elsewhere.
    pub(crate) fn extend(&mut self, other: Self) {
        self.bundles.extend(other.bundles);
        self.noticed.extend(other.noticed);
    }
}

impl From<Attached> for GatheredEvidence {
    fn from(attached: Attached) -> Self {
        let gone = attached.gone.into_iter();
        let unused = attached.unused.into_iter();
        let bundles = attached.bundles.into_iter();
        Self {
            bundles: bundles.map(|it| Evidence { origin: it.origin, bytes: it.bytes }).collect(),
            noticed: Noticed {
                gone: gone.map(|it| GoneEvidence { origin: it.origin, kind: it.kind }).collect(),
                unused: unused
                    .map(|it| UnusedEvidence { origin: it.origin, why: it.why.to_string() })
                    .collect(),
            },
        }
    }
}

/// Why evidence could not be gathered.
#[derive(Debug)]
pub(crate) enum Failed {
    /// There is too much of it, which denies.
    Denied(Unmet),
    /// Something went wrong.
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
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

    /// The bundles in a file, or in every `.json` and `.jsonl` file of a folder. A file may hold several: lines of JSON, or
    /// one value after the other.
    ///
    /// # Errors
    /// When one cannot be read or is too large: evidence that is named has to be there. Also beyond the budget.
    pub(crate) fn in_path(&self, path: &Path) -> Result<Vec<Evidence>, Failed> {
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
            let text = format!("{} holds {} bundles: {MAX_FILES} are the most", path.display(), files.len());
            return Err(Error::new(Kind::Input, text).into());
        }
        files.sort();
        let mut found = Vec::new();
        for file in files {
            found.extend(self.file(&file)?);
        }
        Ok(found)
    }

    fn file(&self, path: &Path) -> Result<Vec<Evidence>, Failed> {
        let bytes = files::read(path, MAX_EVIDENCE)?;
        let taken = self.budget.take(bytes.len() as u64);
        taken.map_err(|cause| self.failed(cause, format!("reading {}", path.display())))?;
        let parts = bundle::split(&bytes);
        if let [only] = parts.as_slice() {
            return Ok(vec![Evidence { origin: path.display().to_string(), bytes: only.to_vec() }]);
        }
        // One more than are looked at is a denial of its own; more need not be kept.
        let each = parts.iter().take(MAX_BUNDLES + 1).enumerate();
        let origin = |at: usize| format!("{} ({} of {})", path.display(), at + 1, parts.len());
        Ok(each.map(|(at, part)| Evidence { origin: origin(at), bytes: part.to_vec() }).collect())
    }

    /// Why `doing` ended with `cause`: too much evidence denies.
    fn failed(&self, cause: images::Error, doing: String) -> Failed {
        match self.budget.exceeded() {
            Some(size) => Failed::Denied(Unmet::EvidenceSize { size, limit: MAX_EVIDENCE }),
            None => cause.during(doing).into(),
        }
    }

    /// What is attached to an image in its registry.
    ///
    /// # Errors
    /// When the registry fails: that is never the same as having none. Also beyond the budget.
    pub(crate) async fn attached(&self, pinned: &Pinned) -> Result<GatheredEvidence, Failed> {
        let is_kept = |bundle: &[u8]| self.policies.each().any(|policy| is_signed(policy, bundle));
        match self.client.attachments_within(pinned, &self.budget, self.kept, &is_kept).await {
            Ok(attached) => Ok(attached.into()),
            Err(images::Error::TooMany { count, .. }) => {
                Err(Failed::Denied(Unmet::TooMuchEvidence { count }))
            }
            Err(cause) => {
                let registry = pinned.repository().registry();
                Err(self.failed(cause, format!("asking {registry} for what is attached to the image")))
            }
        }
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
                Ok(found) => match found.noticed.gone.first() {
                    None => bundles.extend(found.bundles),
                    Some(gone) => {
                        let why = format!("{} ({}) is listed and not there", gone.origin, gone.kind);
                        return Gathered::Nothing { why };
                    }
                },
                Err(Failed::Denied(unmet)) => return Gathered::Nothing { why: unmet.found() },
                Err(Failed::Error(error)) => return Gathered::Nothing { why: chain::line(&error) },
            }
        }
        Gathered::Bundles(bundles)
    }
}
