//! How results are printed.

use std::io::IsTerminal as _;

use errors::{Form, output, terminal};
use serde_json::Value;

use crate::error::Result;

/// The exit code of a yes.
pub(super) const YES: u8 = 0;
/// The colours of a yes and a no.
pub(super) const GREEN: &str = "\x1b[1;32m";
pub(super) const RED: &str = "\x1b[1;31m";

/// Prints a result whose first word stands out on a terminal.
pub(super) fn verdict(form: Form, word: &str, colour: &'static str, rest: &str, value: &Value) -> Result<()> {
    let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match form {
        Form::Text if is_coloured => {
            output::print(&format!("{colour}{word}\x1b[0m{}", terminal::lines(rest)))
        }
        _ => output::result(form, &format!("{word}{rest}"), value),
    }
}

/// Bytes that an algorithm wrote, on their way to standard output: for a terminal nothing in them steers it; for a file or
/// another program they are as they came.
pub(super) fn foreign(bytes: &[u8], is_terminal: bool) -> Vec<u8> {
    match is_terminal {
        true => terminal::lines(&String::from_utf8_lossy(bytes)).into_bytes(),
        false => bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_steered_and_a_file_gets_the_bytes() {
        let bytes = b"\x1b[2J\x1b[1;32madmitted\x9b\n";
        assert_eq!(foreign(bytes, false), bytes);
        let shown = String::from_utf8(foreign(bytes, true)).unwrap();
        assert!(!shown.contains('\x1b') && shown.contains("⟨U+001B⟩[1;32madmitted"), "{shown:?}");
        assert!(shown.ends_with('\n'));
    }
}
