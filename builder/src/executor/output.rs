//! A step's output: shown line by line as it arrives; the last lines are kept for the error message.

use std::collections::VecDeque;

use crate::progress::without_sequences;

/// The number of lines kept.
const KEPT: usize = 40;
/// The most bytes of a line; a longer one is split.
const LINE_LIMIT: usize = 4096;

/// The output of a running step.
pub(crate) struct Output<'a> {
    open: Vec<u8>,
    last: VecDeque<String>,
    show: &'a mut dyn FnMut(&str),
}

impl<'a> Output<'a> {
    /// Each complete line is passed to `show`.
    pub(crate) fn new(show: &'a mut dyn FnMut(&str)) -> Self {
        Self { open: Vec::new(), last: VecDeque::new(), show }
    }

    /// Takes bytes in order of arrival; standard output and error are one stream, as on a terminal.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                _ => self.open.push(*byte),
            }
            if self.open.len() >= LINE_LIMIT {
                self.end_line();
            }
        }
    }

    /// The last lines.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.end_line();
        self.last.into()
    }

    fn end_line(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let text = without_sequences(&String::from_utf8_lossy(&self.open));
        self.open.clear();
        (self.show)(&text);
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_cannot_steer_a_terminal() {
        let mut shown = Vec::new();
        let mut show = |line: &str| shown.push(line.to_owned());
        let mut output = Output::new(&mut show);
        for number in 0..50 {
            output.take(format!("line {number}\r\n").as_bytes());
        }
        output.take(b"\x1b[2Jred");
        output.take(&[b'x'; 5000]);
        let last = output.finish();
        assert_eq!((last.len(), shown.len()), (40, 52));
        assert_eq!((last[0].as_str(), last[39].len()), ("line 12", 5000 + 7 - 4096));
        assert!(last[38].starts_with("redx"), "{}", last[38]);
    }
}
