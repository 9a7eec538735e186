//! `countersign-runner run`: verifies an image, and runs exactly what was admitted.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use attestations::Call;
use clap::Args;
use errors::{Form, files, output, terminal};
use sandbox::Canceller;
use serde_json::json;

use super::output::{YES, foreign};
use super::verify::{ImageArguments, deny};
use crate::caller;
use crate::config::{self, Config, Database, EngineKind};
use crate::error::{Error, Kind, Result};
use crate::node::{Node, Outcome, Remembering, RunRequest, read_token};
use crate::record::{self, Ending, RecordedTask, RunReport};
use crate::vantage6::Input;

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    #[command(flatten)]
    image: ImageArguments,
    /// File with the algorithm's input: a JSON object with `method`, `args` and `kwargs`.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// File to write the result to, readable only by its owner; otherwise standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Database to give to the algorithm: a label from the configuration, LABEL=PATH for a CSV file, or
    /// LABEL=PATH:TYPE; may be given several times.
    #[arg(long, value_name = "LABEL[=PATH[:TYPE]]")]
    database: Vec<String>,
    /// File with this task's own token for the node's server, instead of the one that the configuration names; the
    /// algorithm never sees the part that proves it.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Container engine to use, instead of the one that the configuration names.
    #[arg(long)]
    engine: Option<EngineKind>,
    /// Do not show the algorithm's output.
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(config: Config, arguments: &RunCommand, form: Form) -> Result<u8> {
    let input = Input::parse(&files::read(&arguments.input, config::MAX_FILE)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Machine, "starting the runtime").because(cause))?;
    let canceller = Canceller::new();
    cancel_on_signals(&runtime, &canceller);
    let (databases, extra) = databases(&arguments.database)?;
    let engine = arguments.engine.unwrap_or(config.engine);
    let node = Node::new(config, runtime.handle().clone(), Remembering::Always)?;
    let question = arguments.image.question(Call::default())?;
    let caller = caller::of_process();
    let token = arguments.token_file.as_deref().map(read_token).transpose()?;
    let place = RecordedTask::new()?;
    let run = RunRequest {
        question,
        input,
        databases,
        extra,
        caller,
        token,
        engine,
        canceller,
        place: place.clone(),
    };
    let outcome = node.run(run)?;
    let code = told(&node, &place, outcome, arguments, form);
    // Last, since a witness that does not answer is waited for.
    runtime.block_on(node.ask_witnesses());
    code
}

fn told(
    node: &Node,
    place: &RecordedTask,
    outcome: Outcome,
    arguments: &RunCommand,
    form: Form,
) -> Result<u8> {
    match outcome {
        Outcome::Denied(denial) => deny(&denial, form),
        Outcome::Ran(report) => {
            if let Some(result) = &report.result {
                node.release(place, &record::image(&report.admitted), Some(report.entries.end), result)?;
                prove(node, place, report.entries.end, arguments)?;
            }
            ended(&report, arguments, form)
        }
    }
}

/// Leaves the proof beside the result, with the salt: without both nobody can say whose result it is.
fn prove(node: &Node, place: &RecordedTask, end: u64, arguments: &RunCommand) -> Result<()> {
    let Some(path) = &arguments.output else { return Ok(()) };
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(());
    }
    let proof = record::proof(&node.book()?.reader()?, end, Some(place.salt))?.to_string();
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tlog-proof");
    // As the salt is, it is for whoever has the result.
    files::write_with(beside.as_ref(), files::Existing::Replaced, 0o600, |out| {
        out.write_all(proof.as_bytes()).map_err(|cause| Error::io("writing", beside.as_ref(), cause))
    })
}

fn ended(report: &RunReport, arguments: &RunCommand, form: Form) -> Result<u8> {
    if !arguments.quiet && form == Form::Text {
        let _ = write!(std::io::stderr(), "{}", terminal::lines(&report.log.text()));
    }
    for spent in &report.egress.spent {
        let _ = writeln!(std::io::stderr(), "the budget of the algorithm's rule has no {spent} left");
    }
    let Some(result) = &report.result else {
        let error = Error::new(
            Kind::Step,
            match report.revoked {
                Some(_) => report.ending_text(),
                None => format!("the algorithm failed: {}", report.ending_text()),
            },
        );
        return Err(match report.ending {
            _ if report.revoked.is_some() => error.hint("use an image that the policy does not revoke"),
            _ if let Some(why) = &report.unusable => error.hint(why.remedy),
            Ending::OutOfMemory => error.hint("raise memory_mib in runner.toml"),
            Ending::TimedOut => {
                error.hint("raise wall_seconds in runner.toml and in the rule's [algorithm.budget]")
            }
            _ => error,
        });
    };
    match &arguments.output {
        Some(path) => write_result(path, result)?,
        None if form == Form::Json => {}
        None => output::write(&foreign(result, std::io::stdout().is_terminal()))?,
    }
    if form == Form::Json {
        let mut value = report.to_json();
        if arguments.output.is_none() {
            value["result"] =
                serde_json::from_slice(result).unwrap_or_else(|_| json!(String::from_utf8_lossy(result)));
        }
        output::result(form, "", &value)?;
    }
    Ok(YES)
}

/// Writes a result for its owner alone; what is no file, such as a pipe, is written as it comes.
fn write_result(path: &Path, result: &[u8]) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return files::write(path, result);
    }
    files::write_with(path, files::Existing::Replaced, 0o600, |out| {
        out.write_all(result).map_err(|cause| Error::io("writing", path, cause))
    })
}

fn databases(given: &[String]) -> Result<(Vec<String>, BTreeMap<String, Database>)> {
    let (mut labels, mut extra) = (Vec::new(), BTreeMap::new());
    for text in given {
        let Some((label, place)) = text.split_once('=') else {
            labels.push(text.clone());
            continue;
        };
        let (path, kind) = match place.rsplit_once(':') {
            Some((path, kind)) if !kind.contains('/') => (path, kind),
            _ => (place, "csv"),
        };
        let path = files::absolute(path).map_err(|cause| Error::io("finding", Path::new(path), cause))?;
        let database = Database { path, kind: kind.to_owned() };
        if extra.insert(label.to_owned(), database).is_some() {
            return Err(Error::new(Kind::Usage, format!("the database `{label}` is given twice")));
        }
    }
    Ok((labels, extra))
}

/// Ctrl-C and SIGTERM end the run and let it clean up.
fn cancel_on_signals(runtime: &tokio::runtime::Runtime, canceller: &Canceller) {
    let canceller = canceller.clone();
    runtime.spawn(async move {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        match terminate {
            Ok(mut terminate) => {
                tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminate.recv() => {} }
            }
            Err(_) => drop(tokio::signal::ctrl_c().await),
        }
        canceller.cancel();
    });
}
