//! `log check`: a proof, on any machine.

use std::path::PathBuf;

use attestations::run::Event;
use clap::Args;
use errors::{Form, files};
use serde_json::json;
use tlog::{Proof, VerifierKey};

use super::read;
use crate::commands::output::{GREEN, YES, verdict};
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::record;

#[derive(Debug, Args)]
pub(super) struct CheckCommand {
    /// File with the proof, as `log prove` prints it or `run --output` leaves it beside the result.
    #[arg(value_name = "PROOF")]
    proof: PathBuf,
    /// File with a result: check that it is the one that the entry is about.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
}

impl CheckCommand {
    pub(super) fn run(&self, key: &VerifierKey, form: Form) -> Result<u8> {
        let proof = Proof::parse(&files::read(&self.proof, tlog::proof::MAX_TEXT as u64)?)?;
        let enclosed = record::Enclosed::of(&proof)?;
        let checkpoint = proof.verify(&enclosed.entry, key)?;
        let entry = read::entry(proof.index, &enclosed.entry, key)?;
        let about = match &self.result {
            None => "",
            Some(path) => {
                let result = files::read(path, config::MAX_FILE.max(64 << 20))?;
                self.compare(&entry.run.event, &enclosed, &result)?;
                ", and is about this result"
            }
        };
        let (index, name) = (proof.index, entry.run.event.name());
        let rest = format!(": entry {index} of {} says `{name}`{about}", checkpoint.origin);
        let value = json!({
            "verdict": "proven", "index": index, "origin": checkpoint.origin, "size": checkpoint.size,
            "subject": entry.subject, "run": entry.run,
        });
        verdict(form, "proven", GREEN, &rest, &value)?;
        Ok(YES)
    }

    fn compare(&self, event: &Event, enclosed: &record::Enclosed, result: &[u8]) -> Result<()> {
        let refused = |text: &str| Err(Error::new(Kind::Refused, text));
        let output = match event {
            Event::Ended(ended) => ended.output,
            Event::Released(released) => Some(released.output),
            _ => None,
        };
        match (output, enclosed.salt) {
            (None, _) => refused("the entry is about no result"),
            (_, None) => refused("the proof has no salt, and without it the result cannot be compared"),
            (Some(output), Some(salt)) if salt.digest(result) == output => Ok(()),
            _ => refused("the result is not the one that the entry is about"),
        }
    }
}
