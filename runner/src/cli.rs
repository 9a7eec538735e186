//! The command line: which subcommands there are, and how their outcome becomes output and an exit code.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use attestations::{Decision, Denial, Reference};
use clap::{Args, CommandFactory, Parser, Subcommand};
use sandbox::Canceller;
use serde_json::json;

use crate::admission::{Registry, Request};
use crate::api;
use crate::config::{self, Config, Database, EngineKind};
use crate::engine::Ending;
use crate::error::{Error, Kind, Result};
use crate::node::{Node, Outcome, Report, Run};
use crate::task::Input;

/// Where `--help` lists the options that every command has.
const GLOBAL: &str = "Global options";

/// Runs only those algorithm images that the node's policy allows, and gives the reasons.
///
/// Exit codes: 0 yes (admitted, done), 1 no (denied), 2 usage, 3 bad input, 4 not found, 5 the algorithm failed, 6
/// network or registry, 7 key or signature, 8 the machine (rights, disk, kernel), 70 a bug.
#[derive(Debug, Parser)]
#[command(name = "countersign-runner", version, about, propagate_version = true)]
struct Program {
    /// Configuration file of the node; /etc/countersign/runner.toml by default, if it exists.
    #[arg(long, short, global = true, value_name = "FILE", help_heading = GLOBAL)]
    config: Option<PathBuf>,
    /// Policy file, instead of the one that the configuration names.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    policy: Option<PathBuf>,
    /// Directory for images and the task queue, instead of the one that the configuration names.
    #[arg(long, global = true, env = "COUNTERSIGN_STATE", value_name = "DIR", help_heading = GLOBAL)]
    state_dir: Option<PathBuf>,
    /// Print the result, or the error, as one JSON object on standard output.
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented example policy and configuration to a folder; existing files are never overwritten.
    Init {
        /// Folder to write them to.
        #[arg(default_value = "/etc/countersign")]
        folder: PathBuf,
    },
    /// Check whether an image may run, and list every unmet condition if not.
    Verify(Verify),
    /// Verify an image and, if it is admitted, run exactly that image.
    Run(Box<RunArguments>),
    /// Serve the task API on a Unix socket or loopback, and run the tasks that are admitted.
    Serve(api::ServeCommand),
    /// Submit, list and cancel tasks on a running `serve`, and fetch their results and logs.
    Task(api::cli::TaskCommand),
    /// Print a shell completion script.
    Completions {
        /// Shell to print the script for.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    image: ImageArguments,
    /// Also check whether this function of the algorithm may be called.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
}

#[derive(Debug, Args)]
struct ImageArguments {
    /// Image reference: registry/name:tag or registry/name@sha256:…
    reference: String,
    /// Signed statement (Sigstore bundle), or a folder of them (*.json), to consider besides those in the registry;
    /// may be given several times.
    #[arg(long, value_name = "PATH")]
    evidence: Vec<PathBuf>,
    /// Contact no registry: the image must be named by digest, and all statements must be given with --evidence.
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
    /// Container engine to use, instead of the one that the configuration names.
    #[arg(long)]
    engine: Option<EngineKind>,
    /// Do not show the algorithm's output.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(usage) => {
            let _ = usage.print();
            return ExitCode::from(if usage.use_stderr() { Kind::Usage.exit_code() } else { 0 });
        }
    };
    let json = program.json;
    // A panic must never read as an answer, so it gets the exit code of a bug.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(program))) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => report(&error, json),
        Err(_) => ExitCode::from(Kind::Bug.exit_code()),
    }
}

const YES: u8 = 0;

fn run(program: Program) -> Result<u8> {
    let say = Say { json: program.json };
    match &program.command {
        Command::Init { folder } => init(folder, &say),
        Command::Completions { shell } => {
            clap_complete::generate(
                *shell,
                &mut Program::command(),
                "countersign-runner",
                &mut std::io::stdout(),
            );
            Ok(YES)
        }
        Command::Verify(arguments) => verify(&program, arguments, &say),
        Command::Run(arguments) => run_image(&program, arguments, &say),
        Command::Serve(arguments) => arguments.run(configuration(&program)?).map(|()| YES),
        Command::Task(command) => Ok(command.run(program.json, &mut std::io::stdout()).map(|()| YES)?),
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
                "{}admitted{}: {}\n  rule: {}\n  commit: {}\n  reviewed by: {}\n  built by: {}",
                say.green(),
                say.plain(),
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
            say.result(&text, &json!({ "verdict": "admitted", "admitted": admitted }))?;
            Ok(YES)
        }
        Decision::Denied(denial) => deny(&denial, say),
    }
}

fn deny(denial: &Denial, say: &Say) -> Result<u8> {
    let mut text =
        format!("{}denied{}: {} ({})", say.red(), say.plain(), denial.question.asked, denial.question.digest);
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
    say.result(&text, &json!({ "verdict": "denied", "denial": denial }))?;
    Ok(Kind::Refused.exit_code())
}

fn run_image(program: &Program, arguments: &RunArguments, say: &Say) -> Result<u8> {
    let config = configuration(program)?;
    let input = Input::parse(&config::read_bytes(&arguments.input)?)?;
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
        let _ = write!(std::io::stderr(), "{}", report.log.text());
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
        Some(path) => write_whole(path, result).map_err(|cause| Error::io("writing", path, cause))?,
        None if say.json => {}
        None => std::io::stdout()
            .write_all(result)
            .map_err(|cause| Error::new(Kind::Machine, "writing the result").because(cause))?,
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

/// Writes a file whole or not at all; what is no file, such as a pipe, as it comes.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return std::fs::write(path, bytes);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
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

fn report(error: &Error, json: bool) -> ExitCode {
    if json {
        println!("{}", error.to_json());
    } else {
        eprintln!("error: {error}");
        for cause in error.causes() {
            eprintln!("  because: {cause}");
        }
        if let Some(hint) = error.hint_text() {
            eprintln!("  hint: {hint}");
        }
    }
    ExitCode::from(error.kind().exit_code())
}

/// How answers are told.
struct Say {
    json: bool,
}

impl Say {
    fn result(&self, text: &str, value: &serde_json::Value) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let written = if self.json { writeln!(out, "{value}") } else { writeln!(out, "{text}") };
        written
            .and_then(|()| out.flush())
            .map_err(|cause| Error::new(Kind::Machine, "writing the answer").because(cause))
    }

    fn colour(&self, code: &'static str) -> &'static str {
        let wanted = !self.json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if wanted { code } else { "" }
    }

    fn green(&self) -> &'static str {
        self.colour("\x1b[1;32m")
    }

    fn red(&self) -> &'static str {
        self.colour("\x1b[1;31m")
    }

    fn plain(&self) -> &'static str {
        self.colour("\x1b[0m")
    }
}
