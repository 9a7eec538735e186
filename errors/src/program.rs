//! The main function of both programs: parse, run, report, exit code.
//!
//! A reader of standard output that goes away before it has everything (`| head`) ends the program without a message
//! and with exit code 141, which is 128 + SIGPIPE: what a shell shows for the programs that the signal ends. It is not
//! 0, since the result, which may be a verdict, has not arrived.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::{Error, Form, Kind, Result, output, report, terminal};

/// The exit code when the reader of standard output went away: 128 + SIGPIPE.
pub const CLOSED_OUTPUT: u8 = 141;

/// A parsed command line.
pub trait Program: clap::Parser {
    /// How the result and errors are printed.
    fn form(&self) -> Form;

    /// Sets up the logs: [`crate::logs::Arguments::install`] with the program's defaults.
    ///
    /// # Errors
    /// When they cannot be set up.
    fn install_logs(&self) -> Result<()>;

    /// Does what was asked. The answer is the exit code: 0, or 1 for a "no" that is no error.
    ///
    /// # Errors
    /// Whatever keeps it from an answer.
    fn run(self) -> Result<u8>;
}

/// Runs a program with this process's arguments.
pub fn main<P: Program>() -> ExitCode {
    escape_panics();
    let program = match P::try_parse() {
        Ok(program) => program,
        Err(usage) => return explained(&usage),
    };
    let form = program.form();
    // A panic must never read as an answer, so it gets the exit code of a bug.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        program.install_logs()?;
        program.run()
    }));
    ended(outcome.unwrap_or_else(|panic| Err(bug(&*panic))), form)
}

fn ended(outcome: Result<u8>, form: Form) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_closed_output() => ExitCode::from(CLOSED_OUTPUT),
        Err(error) => report::report(&error, form),
    }
}

/// Prints the help, the version, or what is wrong with the command line.
fn explained(usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() {
        // The exit code says it where nobody reads.
        let _ = usage.print();
        return ExitCode::from(Kind::Usage.exit_code());
    }
    let text = match std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        true => usage.render().ansi().to_string(),
        false => usage.render().to_string(),
    };
    ended(output::write(text.as_bytes()).map(|()| 0), Form::Text)
}

fn bug(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing");
    Error::new(Kind::Bug, format!("the program broke off: {text}"))
        .hint("this is a defect: please report it with what was printed")
}

/// A panic's message may have a stranger's words in it, and a closed standard error must not make it a second panic.
fn escape_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        let thread = std::thread::current();
        let text = format!("thread '{}' {panic}{trace}", thread.name().unwrap_or("without a name"));
        let _ = std::io::Write::write_all(
            &mut std::io::stderr().lock(),
            format!("{}\n", terminal::lines(&text)).as_bytes(),
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_bug_with_its_text() {
        let error = bug(&"index out of bounds".to_owned());
        assert_eq!((error.kind(), error.to_string().contains("index out of bounds")), (Kind::Bug, true));
        assert!(bug(&"a").to_string().ends_with(": a") && bug(&1).hint_text().is_some());
    }

    #[test]
    fn each_ending_has_its_exit_code() {
        let code = |outcome| format!("{:?}", ended(outcome, Form::Text));
        assert_eq!(code(Ok(1)), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(Err(Error::new(Kind::Key, "x"))), format!("{:?}", ExitCode::from(7)));
    }
}
