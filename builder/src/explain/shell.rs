//! A shell script as the commands that it calls, each with its words: so that a word in a text, a comment or a document is
//! not taken for a command. No shell is imitated: expansions stay as written, and what is malformed is read as far as it goes.

use std::collections::VecDeque;

/// The deepest script in a script.
const MAX_DEPTH: usize = 8;
/// The most commands of one script.
const MAX_COMMANDS: usize = 10_000;

/// One command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Simple {
    /// Its words without quotes; variables as written.
    pub(super) words: Vec<String>,
    /// Whether its output is the next one's input.
    pub(super) is_piped: bool,
    /// What it is given as a document (`<<`).
    pub(super) documents: Vec<String>,
    /// The commands in its words: `$(…)`, `` `…` ``, `<(…)`.
    pub(super) inner: Vec<Simple>,
}

/// The commands of a script. `documents` are those that the Dockerfile has already taken out of it.
pub(super) fn commands(script: &str, documents: &[String]) -> Vec<Simple> {
    let mut documents: VecDeque<String> = documents.iter().cloned().collect();
    let mut reader = Reader::new(script, 0);
    reader.script(&mut documents)
}

struct Reader {
    text: Vec<char>,
    at: usize,
    depth: usize,
}

/// What ends a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    None,
    Some,
}

impl Reader {
    fn new(text: &str, depth: usize) -> Self {
        Self { text: text.chars().collect(), at: 0, depth }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(number, c)| self.text.get(self.at + number) == Some(&c))
    }

    fn script(&mut self, given: &mut VecDeque<String>) -> Vec<Simple> {
        let mut found = Vec::new();
        let mut now = Simple::default();
        // Names of documents whose text follows this line.
        let mut awaited: Vec<(usize, String, bool)> = Vec::new();
        while let Some(c) = self.peek() {
            if found.len() > MAX_COMMANDS {
                break;
            }
            match c {
                ' ' | '\t' | '\r' => self.at += 1,
                '\\' if self.text.get(self.at + 1) == Some(&'\n') => self.at += 2,
                '\n' => {
                    self.at += 1;
                    take(&mut found, &mut now, false);
                    for (number, name, strip) in awaited.drain(..) {
                        let text = self.document(&name, strip);
                        if let Some(simple) = found.get_mut(number) {
                            simple.documents.push(text);
                        }
                    }
                }
                '#' => self.skip_line(),
                ';' | '(' | ')' => {
                    self.at += 1;
                    take(&mut found, &mut now, false);
                }
                '&' if self.starts_with("&>") => {
                    self.at += 2;
                    self.redirect();
                }
                '&' => {
                    self.at += 1;
                    take(&mut found, &mut now, false);
                }
                '|' if self.starts_with("||") => {
                    self.at += 2;
                    take(&mut found, &mut now, false);
                }
                '|' => {
                    self.at += if self.starts_with("|&") { 2 } else { 1 };
                    take(&mut found, &mut now, true);
                }
                '<' if self.starts_with("<<<") => {
                    self.at += 3;
                    let mut text = String::new();
                    self.skip_blanks();
                    self.word(&mut text, &mut now.inner);
                    now.documents.push(text);
                }
                '<' if self.starts_with("<<") => {
                    self.at += 2;
                    let strip = self.peek() == Some('-');
                    self.at += usize::from(strip);
                    self.skip_blanks();
                    let mut name = String::new();
                    self.word(&mut name, &mut now.inner);
                    match given.pop_front() {
                        Some(text) => now.documents.push(text),
                        None => awaited.push((found.len(), name, strip)),
                    }
                }
                '<' | '>' if self.text.get(self.at + 1) == Some(&'(') => {
                    let mut text = String::new();
                    self.word(&mut text, &mut now.inner);
                    now.words.push(text);
                }
                '<' | '>' => {
                    self.at += 1;
                    self.redirect();
                }
                _ => {
                    let mut text = String::new();
                    let is_word = self.word(&mut text, &mut now.inner);
                    // A number before a redirection is no word.
                    let is_file = matches!(self.peek(), Some('<' | '>')) && is_number(&text);
                    if is_word == Word::Some && !is_file {
                        now.words.push(text);
                    }
                }
            }
        }
        take(&mut found, &mut now, false);
        found
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.at += 1;
        }
    }

    /// The rest of a redirection: its file.
    fn redirect(&mut self) {
        while matches!(self.peek(), Some('>' | '<' | '&' | '|')) {
            self.at += 1;
        }
        self.skip_blanks();
        self.word(&mut String::new(), &mut Vec::new());
    }

    /// The text up to a line that is `name`.
    fn document(&mut self, name: &str, strip: bool) -> String {
        let mut text = String::new();
        while self.at < self.text.len() {
            let start = self.at;
            self.skip_line();
            let line: String = self.text[start..self.at].iter().collect();
            self.at += 1;
            let line = if strip { line.trim_start_matches('\t') } else { &line };
            if line.trim_end_matches('\r') == name {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        self.at = self.at.min(self.text.len());
        text
    }

    /// Reads a word into `out`, and the commands in it into `inner`.
    fn word(&mut self, out: &mut String, inner: &mut Vec<Simple>) -> Word {
        let start = self.at;
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | ')' => break,
                '(' if out.is_empty() => break,
                '<' | '>' if self.text.get(self.at + 1) == Some(&'(') && self.at == start => {
                    self.at += 1;
                    self.parenthesised(out, inner);
                }
                '<' | '>' => break,
                '\\' => {
                    if let Some(next) = self.text.get(self.at + 1).filter(|next| **next != '\n') {
                        out.push(*next);
                    }
                    self.at = (self.at + 2).min(self.text.len());
                }
                '\'' => {
                    self.at += 1;
                    while let Some(c) = self.peek().filter(|c| *c != '\'') {
                        out.push(c);
                        self.at += 1;
                    }
                    self.at += 1;
                }
                '"' => self.quoted(out, inner),
                '`' => self.backquoted(out, inner),
                '$' => self.dollar(out, inner),
                _ => {
                    out.push(c);
                    self.at += 1;
                }
            }
        }
        self.at = self.at.min(self.text.len());
        if self.at == start {
            // What begins no word is passed over.
            self.at += 1;
            return Word::None;
        }
        Word::Some
    }

    fn quoted(&mut self, out: &mut String, inner: &mut Vec<Simple>) {
        self.at += 1;
        while let Some(c) = self.peek().filter(|c| *c != '"') {
            match c {
                '\\' => {
                    if let Some(next) = self.text.get(self.at + 1) {
                        if !matches!(next, '"' | '\\' | '$' | '`' | '\n') {
                            out.push('\\');
                        }
                        if *next != '\n' {
                            out.push(*next);
                        }
                    }
                    self.at += 2;
                }
                '`' => self.backquoted(out, inner),
                '$' => self.dollar(out, inner),
                _ => {
                    out.push(c);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
    }

    fn backquoted(&mut self, out: &mut String, inner: &mut Vec<Simple>) {
        self.at += 1;
        let start = self.at.min(self.text.len());
        while self.peek().is_some_and(|c| c != '`') {
            self.at += 1;
        }
        let script: String = self.text[start..self.at.min(self.text.len())].iter().collect();
        self.at += 1;
        out.push_str(&format!("`{script}`"));
        self.nested(&script, inner);
    }

    fn dollar(&mut self, out: &mut String, inner: &mut Vec<Simple>) {
        out.push('$');
        self.at += 1;
        match self.peek() {
            // Arithmetic calls nothing by itself.
            Some('(') => self.parenthesised(out, inner),
            Some('{') => {
                while let Some(c) = self.peek() {
                    out.push(c);
                    self.at += 1;
                    if c == '}' {
                        break;
                    }
                }
            }
            _ => {}
        }
    }

    /// `( … )` behind `$` or `<`.
    fn parenthesised(&mut self, out: &mut String, inner: &mut Vec<Simple>) {
        self.at += 1;
        let start = self.at.min(self.text.len());
        let (mut open, mut quote) = (1, None);
        while let Some(c) = self.peek() {
            match (quote, c) {
                (Some(mark), _) if mark == c => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, '(') => open += 1,
                (None, ')') => open -= 1,
                (None, _) => {}
            }
            if open == 0 {
                break;
            }
            self.at += 1;
        }
        let script: String = self.text[start..self.at.min(self.text.len())].iter().collect();
        self.at += 1;
        out.push_str(&format!("({script})"));
        if !script.starts_with('(') {
            self.nested(&script, inner);
        }
    }

    fn nested(&self, script: &str, inner: &mut Vec<Simple>) {
        if self.depth < MAX_DEPTH {
            inner.extend(Reader::new(script, self.depth + 1).script(&mut VecDeque::new()));
        }
    }
}

fn take(found: &mut Vec<Simple>, now: &mut Simple, is_piped: bool) {
    let simple = std::mem::take(now);
    if simple != Simple::default() {
        found.push(Simple { is_piped, ..simple });
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(script: &str, documents: &[&str]) -> Vec<String> {
        fn one(simple: &Simple, out: &mut Vec<String>) {
            simple.inner.iter().for_each(|inner| one(inner, out));
            let documents: String = simple.documents.iter().map(|it| format!(" <<{it:?}")).collect();
            let pipe = if simple.is_piped { " |" } else { "" };
            out.push(format!("{}{documents}{pipe}", simple.words.join("·")));
        }
        let documents: Vec<String> = documents.iter().map(|it| (*it).to_owned()).collect();
        let mut out = Vec::new();
        commands(script, &documents).iter().for_each(|simple| one(simple, &mut out));
        out
    }

    #[test]
    fn scripts_are_cut_into_commands() {
        let table: [(&str, &[&str]); 14] = [
            ("a b && c || d; e & f\ng", &["a·b", "c", "d", "e", "f", "g"]),
            ("a 'b c' \"d $e\" f\\ g", &["a·b c·d $e·f g"]),
            ("a | b |& c", &["a |", "b |", "c"]),
            ("a $(b c) \"`d`\" <(e)", &["b·c", "d", "e", "a·$(b c)·`d`·(e)"]),
            ("a # b\nc#d", &["a", "c#d"]),
            ("a > b 2>&1 < c 2>/dev/null d", &["a·d"]),
            ("(cd x && make)", &["cd·x", "make"]),
            ("if a; then b; fi", &["if·a", "then·b", "fi"]),
            ("a <<EOF b\nx y\nEOF\nc", &["a·b <<\"x y\\n\"", "c"]),
            ("a <<-'E'\n\tx\n\tE\nc", &["a <<\"x\\n\"", "c"]),
            ("a <<< 'x y' b", &["a·b <<\"x y\""]),
            ("a \\\n  b", &["a·b"]),
            ("echo $((1 + 2)) ${x:-y z}", &["echo·$((1 + 2))·${x:-y z}"]),
            ("a '", &["a·"]),
        ];
        for (script, expected) in table {
            assert_eq!(shown(script, &[]), expected, "{script}");
        }
        assert_eq!(shown("cat <<one > /a && sh <<two", &["1\n", "2\n"]), ["cat <<\"1\\n\"", "sh <<\"2\\n\""]);
    }

    proptest! {
        #[test]
        fn any_script_is_read_to_its_end(script in "[a-c \"'`$(){}<>|&;#\\\\\\n\\t-]{0,60}") {
            let _ = commands(&script, &[]);
        }
    }
}
