//! From bytes to logical lines: text checks, parser directives, comments and continuations.

use super::words::{Opening, first_word, here_documents};
use super::{DockerfileError, Problem, SIZE_LIMIT};

/// A logical line: continuations joined, comments and empty lines left out.
#[derive(Debug)]
pub(super) struct Line {
    /// Where it starts, counted from 1.
    pub(super) number: usize,
    pub(super) text: String,
    /// The here-documents that it opens.
    pub(super) documents: Vec<HereDocument>,
}

/// A text in the Dockerfile itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HereDocument {
    /// Its name, which is also the line that ends it.
    pub(crate) name: String,
    /// Its lines, unchanged.
    pub(crate) text: String,
    /// Whether leading tabs of its lines are removed.
    pub(crate) strip_tabs: bool,
    /// Whether its variables are expanded.
    pub(crate) expand: bool,
}

impl HereDocument {
    /// Whether a command consists only of the opening of one.
    pub(crate) fn is_all_of(command: &str) -> bool {
        let command = command.trim();
        let name = command.split_once("<<").map_or("", |(_, name)| name.trim_start());
        !name.contains(char::is_whitespace) && Opening::of(command).is_some()
    }

    /// A command followed by all its here-documents, as in a file.
    pub(crate) fn all_behind(command: &str, documents: &[Self]) -> String {
        let documents = documents.iter().map(|it| format!("\n{}{}", it.text, it.name));
        format!("{command}{}", documents.collect::<String>())
    }

    /// Its lines, without leading tabs if it was opened by `<<-`.
    pub(crate) fn content(&self) -> String {
        match self.strip_tabs {
            true => self.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
            false => self.text.clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Lines {
    pub(super) escape: char,
    pub(super) lines: Vec<Line>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Lines, DockerfileError> {
    let text = check(bytes)?;
    // With its carriage return, which is part of a here-document.
    let physical: Vec<&str> = text.split('\n').collect();
    let escape = directives(&physical)?;
    Ok(Lines { escape, lines: join(&physical, escape)? })
}

fn check(bytes: &[u8]) -> Result<&str, DockerfileError> {
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(Problem::TooLarge(bytes.len()).at(1));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line_of = |at: usize| bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Problem::NotText("there is a NUL byte").at(line_of(at)));
    }
    std::str::from_utf8(bytes)
        .map_err(|error| Problem::NotText("the text is not UTF-8").at(line_of(error.valid_up_to())))
}

/// Directives are only at the very top; anything else ends them. Returns the escape character.
fn directives(lines: &[&str]) -> Result<char, DockerfileError> {
    let mut escape = '\\';
    let mut seen: Vec<String> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((key, value)) = directive(line) else { break };
        if seen.contains(&key) {
            return Err(Problem::syntax(format!("the directive {key} is given twice")).at(index + 1));
        }
        match key.as_str() {
            "escape" => escape = escape_character(value).map_err(|problem| problem.at(index + 1))?,
            "syntax" => check_syntax(value).map_err(|problem| problem.at(index + 1))?,
            "check" => {}
            _ => break,
        }
        seen.push(key);
    }
    Ok(escape)
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let key = key.trim();
    let plain = !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric());
    (plain && !value.trim().is_empty()).then(|| (key.to_ascii_lowercase(), value.trim()))
}

fn escape_character(value: &str) -> Result<char, Problem> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(Problem::syntax(format!("the escape character must be \\ or `, not {value}"))),
    }
}

/// Checks the frontend: every minor version of the standard one is accepted, and other frontends are other languages.
fn check_syntax(value: &str) -> Result<(), Problem> {
    let name = value.split('@').next().unwrap_or(value);
    let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
    match name.strip_prefix("docker.io/").unwrap_or(name) {
        "docker/dockerfile" | "docker/dockerfile-upstream" => Ok(()),
        _ => Err(Problem::unsupported(
            format!("the syntax {value}"),
            "write it in the language of docker/dockerfile",
        )),
    }
}

fn join(physical: &[&str], escape: char) -> Result<Vec<Line>, DockerfileError> {
    let mut lines = Vec::new();
    let mut open: Option<Line> = None;
    let mut rest = physical.iter().enumerate();
    while let Some((index, raw)) = rest.next() {
        let raw = raw.trim_end_matches('\r');
        let is_comment = raw.trim_start().starts_with('#');
        if is_comment || raw.trim().is_empty() {
            // Between continuation lines both are skipped; BuildKit warns about the empty ones.
            continue;
        }
        let (text, continues) = continuation(raw, escape);
        let mut line = match open.take() {
            Some(mut line) => {
                line.text.push_str(text);
                line
            }
            None => Line { number: index + 1, text: text.trim_start().to_owned(), documents: Vec::new() },
        };
        if continues {
            open = Some(line);
            continue;
        }
        for opening in opened(&line.text) {
            line.documents.push(document(opening, &mut rest).map_err(|problem| problem.at(line.number))?);
        }
        lines.push(line);
    }
    lines.extend(open);
    lines.retain(|line| !line.text.trim().is_empty());
    Ok(lines)
}

/// Only these instructions take here-documents.
fn opened(text: &str) -> Vec<Opening> {
    let (mut keyword, mut rest) = first_word(text);
    if keyword.eq_ignore_ascii_case("ONBUILD") {
        (keyword, rest) = first_word(rest.trim_start());
    }
    match ["RUN", "COPY", "ADD"].iter().any(|known| keyword.eq_ignore_ascii_case(known)) {
        true => here_documents(rest),
        false => Vec::new(),
    }
}

fn document<'a>(
    opening: Opening,
    lines: &mut impl Iterator<Item = (usize, &'a &'a str)>,
) -> Result<HereDocument, Problem> {
    let Opening { name, strip_tabs, expand } = opening;
    let mut text = String::new();
    for (_, line) in lines {
        let shown = line.trim_end_matches('\r');
        let shown = if strip_tabs { shown.trim_start_matches('\t') } else { shown };
        if shown == name {
            return Ok(HereDocument { name, text, strip_tabs, expand });
        }
        text.push_str(line);
        text.push('\n');
    }
    Err(Problem::syntax(format!("the here-document {name} does not end: no line says just {name}")))
}

/// The line without its continuation mark: one escape character at the end that no other escapes, and any blanks.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}
