//! What a build reads of its commit: the Dockerfile and `.dockerignore`.

use attestations::Foreign;

use crate::dockerfile::ignore::{self, Ignore};
use crate::dockerfile::{self, Dockerfile};
use crate::error::{Error, Kind, Result};
use crate::project::Recipe;
use crate::source::{EntryKind, Snapshot};

/// The Dockerfile at `path`.
///
/// # Errors
/// When there is none, with those that the commit has elsewhere, or it cannot be parsed.
pub(super) fn dockerfile(snapshot: &Snapshot<'_>, path: &str) -> Result<Dockerfile> {
    let bytes = dockerfile_bytes(snapshot, path)?;
    Dockerfile::parse(&bytes).map_err(|error| Error::new(Kind::Input, format!("{path}: {error}")))
}

/// Its text.
///
/// # Errors
/// When there is none, with those that the commit has elsewhere.
pub(super) fn dockerfile_bytes(snapshot: &Snapshot<'_>, path: &str) -> Result<Vec<u8>> {
    snapshot.file(path, dockerfile::SIZE_LIMIT)?.ok_or_else(|| no_dockerfile(path, snapshot))
}

/// The most Dockerfiles that an error lists.
const MOST_LISTED: usize = 20;

/// The error for a commit without a Dockerfile at `path`, with those that it has elsewhere.
fn no_dockerfile(path: &str, snapshot: &Snapshot<'_>) -> Error {
    let error = Error::new(Kind::NotFound, format!("commit {} has no {path}", snapshot.id()));
    let is_one =
        |path: &[u8]| dockerfile::is_name_of_one(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path));
    let found = match snapshot.walk("", &is_one) {
        Ok(found) => found,
        Err(cause) => return error.because(cause),
    };
    let mut listed: Vec<String> = found
        .iter()
        .filter(|entry| entry.kind != EntryKind::Directory)
        .map(|entry| Foreign::new(&String::from_utf8_lossy(&entry.path)).to_string())
        .collect();
    let hint = match listed.as_slice() {
        [] => "commit a Dockerfile there".to_owned(),
        [first, ..] => format!(
            "name the one that is meant: --file {first}, and --context FOLDER if it is built in a folder"
        ),
    };
    let more = listed.len().saturating_sub(MOST_LISTED);
    listed.truncate(MOST_LISTED);
    let mut details: Vec<String> = listed.into_iter().map(|path| format!("it has {path}")).collect();
    details.extend((more > 0).then(|| format!("and {more} more")));
    error.details(details).hint(hint)
}

/// What is left out of the context. `<Dockerfile>.dockerignore` replaces the one in the context.
///
/// # Errors
/// When it cannot be read or parsed.
pub(super) fn ignore(snapshot: &Snapshot<'_>, recipe: &Recipe) -> Result<Ignore> {
    let of_context = match recipe.context.as_str() {
        "" => ".dockerignore".to_owned(),
        context => format!("{context}/.dockerignore"),
    };
    for path in [format!("{}.dockerignore", recipe.dockerfile), of_context] {
        if let Some(bytes) = snapshot.file(&path, ignore::SIZE_LIMIT)? {
            return Ignore::parse(&bytes)
                .map_err(|error| Error::new(Kind::Input, format!("{path}: {error}")));
        }
    }
    Ok(Ignore::default())
}
