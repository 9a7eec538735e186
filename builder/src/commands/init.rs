//! `init`.

use std::path::{Path, PathBuf};

use errors::files;
use serde_json::json;

use super::{Answer, Session};
use crate::dockerfile;
use crate::error::{Error, Kind, Result};
use crate::project;

/// How deep Dockerfiles are looked for.
const DEEPEST: usize = 6;
/// The most Dockerfiles that get a section.
const MOST: usize = 50;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Root of the repository; an existing countersign.toml is not overwritten.
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes the file, with a section for each Dockerfile.
///
/// # Errors
/// When the file exists, or cannot be written.
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let mut found = Vec::new();
    find(&arguments.folder, "", 0, &mut found)?;
    found.sort();
    found.truncate(MOST);
    let path = arguments.folder.join(project::PATH);
    let text = project::example::of(&found);
    files::write_new(&path, text.as_bytes()).map_err(|error| match error.kind() {
        Kind::Usage => Error::new(Kind::Usage, format!("{} exists", path.display()))
            .hint("change that file; docs/countersign-toml.md explains every setting"),
        _ => error,
    })?;
    let summary = format!("wrote {}; read it, change it, and commit it", path.display());
    session.result(&summary, &json!({ "event": "initialised", "path": path, "dockerfiles": found }))?;
    Ok(Answer::Yes)
}

/// The Dockerfiles in a folder, as paths from the root. Hidden folders are left out.
fn find(root: &Path, folder: &str, depth: usize, found: &mut Vec<String>) -> Result<()> {
    let place = root.join(folder);
    let failed = |cause| Error::io("reading", &place, cause);
    for entry in std::fs::read_dir(&place).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && depth < DEEPEST && !name.starts_with('.') {
            find(root, &path, depth + 1, found)?;
        } else if !kind.is_dir() && dockerfile::is_name_of_one(name.as_bytes()) {
            found.push(path);
        }
    }
    Ok(())
}
