//! Splits the arguments of an instruction: flags, JSON arrays, words, and `name=value` pairs.

use super::Problem;
use super::instruction::Pair;

/// `--name=value` or `--name` in front of the arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// Splits the leading flags off. A lone `--` ends them.
pub(super) fn flags(text: &str, escape: char) -> (Vec<Flag>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag_word(rest, escape);
        rest = after.trim_start();
        let Some(body) = word.strip_prefix("--").filter(|body| !body.is_empty()) else { break };
        flags.push(match body.split_once('=') {
            Some((name, value)) => Flag { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Flag { name: body.to_owned(), value: None },
        });
    }
    (flags, rest)
}

/// One word with quotes and escapes removed, as BuildKit reads flags.
fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            (' ' | '\t', None) => return (word, &text[at..]),
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            _ if letter == escape => word.extend(letters.next().map(|(_, next)| next)),
            _ => word.push(letter),
        }
    }
    (word, "")
}

/// The result of parsing text that may be a JSON array.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    Strings(Vec<String>),
    /// Not JSON: another form of the instruction.
    No,
}

/// A JSON array of strings, if the text is one; an array of anything else is a mistake.
pub(super) fn json(text: &str) -> Result<Json, Problem> {
    if !text.starts_with('[') {
        return Ok(Json::No);
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(&with_whole_letters(text)) {
        Ok(values) => values
            .into_iter()
            .map(|value| match value {
                serde_json::Value::String(text) => Ok(text),
                _ => Err(Problem::syntax("only strings may stand in the array")),
            })
            .collect::<Result<_, _>>()
            .map(Json::Strings),
        Err(_) => Ok(Json::No),
    }
}

/// JSON text in which unpaired surrogates (`\ud83d` without the second one) are replacement characters, as Go reads
/// them.
fn with_whole_letters(text: &str) -> String {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let (mut whole, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        whole.push_str(before);
        let (escape, length) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (escape, 12),
            (Some(0xd800..=0xdfff), _) => ("\\ufffd", 6),
            _ => (escape, 1 + escape[1..].chars().next().map_or(0, char::len_utf8)),
        };
        whole.push_str(escape.get(..length).unwrap_or(escape));
        rest = &rest[at + length..];
    }
    whole + rest
}

/// The separators of arguments in lists. Other Unicode white space is part of a word.
const BLANKS: [char; 5] = [' ', '\t', '\u{b}', '\u{c}', '\r'];

/// Words between blanks, without special characters.
pub(super) fn plain_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(BLANKS).filter(|word| !word.is_empty())
}

/// The first word, and the rest.
pub(super) fn first_word(text: &str) -> (&str, &str) {
    text.split_once(BLANKS).unwrap_or((text, ""))
}

/// Words between blanks; quotes are respected and kept.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    shell_words(text, escape, false)
}

/// The same; if `opens`, blanks after `<<` are part of the word that it begins.
fn shell_words(text: &str, escape: char, opens: bool) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if opens && quote.is_none() && letter == '<' && letters.next_if_eq(&'<').is_some() {
            word.push_str("<<");
            while let Some(blank) = letters.next_if(|next| next.is_whitespace()) {
                word.push(blank);
            }
            continue;
        }
        if quote.is_none() && letter.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(letter);
        match quote {
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            // Single quotes allow no escapes.
            _ if letter == escape && quote != Some('\'') => word.extend(letters.next()),
            _ => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `name=value …`, or the old `name value with blanks`.
pub(super) fn pairs(text: &str, escape: char, instruction: &str) -> Result<Vec<Pair<String>>, Problem> {
    let words = quoted_words(text, escape);
    let first = words
        .first()
        .ok_or_else(|| Problem::syntax(format!("{instruction} needs at least one name=value")))?;
    if !first.contains('=') {
        let (name, value) = text
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(|| Problem::syntax(format!("{instruction} {first} has no value")))?;
        return Ok(vec![Pair { name: name.to_owned(), value: value.trim_start().to_owned() }]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Problem::syntax(format!("{instruction} {word} has no name"))),
            Some((name, value)) => Ok(Pair { name: name.to_owned(), value: value.to_owned() }),
            None => Err(Problem::syntax(format!("{instruction}: {word} is not of the form name=value"))),
        })
        .collect()
}

/// The opening of a here-document: `<<EOF`, `<< EOF`, `<<-EOF`, `3<<"EOF"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    /// The line that ends it, and its name.
    pub(super) name: String,
    /// Whether tabs at the start of its lines are left out.
    pub(super) strip_tabs: bool,
    /// Whether its variables are expanded; not if its name is quoted.
    pub(super) expand: bool,
}

impl Opening {
    /// The opening in a word, if it is one.
    pub(super) fn of(word: &str) -> Option<Self> {
        let name = word.trim_start_matches(|digit: char| digit.is_ascii_digit()).strip_prefix("<<")?;
        let (name, strip_tabs) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
        let (spaced, name) = (name.starts_with(char::is_whitespace), name.trim_start());
        let (mut bare, mut letters) = (String::new(), name.chars());
        while let Some(letter) = letters.next() {
            match letter {
                '"' | '\'' => {}
                '\\' => bare.extend(letters.next()),
                letter => bare.push(letter),
            }
        }
        // With a blank, as in `$((1 << 2))`, it may also be a shift.
        let is_word = || {
            bare.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
                && bare.chars().all(|letter| letter.is_alphanumeric() || "_-.".contains(letter))
        };
        let fits = !bare.is_empty() && !bare.contains('<') && (!spaced || is_word());
        fits.then(|| Self { expand: !name.contains(['"', '\'']), name: bare, strip_tabs })
    }
}

/// The here-documents that a line opens, in order. Here the escape character is always the backslash.
pub(super) fn here_documents(text: &str) -> Vec<Opening> {
    shell_words(text, '\\', true).iter().filter_map(|word| Opening::of(word)).collect()
}
