//! Text of strangers on its way to a terminal.
//!
//! A terminal acts on control characters: it moves its cursor, hides what was written, sets its title, some answer as
//! if somebody had typed (compare CVE-2003-0063). And marks of direction let a line read otherwise than it is. None of
//! them comes through.

use serde_json::Value;

/// Whether a character steers: C0 and C1 controls, marks of direction, separators of lines that are not line feeds.
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// One line: what steers is written out as its code point, and a tab as a space.
pub fn cell(text: &str) -> String {
    written_out(text, Breaks::AsSpaces)
}

/// Several lines: the same, but line feeds and tabs stay.
pub fn lines(text: &str) -> String {
    written_out(text, Breaks::Stay)
}

/// What becomes of line feeds and tabs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breaks {
    AsSpaces,
    Stay,
}

fn written_out(text: &str, breaks: Breaks) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' if breaks == Breaks::Stay => out.push(letter),
            '\n' | '\t' => out.push(' '),
            letter if steers(letter) => out.push_str(&format!("⟨U+{:04X}⟩", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out
}

/// A line that a program printed, without the sequences that it would have coloured a terminal with. What is no whole
/// sequence loses its control characters and stays, so that nothing can be hidden by beginning one; tabs stay.
pub fn without_sequences(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\u{1b}' => rest = &rest[length_of_sequence(rest)..],
            // CSI in one character.
            '\u{9b}' => rest = &rest[length_of_parameters(rest)..],
            '\t' => out.push('\t'),
            letter if steers(letter) => {}
            letter => out.push(letter),
        }
    }
    out
}

/// The bytes of a sequence after its escape character (ECMA-48, 5.3 to 5.6); 0 when it is no whole one.
fn length_of_sequence(rest: &str) -> usize {
    match rest.chars().next() {
        Some('[') => match length_of_parameters(&rest[1..]) {
            0 => 0,
            length => length + 1,
        },
        // Strings, such as a window's title, end with BEL or `ESC \`.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let bell = rest.find('\u{7}').map(|at| at + 1);
            let end = rest.find("\u{1b}\\").map(|at| at + 2);
            bell.into_iter().chain(end).min().unwrap_or(0)
        }
        _ => {
            let between = rest.bytes().take_while(|byte| (0x20..=0x2f).contains(byte)).count();
            let ends = rest.as_bytes().get(between).is_some_and(|byte| (0x30..=0x7e).contains(byte));
            if ends { between + 1 } else { 0 }
        }
    }
}

/// The bytes of parameters and the letter that ends them; 0 when none does.
fn length_of_parameters(rest: &str) -> usize {
    let parameters = rest.bytes().take_while(|byte| (0x20..=0x3f).contains(byte)).count();
    let ends = rest.as_bytes().get(parameters).is_some_and(|byte| (0x40..=0x7e).contains(byte));
    if ends { parameters + 1 } else { 0 }
}

/// JSON whose strings say the same, and of which no byte steers a terminal: JSON itself writes out C0 alone.
pub fn json(value: &Value) -> String {
    let mut out = String::new();
    for letter in value.to_string().chars() {
        match letter {
            letter if steers(letter) => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_steers_is_written_out_where_a_name_is_shown() {
        assert_eq!(cell("a\u{1b}[2J\u{9b}b\tc\nd\u{202e}e"), "a⟨U+001B⟩[2J⟨U+009B⟩b c d⟨U+202E⟩e");
        assert_eq!(lines("a\n\tb\r\u{7f}"), "a\n\tb⟨U+000D⟩⟨U+007F⟩");
        assert_eq!(cell("naïve 漢字 ⚠️ →"), "naïve 漢字 ⚠️ →");
    }

    #[test]
    fn sequences_go_and_nothing_hides_behind_half_a_one() {
        for (printed, shown) in [
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;https://a.example\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}]0;never ended", "]0;never ended"),
            ("\u{1b}[12", "[12"),
            ("\u{1b}[1\u{1b}[2Jx", "[1x"),
            ("\u{9b}31mred", "red"),
            ("\u{1b}(Bplain\u{1b}cx", "plainx"),
            ("\u{1b}é", "é"),
            ("\u{1b}", ""),
            ("a\u{7}\u{8}\u{0}b\u{85}\tc", "ab\tc"),
            ("a\u{202e}b\u{2066}c", "abc"),
            ("\u{1b}P\u{1b}[31mx\u{1b}\\y", "y"),
        ] {
            assert_eq!(without_sequences(printed), shown, "{printed:?}");
        }
    }

    #[test]
    fn json_says_the_same_without_a_control_character() {
        let value = serde_json::json!({ "text": "a\u{1b}\u{7f}\u{9b}\u{202e}\n\"é" });
        let line = json(&value);
        assert!(!line.chars().any(steers), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_steers_comes_through(text in "\\PC*|[\\x00-\\x7f\u{80}-\u{9f}\u{202e}]{0,64}") {
            assert!(!cell(&text).chars().any(steers));
            assert!(!without_sequences(&text).chars().any(|letter| steers(letter) && letter != '\t'));
        }
    }
}
