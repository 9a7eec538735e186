//! `lock`.

use std::path::PathBuf;

use attestations::{Bundle, Predicate};
use errors::{files, plural};
use serde_json::json;

use super::Lock;
use crate::cli::{Answer, Session};
use crate::error::{Error, Kind, Result};

/// Largest bundle read, in bytes.
const FILE_LIMIT: u64 = 64 << 20;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The signed provenance of the build whose bases and packages are to be locked.
    #[arg(long, value_name = "FILE")]
    provenance: PathBuf,
    /// Write the lock there; it is found when it lies beside the Dockerfile, as Dockerfile.lock. Standard output otherwise.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When the file is no provenance, or the lock cannot be written.
pub fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let path = &arguments.provenance;
    let bad = |why: &str| Error::new(Kind::Input, format!("{}: {why}", path.display()));
    // Whoever signed it: the lock is text, which people review before it counts for anything.
    let statement = Bundle::parse(&files::read(path, FILE_LIMIT)?)
        .and_then(|bundle| bundle.statement_unverified())
        .map_err(|cause| bad("not a signed statement").because(cause))?;
    let Predicate::Provenance(provenance) = statement.predicate else {
        return Err(bad("a statement, but no provenance").hint("give the file that build --bundle-out wrote"));
    };
    let lock = Lock::of(&provenance)?;
    let text = lock.to_text()?;
    let value = json!({ "event": "locked", "out": arguments.out, "lock": lock });
    match &arguments.out {
        None => session.result(&text, &value)?,
        Some(out) => {
            files::write(out, text.as_bytes())?;
            let dockerfile = &provenance.build_definition.external_parameters.dockerfile;
            let told = format!(
                "{}: {}, {}; commit it as {}",
                out.display(),
                plural(lock.bases.len(), "base"),
                plural(lock.packages.len(), "package"),
                Lock::path(dockerfile)
            );
            session.result(&told, &value)?;
        }
    }
    Ok(Answer::Yes)
}
