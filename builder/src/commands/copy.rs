//! `copy`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::str::FromStr;

use attestations::Reference;
use errors::files::{self, Existing};
use errors::plural;
use images::Store;
use images::archive::{self, Files};
use images::registry::{Carried, ToCarry};
use serde_json::json;
use tempfile::TempDir;

use super::registries::Reach;
use super::{Answer, Session};
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::registry::Registry;

/// Copy an image with everything that is attached to it: to another registry, a folder or one file, and back.
///
/// A place is a reference (registry.example/team/algo:1), a folder with an OCI image layout (oci:FOLDER or
/// oci:FOLDER:NAME), or one file (oci-archive:FILE).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the image is.
    #[arg(value_name = "FROM")]
    from: Place,
    /// Where to copy it to; a reference has a tag.
    #[arg(value_name = "TO")]
    to: Place,
    #[command(flatten)]
    reach: Reach,
}

/// Where an image is, or is copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Registry(Reference),
    Folder { path: PathBuf, name: Option<String> },
    File(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |text: &str| match text {
            "" => Err("give a path after the colon".to_owned()),
            text => Ok(PathBuf::from(text)),
        };
        if let Some(file) = text.strip_prefix("oci-archive:") {
            return Ok(Self::File(path(file)?));
        }
        let Some(folder) = text.strip_prefix("oci:") else {
            return text
                .parse()
                .map(Self::Registry)
                .map_err(|cause: attestations::ReferenceError| cause.to_string());
        };
        Ok(match folder.rsplit_once(':') {
            Some((folder, name)) if !name.contains('/') => {
                Self::Folder { path: path(folder)?, name: Some(name.to_owned()) }
            }
            _ => Self::Folder { path: path(folder)?, name: None },
        })
    }
}

/// Runs it.
///
/// # Errors
/// See [`Kind`].
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let runtime = session.workspace().runtime()?;
    let registry =
        Registry::new(arguments.reach.registries()?, session.workspace(), runtime.handle().clone());
    check(&arguments.to)?;
    let (_folder, store) = store_for(&arguments.to)?;
    let carried = match &arguments.from {
        Place::Registry(reference) => registry.fetch_all(reference, &store, ToCarry::Everything)?,
        Place::Folder { path, name } => {
            let from = Store::open_existing(path)?;
            let carried = Carried::find_in(&from, name.as_deref())?;
            carried.check(&from)?;
            carried.copy_blobs(&from, &store)?;
            carried
        }
        Place::File(path) => {
            let file = File::open(path).map_err(|cause| Error::io("opening", path, cause))?;
            archive::read_layout(BufReader::new(file), &store)?;
            let carried = Carried::find_in(&store, None)?;
            carried.check(&store)?;
            carried
        }
    };
    let left = match &arguments.to {
        Place::Registry(reference) => send(&registry, &carried, &store, reference, session)?,
        Place::Folder { name, .. } => {
            carried.name_in(&store, name.as_deref().unwrap_or(&name_of(&arguments.from)))?;
            Vec::new()
        }
        Place::File(path) => {
            carried.name_in(&store, &name_of(&arguments.from))?;
            let write = |out: &mut std::io::BufWriter<&File>| {
                archive::write_layout(&store, &Files::new(), out).map_err(Error::from)
            };
            files::write_with(path, Existing::Replaced, 0o644, write)?;
            Vec::new()
        }
    };
    let text =
        format!("{} with {} attached to it", carried.digest(), plural(carried.count(), "statement or file"));
    let value = json!({ "digest": carried.digest(), "attached": carried.count(), "left": left });
    session.result(&text, &value)?;
    Ok(if left.is_empty() { Answer::Yes } else { Answer::No })
}

fn check(to: &Place) -> Result<()> {
    match to {
        Place::Registry(reference) if reference.tag().is_none() || reference.digest().is_some() => {
            Err(Error::new(Kind::Usage, format!("{reference} must name a tag and no digest"))
                .hint("name where the copy is to be found, such as registry.example/team/algo:1"))
        }
        _ => Ok(()),
    }
}

/// The store that everything goes through: the folder itself where that is the target, and otherwise one beside it that
/// goes away.
fn store_for(to: &Place) -> Result<(Option<TempDir>, Store)> {
    let beside = match to {
        Place::Folder { path, .. } => return Ok((None, Store::open(path)?)),
        Place::File(path) => files::folder_of(path),
        Place::Registry(_) => &std::env::temp_dir(),
    };
    let folder = TempDir::with_prefix_in(".countersign-copy", beside);
    let folder = folder.map_err(|cause| Error::io("making a folder in", beside, cause))?;
    let store = Store::open(folder.path())?;
    Ok((Some(folder), store))
}

/// The name that the copy gets in a layout.
fn name_of(from: &Place) -> String {
    match from {
        Place::Registry(reference) => reference.tag().unwrap_or("image").to_owned(),
        Place::Folder { name: Some(name), .. } => name.clone(),
        Place::Folder { .. } | Place::File(_) => "image".to_owned(),
    }
}

fn send(
    registry: &Registry,
    carried: &Carried,
    store: &Store,
    to: &Reference,
    session: &Session,
) -> Result<Vec<String>> {
    let copied = registry.send_all(carried, store, to)?;
    for left in &copied.left {
        let message = format!("not attached in the copy, since that registry lists nothing: {left}");
        session.workspace().report(&Event::Warning { message: &message, path: None });
    }
    Ok(copied.left)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_read_or_refused() {
        let read = |text: &str| text.parse::<Place>();
        assert!(matches!(read("r.example:5000/a:1"), Ok(Place::Registry(_))));
        let folder = |path: &str, name: Option<&str>| Place::Folder {
            path: path.into(),
            name: name.map(str::to_owned),
        };
        assert_eq!(read("oci:x/y").unwrap(), folder("x/y", None));
        assert_eq!(read("oci:x:1.0").unwrap(), folder("x", Some("1.0")));
        assert_eq!(read("oci-archive:x.tar").unwrap(), Place::File("x.tar".into()));
        for text in ["", "oci:", "oci-archive:", "x y", "r.example/a"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(check(&read("r.example/a:1").unwrap()).is_ok());
        let pinned = format!("r.example/a@sha256:{}", "a".repeat(64));
        assert!(check(&read(&pinned).unwrap()).is_err());
    }
}
