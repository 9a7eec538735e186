//! `log witness` and `log cosign`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use errors::{Form, output};
use serde_json::json;

use crate::commands::output::YES;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::record::{Book, Cosigner};

#[derive(Debug, Args)]
pub(super) struct WitnessCommand {
    /// Name of this witness, such as witness.hospital.example.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// File with the logs to cosign, in the form of C2SP tlog-policy: lines `log KEY`, and `quorum none`.
    #[arg(long, value_name = "FILE")]
    logs: PathBuf,
    /// Address to listen on, without TLS: a web server in front of it has to add that.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8191")]
    listen: SocketAddr,
}

impl WitnessCommand {
    pub(super) fn run(&self, config: &Config, form: Form) -> Result<u8> {
        let witness = Cosigner::open(config, &self.name, &self.logs)?;
        let key = witness.key().to_string();
        let mut told = Ok(());
        runtime()?.block_on(witness.serve(self.listen, |address| {
            let text = format!("listening on {address}, key {key}");
            told = output::result(form, &text, &json!({ "address": address.to_string(), "key": key }));
        }))?;
        told.map(|()| YES)
    }
}

/// Asks the witnesses of the configuration.
pub(super) fn cosign(config: &Config, form: Form) -> Result<u8> {
    let book = Book::open(config)?;
    let Some(cosigned) = runtime()?.block_on(book.ask_witnesses())? else {
        return Err(Error::new(Kind::Usage, "runner.toml names no witnesses")
            .hint("name a file as `witnesses` in [record]"));
    };
    let names: Vec<&str> = cosigned.by.iter().map(|(name, _)| name.as_str()).collect();
    let text = format!("cosigned by {}, which is a quorum", names.join(", "));
    output::result(form, &text, &json!({ "cosignedBy": names }))?;
    Ok(YES)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|cause| Error::new(Kind::Machine, "starting the runtime").because(cause))
}
