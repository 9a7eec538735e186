//! `.dockerignore` and `--exclude`: files that the build, or one `COPY`, leaves out. The last matching rule decides.

use super::Problem;
use super::pattern::{Pattern, PatternError};

/// Largest `.dockerignore` read, in bytes.
pub(crate) const SIZE_LIMIT: u64 = 256 * 1024;

/// The rules of one `.dockerignore`, or of one instruction's `--exclude`s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    keep: bool,
}

/// A `.dockerignore` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(crate) struct IgnoreError {
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) problem: String,
}

impl Ignore {
    /// Parses the file.
    ///
    /// # Errors
    /// For bytes that are no text and for patterns that are not closed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, IgnoreError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = std::str::from_utf8(bytes).map_err(|_| IgnoreError {
            line: 1,
            problem: Problem::NotText("the text is not UTF-8").to_string(),
        })?;
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let rule =
                rule(line).map_err(|error| IgnoreError { line: index + 1, problem: error.to_string() })?;
            rules.extend(rule);
        }
        Ok(Self { rules })
    }

    /// Whether there are no rules.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Of patterns, one `--exclude` each.
    ///
    /// # Errors
    /// For a pattern that is not closed.
    pub(crate) fn of(patterns: &[String]) -> Result<Self, PatternError> {
        let rules = patterns.iter().map(|text| pattern(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { rules: rules.into_iter().flatten().collect() })
    }

    /// Whether a rule keeps files that another leaves out, so that an ignored folder may contain files to keep.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keep)
    }

    /// Whether `path`, relative to the context, is left out, by a rule for itself or for a folder above it.
    pub(crate) fn leaves_out(&self, path: &[u8]) -> bool {
        let mut left_out = false;
        for rule in &self.rules {
            if rule.fits(path) {
                left_out = !rule.keep;
            }
        }
        left_out
    }
}

impl Rule {
    fn fits(&self, path: &[u8]) -> bool {
        let folders = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
        self.pattern.matches(path) || folders.into_iter().any(|folder| self.pattern.matches(folder))
    }
}

fn rule(line: &str) -> Result<Option<Rule>, PatternError> {
    match line.starts_with('#') {
        true => Ok(None),
        false => pattern(line),
    }
}

fn pattern(text: &str) -> Result<Option<Rule>, PatternError> {
    let text = text.trim();
    let (keep, text) = match text.strip_prefix('!') {
        Some(rest) if rest.trim().is_empty() => return Err(PatternError::Nothing),
        Some(rest) => (true, rest.trim()),
        None => (false, text),
    };
    match clean(text) {
        None => Ok(None),
        Some(text) => Ok(Some(Rule { pattern: Pattern::deep(&text)?, keep })),
    }
}

/// A pattern without leading, trailing and doubled slashes, with `.` and `..` resolved. None when it matches nothing
/// in the context: `.` is the context itself, which cannot be left out, and `../a` is outside.
fn clean(text: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() && !text.starts_with('/') => return None,
            ".." => {}
            _ => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rules() {
        let table: [(&str, &[&str], &[&str]); 9] = [
            (".git\n*.pyc", &[".git", ".git/config", "a.pyc"], &["a/b.pyc", ".gitignore"]),
            ("**/*.pyc", &["a.pyc", "a/b/c.pyc"], &["a.py"]),
            ("*\n!src\n", &["a", "b/c"], &["src", "src/a"]),
            ("docs\n!docs/keep.md", &["docs", "docs/a.md"], &["docs/keep.md"]),
            ("/leading/", &["leading", "leading/a"], &["b"]),
            ("# comment\n\n  spaced  ", &["spaced"], &["# comment"]),
            ("a\n!a\na", &["a"], &["b"]),
            (".\n..\n/..\n!/", &[], &["a"]),
            ("../a\nb/../../c\n/../d\nb/../e", &["d", "e"], &["a", "b", "c"]),
        ];
        for (text, out, kept) in table {
            let ignore = Ignore::parse(text.as_bytes()).unwrap();
            for path in out {
                assert!(ignore.leaves_out(path.as_bytes()), "{text:?} leaves out {path}");
            }
            for path in kept {
                assert!(!ignore.leaves_out(path.as_bytes()), "{text:?} keeps {path}");
            }
        }
    }

    #[test]
    fn mistakes_have_a_line() {
        for text in ["a\n[b", "a\n!", "a\n ! "] {
            assert_eq!(Ignore::parse(text.as_bytes()).unwrap_err().line, 2, "{text}");
        }
        assert!(Ignore::parse(b"\xff").is_err());
    }
}
