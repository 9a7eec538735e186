//! The command line: the subcommands, their shared options, and the mapping of results to output and exit codes.

mod build;
mod copy;
mod diff;
mod explain;
mod init;
mod keygen;
mod lock;
mod materials;
mod password;
mod policy;
mod rebuild;
mod registries;
mod report;
mod review;
mod session;
mod withdraw;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use errors::logs::{self, Format};
use errors::{Form, files, output, program, trusted};

use crate::error::{Kind, Result};
use crate::progress::Mode;

use session::{Answer, Session};

/// The heading of the options that every command has in `--help`.
const GLOBAL: &str = "Global options";

/// Builds container images reproducibly from reviewed git commits, and rebuilds them to check.
///
/// Exit codes: 0 success, 1 no (images differ, or something was refused), 2 usage, 3 bad input, 4 not found, 5 a
/// build step failed, 6 network or registry, 7 key or signature, 8 the machine (rights, disk, kernel), 70 a bug.
#[derive(Debug, Parser)]
#[command(name = "countersign-builder", version, about, propagate_version = true)]
struct Program {
    /// Directory for fetched repositories, base images, built images and recorded responses.
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_STATE",
        default_value = "/var/lib/countersign",
        value_name = "DIR",
        value_parser = files::absolute,
        help_heading = GLOBAL
    )]
    state_dir: PathBuf,
    /// Print the result, or the error, as one JSON object on standard output, and progress as JSON lines on standard
    /// error.
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// Show no progress, only the result; same as --progress=quiet.
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    quiet: bool,
    /// How to show progress on standard error; set NO_COLOR to turn colours off.
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_PROGRESS",
        value_enum,
        default_value_t,
        value_name = "HOW",
        hide_possible_values = false,
        help_heading = GLOBAL
    )]
    progress: Mode,
    #[command(flatten)]
    logs: logs::Arguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a git commit; the result is the same, bit for bit, on every machine.
    Build(Box<build::Arguments>),
    /// Repeat a build from its provenance, compare the images, and sign whether they are identical.
    Rebuild(Box<rebuild::Arguments>),
    /// Copy an image with everything that is attached to it: to another registry, a folder or one file, and back.
    Copy(copy::Arguments),
    /// Compare two images and list the layers and files that differ.
    Diff(diff::Arguments),
    /// Write a countersign.toml for the Dockerfiles of a repository, with every setting explained.
    Init(init::Arguments),
    /// List what a Dockerfile will run and what makes it hard to reproduce, line by line, with fixes.
    ExplainDockerfile(explain::Arguments),
    /// Write a lock file: the base images and packages that a build used, for review and for later builds.
    Lock(lock::Arguments),
    /// List, check, export, import and delete the recorded network responses of builds.
    #[command(subcommand)]
    Materials(materials::Command),
    /// Ask for a review of a commit, show what is to be read or not reviewed yet, and sign, check or attach reviews.
    Review(review::Arguments),
    /// Take back a statement that was signed with the same key, such as a rejection or a failed rebuild.
    Withdraw(withdraw::Arguments),
    /// Sign the policy of a federation.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Create a signing key.
    Keygen(keygen::Arguments),
    /// Print a shell completion script.
    Completions {
        /// Shell to print the script for.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it always uses the state directory.
    fn keeps_state(&self) -> bool {
        match self {
            Self::Build(_) | Self::Rebuild(_) | Self::Materials(_) => true,
            // `review verify` and `diff` of two layouts need none; the other forms of both open it themselves.
            Self::Review(_)
            | Self::Copy(_)
            | Self::Diff(_)
            | Self::ExplainDockerfile(_)
            | Self::Init(_)
            | Self::Lock(_)
            | Self::Keygen(_)
            | Self::Withdraw(_)
            | Self::Policy(_)
            | Self::Completions { .. } => false,
        }
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
        // With `--json`, standard error must have nothing but lines of JSON.
        let format = if self.mode() == Mode::Json { Format::Json } else { Format::Text };
        self.logs.install(tracing::Level::WARN, format)
    }

    fn run(self) -> Result<u8> {
        let mode = self.mode();
        if self.command.keeps_state() {
            trusted::state_directory(&self.state_dir, 0o755)?;
        }
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
            // With `--json`, progress is JSON too, whatever the environment says.
            (_, true, _) => Mode::Json,
            (_, _, mode) => mode,
        }
    }
}

fn run(command: Command, session: &Session) -> Result<Answer> {
    match command {
        Command::Build(arguments) => build::run(&arguments, session),
        Command::Rebuild(arguments) => rebuild::run(&arguments, session),
        Command::Copy(arguments) => copy::run(&arguments, session),
        Command::Diff(arguments) => diff::run(&arguments, session),
        Command::Init(arguments) => init::run(&arguments, session),
        Command::ExplainDockerfile(arguments) => explain::run(&arguments, session),
        Command::Lock(arguments) => lock::run(&arguments, session),
        Command::Materials(command) => materials::run(&command, session),
        Command::Review(arguments) => review::run(arguments, session),
        Command::Withdraw(arguments) => withdraw::run(&arguments, session),
        Command::Policy(command) => policy::run(&command, session),
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

    #[test]
    fn the_state_directory_is_where_the_program_was_called() {
        let program = Program::try_parse_from(["x", "--state-dir", "state", "completions", "bash"]).unwrap();
        assert_eq!(program.state_dir, std::env::current_dir().unwrap().join("state"));
    }
}
