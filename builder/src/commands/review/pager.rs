//! Long texts for people: through the program that $PAGER names, where standard output is a terminal.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use errors::{Form, terminal};
use serde_json::Value;

use crate::commands::Session;
use crate::error::{Error, Kind, Result};

/// Prints a result as [`Session::result`] does, but through a pager where one is named and a person reads.
///
/// # Errors
/// When it cannot be printed, or the pager cannot be started.
pub(super) fn result(session: &Session, text: &str, value: &Value) -> Result<()> {
    let named = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    match named {
        Some(pager) if session.form() == Form::Text && std::io::stdout().is_terminal() => {
            session.workspace().progress().end();
            page(&pager, &terminal::lines(text))
        }
        _ => session.result(text, value),
    }
}

/// Runs the pager as other programs do: its text is a command line of the shell.
fn page(pager: &str, text: &str) -> Result<()> {
    let failed = |cause: std::io::Error| {
        Error::new(Kind::Machine, format!("the pager {pager} could not be used"))
            .hint("set PAGER to another program, or to nothing")
            .because(cause)
    };
    let mut child =
        Command::new("/bin/sh").args(["-c", pager]).stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text.as_bytes()).and_then(|()| input.flush()) {
            // Whoever leaves the pager before the end has read enough.
            Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => return Err(failed(cause)),
            _ => {}
        }
    }
    let status = child.wait().map_err(failed)?;
    match status.code() {
        // What the shell says of a program that it cannot find or start.
        Some(126 | 127) => Err(Error::new(Kind::Machine, format!("the pager {pager} could not be started"))
            .hint("set PAGER to another program, or to nothing")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pager_gets_everything_and_a_missing_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let text = "x\n".repeat(1 << 20);
        page(&format!("cat > '{}'", kept.display()), &text).unwrap();
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), text);
        page("head -n 1 > /dev/null", &text).unwrap();
        assert_eq!(page("/no/such/pager", &text).unwrap_err().kind(), Kind::Machine);
    }
}
