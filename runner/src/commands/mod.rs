//! The command line: which subcommands there are, and how their outcome becomes output and an exit code.

mod init;
mod log;
mod memory;
mod output;
mod policy;
mod run;
mod serve;
mod summaries;
mod task;
mod transfer;
mod verify;
mod verify_bundle;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use errors::logs::{self, Format};
use errors::{Form, files, program};

use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use output::YES;

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
    /// Policy file, instead of the one that the configuration names; a federation's policy holds besides.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    policy: Option<PathBuf>,
    /// Directory for images and the task queue, instead of the one that the configuration names.
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_STATE",
        value_name = "DIR",
        value_parser = files::absolute,
        help_heading = GLOBAL
    )]
    state_dir: Option<PathBuf>,
    /// Print the result, or the error, as one JSON object on standard output.
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    #[command(flatten)]
    logs: logs::Arguments,
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
    Verify(verify::VerifyCommand),
    /// Check that a file, or what a statement is about, was signed by a key or an identity, by its Sigstore bundle.
    VerifyBundle(verify_bundle::VerifyBundleCommand),
    /// Verify an image and, if it is admitted, run exactly that image.
    Run(Box<run::RunCommand>),
    /// Serve the task API on a Unix socket or loopback, and run the tasks that are admitted.
    Serve(serve::ServeCommand),
    /// Submit, list and cancel tasks on a running `serve`, and fetch their results and logs.
    Task(task::TaskCommand),
    /// Show, prove, check and export the record of what ran.
    Log(log::LogCommand),
    /// Show what this node remembers of earlier decisions, or have it forget the newest image or the latest moment.
    #[command(subcommand)]
    Memory(memory::MemoryCommand),
    /// Show which policies decide, check a policy, test it with cases, or compare two of them.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Write images with their signed statements, and this node's policy, to one file for a node without a registry.
    Export(transfer::ExportCommand),
    /// Check such a file as a whole, and take its images and statements in; its policy is put beside, and not used.
    Import(transfer::ImportCommand),
    /// Print a shell completion script.
    Completions {
        /// Shell to print the script for.
        shell: clap_complete::Shell,
    },
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
        let form = Form::json_if(self.json);
        match &self.command {
            Command::Init { folder } => init::run(folder, form),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "countersign-runner", &mut script);
                errors::output::write(&script)?;
                Ok(YES)
            }
            Command::Export(command) => command.run(&configuration(&self)?, form),
            Command::Import(command) => {
                let folder = transfer::state_dir(self.state_dir.as_ref(), self.config.as_deref())?;
                command.run(&folder, form)
            }
            Command::Verify(arguments) => verify::run(configuration(&self)?, arguments, form),
            Command::VerifyBundle(arguments) => verify_bundle::run(arguments, form),
            Command::Run(arguments) => run::run(configuration(&self)?, arguments, form),
            Command::Serve(arguments) => arguments.run(configuration(&self)?).map(|()| YES),
            Command::Policy(command) => command.run(&configuration_or(&self, command.own_policy())?, form),
            Command::Log(command) => command.run(|| configuration(&self), form),
            Command::Memory(command) => command.run(&configuration(&self)?, form),
            Command::Task(command) => Ok(command.run(form).map(|()| YES)?),
        }
    }
}

/// The configuration, or none where there is none and the command names a policy itself.
fn configuration_or(program: &Program, policy: Option<&Path>) -> Result<Config> {
    let is_named =
        program.config.is_some() || program.policy.is_some() || Path::new(config::DEFAULT_PATH).exists();
    match policy.filter(|_| !is_named) {
        Some(policy) => {
            let mut config = Config::without_file(policy.to_owned());
            if let Some(state_dir) = &program.state_dir {
                config.state_dir.clone_from(state_dir);
            }
            Ok(config)
        }
        None => configuration(program),
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
        config.policy = Some(policy.clone());
    }
    if let Some(state_dir) = &program.state_dir {
        config.state_dir.clone_from(state_dir);
    }
    Ok(config)
}

/// A runtime of one thread, on which registries are asked.
///
/// # Errors
/// When it cannot be started.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Machine, "starting the runtime").because(cause))
}
