//! Standard output, for results. When its reader goes away (`| head`), the program ends without a word of its own: see
//! [`crate::program`].

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write};

use serde_json::Value;

use crate::{Error, Form, Kind, Result, chain, terminal};

/// Prints a result: `text` for people, or `value` as one line of JSON for programs.
///
/// # Errors
/// When standard output cannot be written, so that a lost result is never taken for a success.
pub fn result(form: Form, text: &str, value: &Value) -> Result<()> {
    match form {
        // Names of files and of what came over the network stand in it.
        Form::Text => print(&terminal::lines(text.trim_end_matches('\n'))),
        Form::Json => print(&terminal::json(value)),
    }
}

/// Prints text that is safe already, and a line feed.
///
/// # Errors
/// As [`result`].
pub fn print(text: &str) -> Result<()> {
    let mut out = Output::default();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failed)
}

/// Prints bytes as they are, such as the result of an algorithm.
///
/// # Errors
/// As [`result`].
pub fn write(bytes: &[u8]) -> Result<()> {
    let mut out = Output::default();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(failed)
}

fn failed(cause: io::Error) -> Error {
    Error::new(Kind::Machine, "writing the result to standard output").because(cause)
}

/// Standard output as a writer that marks a reader's leaving, so that no broken connection elsewhere is taken for it.
#[derive(Debug, Default)]
pub struct Output(());

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(marked)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(marked)
    }
}

fn marked(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, Closed),
        _ => error,
    }
}

/// The reader of standard output went away.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("nobody reads standard output any more")
    }
}

impl StdError for Closed {}

/// Whether an error comes from a reader of standard output that went away.
pub(crate) fn is_closed(error: &(dyn StdError + 'static)) -> bool {
    chain::any::<io::Error>(error, |cause| cause.get_ref().is_some_and(|inner| inner.is::<Closed>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_standard_output_is_taken_for_it() {
        let ours = marked(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_closed(&Error::new(Kind::Machine, "outer").because(failed(ours))));
        let other = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(!is_closed(&Error::new(Kind::Network, "the registry hung up").because(other)));
        let full = marked(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!is_closed(&failed(full)));
    }
}
