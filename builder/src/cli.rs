//! The command line: which subcommands there are, what they share, and how their outcome becomes output and an exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Kind, Result};
use crate::progress::{self, Event, Mode, Progress};
use crate::{build, explain, keys, lock, materials, rebuild, review};

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
    Build(Box<build::cli::Arguments>),
    /// Repeat a build from its provenance, compare the images, and sign whether they are identical.
    Rebuild(Box<rebuild::cli::Arguments>),
    /// Compare two images and list the layers and files that differ.
    Diff(rebuild::diff::Arguments),
    /// List what a Dockerfile will run and what makes it hard to reproduce, line by line, with fixes.
    ExplainDockerfile(explain::cli::Arguments),
    /// Write a lock file: the base images and packages that a build used, for review and for later builds.
    Lock(lock::cli::Arguments),
    /// List, check, export, import and delete the recorded network responses of builds.
    #[command(subcommand)]
    Materials(materials::cli::Command),
    /// Show a commit for review, sign a review of it, or check a signed review.
    Review(review::cli::Arguments),
    /// Create a signing key.
    Keygen(keys::cli::Arguments),
    /// Print a shell completion script.
    Completions {
        /// Shell to print the script for.
        shell: clap_complete::Shell,
    },
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
        let mut out = std::io::stdout().lock();
        let written = match self.json {
            true => writeln!(out, "{}", progress::json(value)),
            // Names of files and of what came over the network stand in it.
            false => writeln!(out, "{}", progress::lines(text.trim_end_matches('\n'))),
        };
        written
            .and_then(|()| out.flush())
            .map_err(|cause| Error::new(Kind::Machine, "writing the result").because(cause))
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
    let session = Session::new(program.state_dir, program.json, mode);
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
        Command::Build(arguments) => build::cli::run(&arguments, session),
        Command::Rebuild(arguments) => rebuild::cli::run(&arguments, session),
        Command::Diff(arguments) => rebuild::diff::run(&arguments, session),
        Command::ExplainDockerfile(arguments) => explain::cli::run(&arguments, session),
        Command::Lock(arguments) => lock::cli::run(&arguments, session),
        Command::Materials(command) => materials::cli::run(&command, session),
        Command::Review(arguments) => review::cli::run(arguments, session),
        Command::Keygen(arguments) => keys::cli::run(arguments, session),
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
    session.progress().end();
    if session.json() {
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
