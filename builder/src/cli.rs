//! The command line: which subcommands there are, what they share, and how their outcome becomes output and an exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};
use errors::logs::{self, Format};
use errors::{Form, output, program, trusted};

use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Mode, Progress};
use crate::{build, explain, keys, lock, materials, rebuild, review};

/// Reviews, deterministic builds and rebuilds of algorithm images.
#[derive(Debug, Parser)]
#[command(name = "countersign-builder", version, about, propagate_version = true)]
struct Program {
    /// Where fetched repositories, unpacked bases and built images are kept.
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_STATE",
        default_value = "/var/lib/countersign",
        value_name = "DIR"
    )]
    state_dir: PathBuf,
    /// For machines: the result, or the error, as one JSON object on standard output; progress as lines of JSON on
    /// standard error.
    #[arg(long, global = true)]
    json: bool,
    /// No progress, only the result: the same as --progress=quiet.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// How progress looks on standard error. NO_COLOR is respected.
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_PROGRESS",
        value_enum,
        default_value_t,
        value_name = "HOW",
        hide_possible_values = false
    )]
    progress: Mode,
    #[command(flatten)]
    logs: logs::Arguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a commit, bit for bit the same wherever it is built.
    Build(Box<build::cli::Arguments>),
    /// Repeat a build from its provenance and sign whether the result is the same.
    Rebuild(Box<rebuild::cli::Arguments>),
    /// Compare two images and say which layers and files differ.
    Diff(rebuild::diff::Arguments),
    /// Say what a Dockerfile will do, and what makes it hard to repeat, line by line.
    ExplainDockerfile(explain::cli::Arguments),
    /// Write down which bases and packages a build used, for people to review in a diff and for later builds to hold to.
    Lock(lock::cli::Arguments),
    /// What builds took from the network: list it, check it, take it elsewhere, let it go.
    #[command(subcommand)]
    Materials(materials::cli::Command),
    /// Show a commit to its reviewer, or sign a review of it.
    Review(review::cli::Arguments),
    /// Make a signing key.
    Keygen(keys::cli::Arguments),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it reads or writes the state directory in any case.
    fn keeps_state(&self) -> bool {
        match self {
            Self::Build(_) | Self::Rebuild(_) | Self::Materials(_) => true,
            // Of its actions, `verify` keeps none; the others see to it themselves.
            Self::Review(_)
            | Self::Diff(_)
            | Self::ExplainDockerfile(_)
            | Self::Lock(_)
            | Self::Keygen(_)
            | Self::Completions { .. } => false,
        }
    }
}

/// What a command answered when nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done, or identical: exit code 0.
    Yes,
    /// Differs: exit code 1.
    No,
}

/// What every command shares.
#[derive(Debug, Clone)]
pub struct Session {
    state_dir: PathBuf,
    json: bool,
    progress: Arc<Progress>,
}

impl Session {
    /// A session with its state below `state_dir`, whose result is for machines with `json`.
    pub fn new(state_dir: impl Into<PathBuf>, json: bool, progress: Mode) -> Self {
        Self { state_dir: state_dir.into(), json, progress: Arc::new(Progress::new(progress)) }
    }

    /// The state directory; commands create what they need below it.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Whether output is for machines.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Prints the result of a command: `text` for people, or `value` as one line of JSON.
    ///
    /// # Errors
    /// When standard output cannot be written, so that a lost result is never taken for a success.
    pub fn result(&self, text: &str, value: &serde_json::Value) -> Result<()> {
        self.progress.end();
        output::result(Form::json_if(self.json), text, value)
    }

    /// Tells what happened, on standard error. A reader that went away does not stop the work.
    pub fn tell(&self, event: &Event<'_>) {
        self.progress.tell(event);
    }

    /// Where progress is told, for who tells it from elsewhere.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// A runtime for what needs the network.
    ///
    /// # Errors
    /// When the machine refuses threads or an event queue.
    pub fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|cause| Error::new(Kind::Machine, "starting the network runtime").because(cause))
    }
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
        // Who reads lines of JSON on standard error reads nothing else there.
        let format = if self.mode() == Mode::Json { Format::Json } else { Format::Text };
        self.logs.install(tracing::Level::WARN, format)
    }

    fn run(self) -> Result<u8> {
        let mode = self.mode();
        if self.command.keeps_state() {
            trusted::state_directory(&self.state_dir, 0o755)?;
        }
        let session = Session::new(self.state_dir, self.json, mode);
        let outcome = run(self.command, &session);
        session.progress().end();
        match outcome? {
            Answer::Yes => Ok(0),
            Answer::No => Ok(Kind::Refused.exit_code()),
        }
    }
}

impl Program {
    fn mode(&self) -> Mode {
        match (self.quiet, self.json, self.progress) {
            (true, _, _) | (_, _, Mode::Quiet) => Mode::Quiet,
            // Who reads the result with a machine reads this with one, whatever the environment says.
            (_, true, _) => Mode::Json,
            (_, _, mode) => mode,
        }
    }
}

fn run(command: Command, session: &Session) -> Result<Answer> {
    match command {
        Command::Build(arguments) => build::cli::run(&arguments, session),
        Command::Rebuild(arguments) => rebuild::cli::run(&arguments, session),
        Command::Diff(arguments) => rebuild::diff::run(&arguments, session),
        Command::ExplainDockerfile(arguments) => explain::cli::run(&arguments, session),
        Command::Lock(arguments) => lock::cli::run(&arguments, session),
        Command::Materials(command) => materials::cli::run(&command, session),
        Command::Review(arguments) => review::cli::run(arguments, session),
        Command::Keygen(arguments) => keys::cli::run(arguments, session),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Program::command(), "countersign-builder", &mut script);
            output::write(&script)?;
            Ok(Answer::Yes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Program::command().debug_assert();
    }
}
