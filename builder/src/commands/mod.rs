//! The command line: which subcommands there are, what they share, and how their outcome becomes output and an exit code.

mod build;
mod diff;
mod explain;
mod keygen;
mod lock;
mod materials;
mod rebuild;
mod registries;
mod report;
mod review;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use errors::logs::{self, Format};
use errors::{Form, output, program};

use crate::error::{Kind, Result};
use crate::progress::Mode;

use session::{Answer, Session};

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
    Build(Box<build::Arguments>),
    /// Repeat a build from its provenance and sign whether the result is the same.
    Rebuild(Box<rebuild::Arguments>),
    /// Compare two images and say which layers and files differ.
    Diff(diff::Arguments),
    /// Say what a Dockerfile will do, and what makes it hard to repeat, line by line.
    ExplainDockerfile(explain::Arguments),
    /// Write down which bases and packages a build used, for people to review in a diff and for later builds to hold to.
    Lock(lock::Arguments),
    /// What builds took from the network: list it, check it, take it elsewhere, let it go.
    #[command(subcommand)]
    Materials(materials::Command),
    /// Show a commit to its reviewer, or sign a review of it.
    Review(review::Arguments),
    /// Make a signing key.
    Keygen(keygen::Arguments),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
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
        // Who reads lines of JSON on standard error reads nothing else there.
        let format = if self.mode() == Mode::Json { Format::Json } else { Format::Text };
        self.logs.install(tracing::Level::WARN, format)
    }

    fn run(self) -> Result<u8> {
        let mode = self.mode();
        let session = Session::new(self.state_dir, Form::json_if(self.json), mode);
        let outcome = run(self.command, &session);
        session.workspace().progress().end();
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
        Command::Build(arguments) => build::run(&arguments, session),
        Command::Rebuild(arguments) => rebuild::run(&arguments, session),
        Command::Diff(arguments) => diff::run(&arguments, session),
        Command::ExplainDockerfile(arguments) => explain::run(&arguments, session),
        Command::Lock(arguments) => lock::run(&arguments, session),
        Command::Materials(command) => materials::run(&command, session),
        Command::Review(arguments) => review::run(arguments, session),
        Command::Keygen(arguments) => keygen::run(arguments, session),
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
