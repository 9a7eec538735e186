//! A terminal for a program under test, by `script` of util-linux, and what a person would see on it at every moment.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The terminal's width and height.
pub const SIZE: (usize, usize) = (100, 30);

/// What a program showed.
pub struct Shown {
    /// The exit code.
    pub code: i32,
    /// All bytes that came.
    pub bytes: Vec<u8>,
    /// What stood on the terminal, each time that something came, and at the end.
    pub frames: Vec<String>,
}

impl Shown {
    /// The last frame: what is left when the program has ended.
    pub fn last(&self) -> &str {
        self.frames.last().map_or("", String::as_str)
    }
}

/// Runs a program on a terminal. As soon as `words` stand there, `keys` are typed once.
pub fn on_terminal(
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
    (words, keys): (&str, &str),
) -> Shown {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    let words_of_it: Vec<String> = arguments.iter().map(quoted).collect();
    let line = format!("stty rows {} cols {}; exec '{program}' {}", SIZE.1, SIZE.0, words_of_it.join(" "));
    let mut command = Command::new("script");
    command.args(["-q", "-f", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm-256color");
    command.env_remove("NO_COLOR").env_remove("COUNTERSIGN_PROGRESS");
    let state = tempfile::tempdir().unwrap();
    match arguments.iter().any(|word| word == "--state-dir") {
        true => command.env_remove("COUNTERSIGN_STATE"),
        false => command.env("COUNTERSIGN_STATE", state.path()),
    };
    command.envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut typing, mut shown) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut screen, mut bytes, mut frames) = (Screen::default(), Vec::new(), Vec::new());
    let (mut buffer, mut is_typed, end) =
        ([0; 4096], keys.is_empty(), Instant::now() + Duration::from_secs(120));
    loop {
        let count = shown.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..count]);
        screen.take(&buffer[..count]);
        let frame = screen.text();
        if !is_typed && frame.contains(words) {
            typing.write_all(keys.as_bytes()).unwrap();
            typing.flush().unwrap();
            is_typed = true;
        }
        frames.push(frame);
        assert!(Instant::now() < end, "it does not end:\n{}", frames.last().unwrap());
    }
    drop(typing);
    Shown { code: child.wait().unwrap().code().unwrap_or(-1), bytes, frames }
}

/// The few things that progress does to a terminal: letters, line feeds, the cursor up and down, lines cleared, colours. Anything else
/// fails the test. Nothing scrolls out of it.
#[derive(Default)]
struct Screen {
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Bytes of a letter or sequence that has not ended.
    open: Vec<u8>,
}

impl Screen {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.open.push(*byte);
            if self.open[0] == 0x1b {
                if self.open.len() > 2 && byte.is_ascii_alphabetic() {
                    self.sequence();
                }
            } else if let Ok(text) = std::str::from_utf8(&self.open) {
                let letter = text.chars().next().unwrap();
                self.open.clear();
                self.letter(letter);
            }
        }
    }

    fn letter(&mut self, letter: char) {
        match letter {
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            letter => {
                assert!(!letter.is_control(), "{letter:?} reached the terminal");
                if self.column == SIZE.0 {
                    (self.row, self.column) = (self.row + 1, 0);
                }
                let column = self.column;
                let line = self.line();
                line.resize(line.len().max(column + 1), ' ');
                line[column] = letter;
                self.column += 1;
            }
        }
    }

    fn line(&mut self) -> &mut Vec<char> {
        self.lines.resize(self.lines.len().max(self.row + 1), Vec::new());
        &mut self.lines[self.row]
    }

    fn sequence(&mut self) {
        let sequence = String::from_utf8(std::mem::take(&mut self.open)).unwrap();
        let (parameter, letter) = (&sequence[2..sequence.len() - 1], &sequence[sequence.len() - 1..]);
        let number: usize = parameter.parse().unwrap_or(1);
        let column = self.column;
        match letter {
            "A" => self.row -= number.min(self.row),
            "B" => self.row += number,
            "K" if parameter == "2" => self.line().clear(),
            "K" => self.line().truncate(column),
            "m" => {}
            _ => panic!("{sequence:?} reached the terminal"),
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }
}
