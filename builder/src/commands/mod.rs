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

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Kind, Result};
use crate::progress::{self, Mode};

use session::{Answer, Output, Session};

/// Where `--help` lists the options that every command has.
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
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a git commit; the result is the same, bit for bit, on every machine.
    Build(Box<build::Arguments>),
    /// Repeat a build from its provenance, compare the images, and sign whether they are identical.
    Rebuild(Box<rebuild::Arguments>),
    /// Compare two images and list the layers and files that differ.
    Diff(diff::Arguments),
    /// List what a Dockerfile will run and what makes it hard to reproduce, line by line, with fixes.
    ExplainDockerfile(explain::Arguments),
    /// Write a lock file: the base images and packages that a build used, for review and for later builds.
    Lock(lock::Arguments),
    /// List, check, export, import and delete the recorded network responses of builds.
    #[command(subcommand)]
    Materials(materials::Command),
    /// Show a commit for review, sign a review of it, or check a signed review.
    Review(review::Arguments),
    /// Create a signing key.
    Keygen(keygen::Arguments),
    /// Print a shell completion script.
    Completions {
        /// Shell to print the script for.
        shell: clap_complete::Shell,
    },
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
    let mode = match (program.quiet, program.json, program.progress) {
        (true, _, _) | (_, _, Mode::Quiet) => Mode::Quiet,
        // Who reads the result with a machine reads this with one, whatever the environment says.
        (_, true, _) => Mode::Json,
        (_, _, mode) => mode,
    };
    let output = if program.json { Output::Json } else { Output::Text };
    let session = Session::new(program.state_dir, output, mode);
    let command = program.command;
    // A panic must never read as an answer, so it gets the exit code of a bug.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(command, &session))) {
        Ok(Ok(Answer::Yes)) => ExitCode::SUCCESS,
        Ok(Ok(Answer::No)) => ExitCode::from(Kind::Refused.exit_code()),
        Ok(Err(error)) => report(&error, &session),
        Err(_) => ExitCode::from(Kind::Bug.exit_code()),
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
            clap_complete::generate(
                shell,
                &mut Program::command(),
                "countersign-builder",
                &mut std::io::stdout(),
            );
            Ok(Answer::Yes)
        }
    }
}

fn report(error: &Error, session: &Session) -> ExitCode {
    session.workspace().progress().end();
    if session.output() == Output::Json {
        let _ = writeln!(std::io::stdout().lock(), "{}", progress::json(&error.to_json()));
        return ExitCode::from(error.kind().exit_code());
    }
    let mut out = std::io::stderr().lock();
    // What went wrong may be told in a stranger's words.
    let lines = progress::lines;
    let _ = writeln!(out, "error: {}", lines(&error.to_string()));
    for line in error.detail_lines() {
        let _ = writeln!(out, "  | {}", lines(line));
    }
    for cause in error.causes() {
        let _ = writeln!(out, "  because: {}", lines(&cause));
    }
    if let Some(hint) = error.hint_text() {
        let _ = writeln!(out, "  hint: {}", lines(hint));
    }
    ExitCode::from(error.kind().exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Program::command().debug_assert();
    }
}
