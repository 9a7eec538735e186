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
