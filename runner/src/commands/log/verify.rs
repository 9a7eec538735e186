//! `log verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use errors::{Form, files};
use serde_json::json;
use tlog::{Checkpoint, Reader, SignedCheckpoint, VerifierKey};

use super::{LogArguments, MAX_FILE, read};
use crate::commands::output::{GREEN, YES, verdict};
use crate::config::Config;
use crate::error::{Error, Kind, Result};

#[derive(Debug, Args)]
pub(super) struct VerifyCommand {
    /// File with an earlier checkpoint of this log, from which the log must go on; may be given several times.
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
}

impl VerifyCommand {
    /// Reads the log as it is: unlike every other command on the node's own log it mends nothing before.
    pub(super) fn run(
        &self,
        place: &LogArguments,
        config: &impl Fn() -> Result<Config>,
        form: Form,
    ) -> Result<u8> {
        let key = place.key(config)?;
        let folder = match &place.dir {
            Some(dir) => dir.clone(),
            None => config()?.log_folder(),
        };
        let earlier = self.against.iter().map(|path| earlier(path, &key)).collect::<Result<Vec<_>>>()?;
        let reader = Reader::open(&folder, &key).map_err(refused)?;
        let checked = reader.check(&earlier, |index, bytes| {
            read::entry(index, bytes, &key).map(|_| ()).map_err(Failure::Entry)
        });
        let checked = checked.map_err(|failure| match failure {
            Failure::Entry(error) => error,
            Failure::Log(error) => refused(error),
        })?;
        let Checkpoint { origin, size, root } = reader.checkpoint();
        let rest = format!(
            ": {size} entries of {origin}, each signed; the log goes on from {} earlier checkpoints",
            checked.earlier
        );
        let value = json!({
            "verdict": "verified", "origin": origin, "entries": size, "root": root.to_string(),
            "earlierCheckpoints": checked.earlier,
        });
        verdict(form, "verified", GREEN, &rest, &value)?;
        Ok(YES)
    }
}

enum Failure {
    Log(tlog::Error),
    Entry(Error),
}

impl From<tlog::Error> for Failure {
    fn from(error: tlog::Error) -> Self {
        Self::Log(error)
    }
}

/// A checkpoint that somebody kept.
fn earlier(path: &Path, key: &VerifierKey) -> Result<Checkpoint> {
    let signed = SignedCheckpoint::parse(&files::read(path, MAX_FILE)?)?;
    let checkpoint = signed.verify(key).map_err(|cause| {
        Error::new(Kind::Input, format!("{} is no checkpoint that this key signed", path.display()))
            .because(cause)
    })?;
    Ok(checkpoint.clone())
}

/// Whatever is wrong with the log is a no.
fn refused(error: tlog::Error) -> Error {
    let error = Error::from(error);
    match error.kind() {
        Kind::Machine if std::error::Error::source(&error).is_some() => error,
        _ => {
            let hint = "keep the files as they are, and find out who changed them".to_owned();
            let hint = error.hint_text().map_or(hint, str::to_owned);
            Error::new(Kind::Refused, error.to_string()).hint(hint)
        }
    }
}
