//! `lock`.

use std::path::PathBuf;

use attestations::Bundle;
use errors::{files, plural};
use serde_json::json;

use super::{Answer, Session};
use crate::lock::Lock;

use crate::error::{Error, Kind, Result};

/// Largest bundle read, in bytes.
const FILE_LIMIT: u64 = 64 << 20;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Signed provenance of the build to lock, as `build --bundle-out` writes it.
    #[arg(long, value_name = "FILE")]
    provenance: PathBuf,
    /// File to write the lock to, otherwise standard output; builds find it when it is committed next to the
    /// Dockerfile as Dockerfile.lock.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When the file is not a provenance, or the lock cannot be written.
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let path = &arguments.provenance;
    let bad = |why: &str| Error::new(Kind::Input, format!("{}: {why}", path.display()));
    // The signature is not checked: people review the lock as text before it has any effect.
    let statement = Bundle::parse(&files::read(path, FILE_LIMIT)?)
        .and_then(|bundle| bundle.statement_unverified())
        .map_err(|cause| bad("not a signed statement").because(cause))?;
    let Some(provenance) = statement.into_provenance() else {
        return Err(bad("a statement, but no provenance").hint("give the file that build --bundle-out wrote"));
    };
    let provenance = provenance.into_value();
    let lock = Lock::of(&provenance)?;
    let text = lock.to_text()?;
    let value = json!({ "event": "locked", "out": arguments.out, "lock": lock });
    match &arguments.out {
        None => session.result(&text, &value)?,
        Some(out) => {
            files::write(out, text.as_bytes())?;
            let dockerfile = &provenance.build_definition.external_parameters.dockerfile;
            let summary = format!(
                "{}: {}, {}, {} only fetched; commit it as {}",
                out.display(),
                plural(lock.bases.len(), "base"),
                plural(lock.packages.len(), "package"),
                lock.fetched.len(),
                Lock::path(dockerfile)
            );
            session.result(&summary, &value)?;
        }
    }
    Ok(Answer::Yes)
}
