//! `countersign-runner log …`: the record of what ran.

mod check;
mod read;
mod research_object;
mod show;
mod verify;
mod witness;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use errors::{Form, files, output};
use serde_json::json;
use tlog::{Reader, VerifierKey};

use super::output::YES;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::record;

/// The most bytes of a key or checkpoint that are read.
const MAX_FILE: u64 = 64 << 10;

/// Show, prove, check and export the record of what ran: a log that nobody can change without being noticed.
#[derive(Debug, Args)]
pub(super) struct LogCommand {
    #[command(flatten)]
    place: LogArguments,
    #[command(subcommand)]
    action: Action,
}

/// Which log, and whose.
#[derive(Debug, Args)]
struct LogArguments {
    /// Folder of a log that was exported or copied, instead of this node's own.
    #[arg(long, global = true, value_name = "DIR", requires = "key")]
    dir: Option<PathBuf>,
    /// Key of the log: what `log key` prints on its node, or a file that holds it; otherwise this node's own.
    #[arg(long, global = true, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List entries, newest last.
    Show(show::ShowCommand),
    /// Print a proof that an entry is in the log, to be kept beside what it is about.
    Prove {
        /// Index of the entry, or task:NUMBER for the last entry about a task.
        #[arg(value_name = "ENTRY")]
        entry: String,
    },
    /// Check a proof, and whether it is about a result.
    Check(check::CheckCommand),
    /// Read the whole log and check every entry, hash and signature; exit code 1 if anything is wrong.
    Verify(verify::VerifyCommand),
    /// Write the log to a folder, in the form of C2SP tlog-tiles, to be served or handed to an auditor.
    Export {
        /// Folder to write to; it must be empty or missing.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Write one run as a research object (RO-Crate with the phases of the Five Safes): the decision, the run and the
    /// release, with their signed entries and proofs.
    Crate(research_object::CrateCommand),
    /// Ask the witnesses that runner.toml names to cosign the log as it is; exit code 1 if too few do.
    Cosign,
    /// Serve as a witness: cosign other nodes' logs as long as each goes on from what was cosigned before.
    Witness(witness::WitnessCommand),
    /// Print the signed checkpoint: keep it elsewhere, and give it to `log verify --against` later.
    Checkpoint,
    /// Print the key that verifies the log; the node makes one at its first use, unless runner.toml names one.
    Key,
}

impl LogCommand {
    /// Does what was asked. `config` is only read where the log or the key is the node's own.
    pub(super) fn run(&self, config: impl Fn() -> Result<Config>, form: Form) -> Result<u8> {
        let open = || self.place.open(&config);
        match &self.action {
            Action::Show(command) => command.run(&open()?, form),
            Action::Prove { entry } => prove(&open()?, entry, form),
            Action::Check(command) => command.run(&self.place.key(&config)?, form),
            Action::Verify(command) => command.run(&self.place, &config, form),
            Action::Export { to } => {
                let log = open()?;
                log.reader.export(to)?;
                let size = log.reader.checkpoint().size;
                let text = format!("{size} entries are in {}", to.display());
                output::result(form, &text, &json!({ "folder": to, "entries": size }))?;
                Ok(YES)
            }
            Action::Crate(command) => command.run(&open()?, form),
            Action::Cosign => witness::cosign(&config()?, form),
            Action::Witness(command) => command.run(&config()?, form),
            Action::Checkpoint => {
                let signed = open()?.reader.signed().to_string();
                match form {
                    Form::Text => output::write(signed.as_bytes())?,
                    Form::Json => output::result(form, "", &json!({ "checkpoint": signed }))?,
                }
                Ok(YES)
            }
            Action::Key => {
                let key = self.place.key(&config)?;
                let value = json!({ "key": key.to_string(), "pem": key.key().to_pem() });
                output::result(form, &format!("{key}\n{}", key.key().to_pem()), &value)?;
                Ok(YES)
            }
        }
    }
}

/// A log that can be read.
struct Open {
    reader: Reader,
    key: VerifierKey,
}

impl LogArguments {
    fn open(&self, config: &impl Fn() -> Result<Config>) -> Result<Open> {
        match (&self.dir, &self.key) {
            (Some(dir), Some(_)) => {
                let key = self.key(config)?;
                Ok(Open { reader: Reader::open(dir, &key)?, key })
            }
            (_, Some(_)) => {
                let key = self.key(config)?;
                Ok(Open { reader: Reader::open(&config()?.log_folder(), &key)?, key })
            }
            _ => {
                let book = record::Book::open(&config()?)?;
                Ok(Open { reader: book.reader()?, key: book.key().clone() })
            }
        }
    }

    fn key(&self, config: &impl Fn() -> Result<Config>) -> Result<VerifierKey> {
        let Some(text) = &self.key else { return record::verifier(&config()?) };
        if text.contains('+') {
            return Ok(VerifierKey::parse(text)?);
        }
        let text = files::read_text(text.as_ref(), MAX_FILE)?;
        Ok(VerifierKey::parse(text.lines().next().unwrap_or_default().trim())?)
    }
}

fn prove(log: &Open, entry: &str, form: Form) -> Result<u8> {
    let index = match entry.strip_prefix("task:") {
        Some(task) => read::of_task(log, number(task)?, "entry about", |_| true)?,
        None => number(entry)?,
    };
    let proof = record::proof(&log.reader, index, None)?.to_string();
    match form {
        Form::Text => output::write(proof.as_bytes())?,
        Form::Json => output::result(form, "", &json!({ "index": index, "proof": proof }))?,
    }
    Ok(YES)
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        Error::new(Kind::Usage, format!("`{text}` is neither the index of an entry nor task:NUMBER"))
    })
}
