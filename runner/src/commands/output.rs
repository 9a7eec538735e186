//! How results and errors are printed.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::error::{Error, Kind, Result};

/// The exit code of a yes.
pub(super) const YES: u8 = 0;

/// Prints an error; the answer is the exit code.
pub(super) fn report(error: &Error, json: bool) -> ExitCode {
    if json {
        println!("{}", error.to_json());
    } else {
        eprintln!("error: {error}");
        for cause in error.causes() {
            eprintln!("  because: {cause}");
        }
        if let Some(hint) = error.hint_text() {
            eprintln!("  hint: {hint}");
        }
    }
    ExitCode::from(error.kind().exit_code())
}

/// How answers are printed.
pub(super) struct Say {
    /// As one JSON object.
    pub(super) json: bool,
}

impl Say {
    pub(super) fn result(&self, text: &str, value: &serde_json::Value) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let written = if self.json { writeln!(out, "{value}") } else { writeln!(out, "{text}") };
        written
            .and_then(|()| out.flush())
            .map_err(|cause| Error::new(Kind::Machine, "writing the answer").because(cause))
    }

    fn colour(&self, code: &'static str) -> &'static str {
        let wanted = !self.json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if wanted { code } else { "" }
    }

    pub(super) fn green(&self) -> &'static str {
        self.colour("\x1b[1;32m")
    }

    pub(super) fn red(&self) -> &'static str {
        self.colour("\x1b[1;31m")
    }

    pub(super) fn plain(&self) -> &'static str {
        self.colour("\x1b[0m")
    }
}
