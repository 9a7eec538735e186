//! The command line: which subcommands there are, and how their outcome becomes output and an exit code.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use attestations::{Decision, Denial, Reference};
use clap::{Args, CommandFactory, Parser, Subcommand};
use errors::logs::{self, Format};
use errors::{Form, files, output, program, terminal};
use sandbox::Canceller;
use serde_json::json;

use crate::admission::{Registry, Request};
use crate::api;
use crate::config::{self, Config, Database, EngineKind};
use crate::engine::Ending;
use crate::error::{Error, Kind, Result};
use crate::node::{Node, Outcome, Report, Run};
use crate::task::Input;

/// Runs only reviewed, rebuilt, signed and allowlisted algorithm images, and says why or why not.
///
/// Exit codes: 0 yes, 1 no (denied), 2 usage, 3 bad input, 4 not found, 5 the algorithm failed, 6 network or registry,
/// 7 key or signature, 8 the machine, 70 a bug.
#[derive(Debug, Parser)]
#[command(name = "countersign-runner", version, about, propagate_version = true)]
struct Program {
    /// The node's configuration; without one, /etc/countersign/runner.toml when it is there.
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The policy, in place of the configuration's.
    #[arg(long, global = true, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where images and the queue are kept, in place of the configuration's.
    #[arg(long, global = true, env = "COUNTERSIGN_STATE", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// For machines: the answer, or the error, as one JSON object on standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    logs: logs::Arguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented policy and configuration into a folder; what is there stays.
    Init {
        /// The folder.
        #[arg(default_value = "/etc/countersign")]
        folder: PathBuf,
    },
    /// Say whether an image may run, or every condition that is not met.
    Verify(Verify),
    /// Verify an image and run exactly what was admitted.
    Run(Box<RunArguments>),
    /// Take tasks over a Unix socket or loopback, and run what is admitted.
    Serve(api::ServeCommand),
    /// Submit tasks to a node that serves, and ask for them.
    Task(api::cli::TaskCommand),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    image: ImageArguments,
    /// Also ask whether this function may be called.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
}

#[derive(Debug, Args)]
struct ImageArguments {
    /// The image: registry/name:tag or registry/name@sha256:…
    reference: String,
    /// A bundle, or a folder of bundles (*.json), about the image or its bases, besides what the registries have. May be
    /// repeated.
    #[arg(long, value_name = "PATH")]
    evidence: Vec<PathBuf>,
    /// Ask no registry: the image is named by digest, and evidence comes from --evidence alone.
    #[arg(long)]
    offline: bool,
}

impl ImageArguments {
    fn request(&self, function: Option<String>) -> Result<Request> {
        let reference: Reference = self
            .reference
            .parse()
            .map_err(|cause| Error::new(Kind::Usage, "the image's name is not usable").because(cause))?;
        let registry = if self.offline { Registry::Offline } else { Registry::Asked };
        Ok(Request { reference, function, evidence: self.evidence.clone(), registry })
    }
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    image: ImageArguments,
    /// The algorithm's input: JSON with `method`, `args` and `kwargs`.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the result is written, for its owner to read; standard output without it.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A database: a label of the configuration, or LABEL=PATH (a CSV file), or LABEL=PATH:TYPE. May be repeated.
    #[arg(long, value_name = "LABEL[=PATH[:TYPE]]")]
    database: Vec<String>,
    /// What starts the container, in place of the configuration's.
    #[arg(long)]
    engine: Option<EngineKind>,
    /// Do not show what the algorithm prints.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    program::main::<Program>()
}

impl program::Program for Program {
    fn form(&self) -> Form {
        Form::json_if(self.json)
    }

    fn install_logs(&self) -> Result<()> {
        let level = match self.command {
            Command::Serve(_) => tracing::Level::INFO,
            _ => tracing::Level::WARN,
        };
        self.logs.install(level, Format::Text)
    }

    fn run(self) -> Result<u8> {
        run(self)
    }
}

const YES: u8 = 0;
const GREEN: &str = "\x1b[1;32m";
const RED: &str = "\x1b[1;31m";

fn run(program: Program) -> Result<u8> {
    let say = Say { json: program.json };
    match &program.command {
        Command::Init { folder } => init(folder, &say),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Program::command(), "countersign-runner", &mut script);
            output::write(&script)?;
            Ok(YES)
        }
        Command::Verify(arguments) => verify(&program, arguments, &say),
        Command::Run(arguments) => run_image(&program, arguments, &say),
        Command::Serve(arguments) => arguments.run(configuration(&program)?).map(|()| YES),
        Command::Task(command) => {
            Ok(command.run(program.json, &mut output::Output::default()).map(|()| YES)?)
        }
    }
}

/// The configuration: the named one, the machine's, or none, when a policy is named.
fn configuration(program: &Program) -> Result<Config> {
    let default = Path::new(config::DEFAULT_PATH);
    let mut config = match (&program.config, &program.policy) {
        (Some(path), _) => Config::read(path)?,
        (None, _) if default.exists() => Config::read(default)?,
        (None, Some(policy)) => Config::without_file(policy.clone()),
        (None, None) => {
            return Err(Error::new(
                Kind::NotFound,
                format!(
                    "there is neither a configuration ({}) nor a policy, so nothing is admitted",
                    default.display()
                ),
            )
            .hint("`countersign-runner init` writes both; or name a policy with --policy"));
        }
    };
    if let Some(policy) = &program.policy {
        config.policy.clone_from(policy);
    }
    if let Some(state_dir) = &program.state_dir {
        config.state_dir.clone_from(state_dir);
    }
    Ok(config)
}

fn init(folder: &Path, say: &Say) -> Result<u8> {
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("making", folder, cause))?;
    let files = [("policy.toml", attestations::Policy::EXAMPLE), ("runner.toml", config::EXAMPLE)];
    for (name, _) in files {
        if folder.join(name).exists() {
            return Err(Error::new(
                Kind::Usage,
                format!("{} is there already, and stays", folder.join(name).display()),
            ));
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        let file = std::fs::File::options().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|cause| Error::io("writing", &path, cause))?;
    }
    say.result(
        &format!(
            "wrote {0}/policy.toml and {0}/runner.toml: read them, name your people and builders",
            folder.display()
        ),
        &json!({ "folder": folder }),
    )?;
    Ok(YES)
}

fn verify(program: &Program, arguments: &Verify, say: &Say) -> Result<u8> {
    let config = configuration(program)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Machine, "starting the runtime").because(cause))?;
    let node = Node::new(config, runtime.handle().clone());
    let request = arguments.image.request(arguments.function.clone())?;
    match runtime.block_on(node.verify(&request))? {
        Decision::Admitted(admitted) => {
            let mut text = format!(
                ": {}\n  rule: {}\n  commit: {}\n  reviewed by: {}\n  built by: {}",
                admitted.pinned(),
                admitted.rule(),
                admitted.commit(),
                admitted.reviews().join(", "),
                admitted.builds().join(", ")
            );
            for base in admitted.bases() {
                text.push_str(&format!(
                    "\n  base: {}\n    commit: {}\n    reviewed by: {}\n    built by: {}",
                    base.digest,
                    base.commit,
                    base.reviews.join(", "),
                    base.builds.join(", ")
                ));
            }
            let value = json!({ "verdict": "admitted", "admitted": admitted });
            say.verdict("admitted", GREEN, &text, &value)?;
            Ok(YES)
        }
        Decision::Denied(denial) => deny(&denial, say),
    }
}

fn deny(denial: &Denial, say: &Say) -> Result<u8> {
    let mut text = format!(": {} ({})", denial.question.asked, denial.question.digest);
    for (number, unmet) in denial.unmet.iter().enumerate() {
        text.push_str(&format!(
            "\n {:>2}. wanted: {}\n     found:  {}\n     remedy: {}",
            number + 1,
            unmet.condition(),
            unmet.found(),
            unmet.remedy()
        ));
    }
    for ignored in &denial.ignored {
        text.push_str(&format!("\n  not counted: {}: {}", ignored.origin, ignored.reason));
    }
    say.verdict("denied", RED, &text, &json!({ "verdict": "denied", "denial": denial }))?;
    Ok(Kind::Refused.exit_code())
}

fn run_image(program: &Program, arguments: &RunArguments, say: &Say) -> Result<u8> {
    let config = configuration(program)?;
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
    let node = Node::new(config, runtime.handle().clone());
    let request = arguments.image.request(None)?;
    match node.run(Run { request, input, databases, extra, engine, canceller })? {
        Outcome::Denied(denial) => deny(&denial, say),
        Outcome::Ran(report) => ended(&report, arguments, say),
    }
}

fn ended(report: &Report, arguments: &RunArguments, say: &Say) -> Result<u8> {
    if !arguments.quiet && !say.json {
        let _ = write!(std::io::stderr(), "{}", terminal::lines(&report.log.text()));
    }
    let Some(result) = &report.result else {
        let error = Error::new(Kind::Step, format!("the algorithm failed: {}", report.ending));
        return Err(match report.ending {
            Ending::OutOfMemory => error.hint("raise memory_mib in runner.toml"),
            Ending::TimedOut => error.hint("raise wall_seconds in runner.toml"),
            _ => error,
        });
    };
    match &arguments.output {
        Some(path) => files::write(path, result)?,
        None if say.json => {}
        None => output::write(result)?,
    }
    if say.json {
        let mut value = report.to_json();
        if arguments.output.is_none() {
            value["result"] =
                serde_json::from_slice(result).unwrap_or_else(|_| json!(String::from_utf8_lossy(result)));
        }
        say.result("", &value)?;
    }
    Ok(YES)
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
        let database = Database { path: PathBuf::from(path), kind: kind.to_owned() };
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

/// How answers are told.
struct Say {
    json: bool,
}

impl Say {
    fn result(&self, text: &str, value: &serde_json::Value) -> Result<()> {
        output::result(Form::json_if(self.json), text, value)
    }

    /// A result whose first word stands out on a terminal.
    fn verdict(&self, word: &str, colour: &'static str, rest: &str, value: &serde_json::Value) -> Result<()> {
        let wanted = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        match wanted && !self.json {
            true => output::print(&format!("{colour}{word}\x1b[0m{}", terminal::lines(rest))),
            false => self.result(&format!("{word}{rest}"), value),
        }
    }
}
