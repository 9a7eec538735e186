//! Gathering evidence: bundles from files, folders and the registry. Nothing here is believed; it is only bounded.

use std::path::Path;

use attestations::decision::WantedBase;
use attestations::{Evidence, Gathered, Pinned};
use images::Store;

use errors::{chain, files};

use crate::config;
use crate::error::{self, Error, Kind, Result};

/// The most bundles from one folder.
const MAX_FILES: usize = 512;
/// The most places that one base is looked for in. More are not a choice among them: each may hold a veto.
const MAX_PLACES: usize = 4;

/// The bundles in a file, or in every `.json` file of a folder.
///
/// # Errors
/// When one cannot be read or is too large: evidence that is named has to be there.
pub fn from_path(path: &Path) -> Result<Vec<Evidence>> {
    if !path.is_dir() {
        return Ok(vec![one(path)?]);
    }
    let entries = std::fs::read_dir(path).map_err(|cause| Error::io("reading", path, cause))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|cause| Error::io("reading", path, cause))?.path();
        if file.extension().is_some_and(|extension| extension == "json") && file.is_file() {
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
    files.iter().map(|file| one(file)).collect()
}

/// The bundles that are attached to an image in its registry; those in `kept` are not fetched again.
///
/// # Errors
/// When the registry fails: that is never the same as having none.
pub async fn from_registry(
    client: &images::registry::Client,
    pinned: &Pinned,
    kept: Option<&Store>,
) -> Result<Vec<Evidence>> {
    let doing = format!("asking {} for what is attached to the image", pinned.repository().registry());
    let found = client.attachments_kept(pinned, kept).await.map_err(|cause| error::images(&doing, cause))?;
    Ok(found
        .into_iter()
        .map(|attachment| Evidence { origin: attachment.origin, bytes: attachment.bytes })
        .collect())
}

/// The bundles that are attached to a base, in every place that its provenance names and the policy lets us ask. What goes
/// wrong is part of the answer, which then never allows the base: a registry of somebody else's must not keep a node from
/// telling why.
pub async fn of_base(client: &images::registry::Client, base: &WantedBase, kept: Option<&Store>) -> Gathered {
    let not_asked = base.not_asked.to_string();
    if base.places.is_empty() {
        return Gathered::Nothing { why: format!("there is nowhere to ask: {not_asked}") };
    }
    if base.places.len() > MAX_PLACES {
        let why = format!("it is in {} places: {MAX_PLACES} are the most that are asked", base.places.len());
        return Gathered::Nothing { why };
    }
    let mut bundles = Vec::new();
    for place in &base.places {
        match from_registry(client, place, kept).await {
            Ok(found) => bundles.extend(found),
            Err(error) => return Gathered::Nothing { why: chain::line(&error) },
        }
    }
    Gathered::Bundles(bundles)
}

fn one(path: &Path) -> Result<Evidence> {
    Ok(Evidence { origin: path.display().to_string(), bytes: files::read(path, config::MAX_FILE)? })
}
