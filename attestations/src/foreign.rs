//! Text that strangers chose, as it may be repeated to people: in errors, reasons and denials.
//!
//! Anyone who may attach a file to an image chooses payload types, predicate types and names. On a terminal a control
//! character moves the cursor, a bidi control lets a line read otherwise than it is, and a megabyte hides everything
//! else. So such text becomes a [`Foreign`] where it enters, and nothing else of it is repeated.

use std::fmt;

/// Text of strangers: one printable line of at most [`Foreign::LIMIT`] characters.
///
/// Control characters, bidi controls, invisible characters and combining marks are escaped as in Rust (`\n`, `\u{1b}`);
/// everything else stays as it is, backslashes too, so that a text which was escaped once is not escaped again.
/// Longer text is cut and says so. It is for people only: nothing may be decided by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Foreign(String);

impl Foreign {
    /// The most characters that are kept, escapes included. The remark that text was cut comes on top.
    pub const LIMIT: usize = 240;

    /// `text` as it may be repeated.
    pub fn new(text: &str) -> Self {
        let (mut kept, mut length) = (String::new(), 0);
        for letter in text.chars() {
            let before = kept.len();
            let added = push(&mut kept, letter);
            length += added;
            if length > Self::LIMIT {
                kept.truncate(before);
                kept.push_str(&format!("… (cut, {} bytes)", text.len()));
                break;
            }
        }
        Self(kept)
    }

    /// What an error says, as it may be repeated: parsers quote what they were given.
    pub fn error(error: &dyn fmt::Display) -> Self {
        Self::new(&error.to_string())
    }

    /// The escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Adds a character or its escape, and says how many characters that were.
fn push(out: &mut String, letter: char) -> usize {
    if matches!(letter, '"' | '\'' | '\\') {
        out.push(letter);
        return 1;
    }
    if is_blank(letter) {
        let escape = letter.escape_unicode();
        let length = escape.len();
        out.extend(escape);
        return length;
    }
    // Everything that Unicode does not call printable, which controls and format characters are not.
    let escape = letter.escape_debug();
    let length = escape.len();
    out.extend(escape);
    length
}

/// Letters and symbols that show nothing: Hangul fillers and the blank Braille pattern. Unicode calls them printable.
fn is_blank(letter: char) -> bool {
    matches!(letter, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

impl From<&str> for Foreign {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Foreign {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl serde::Serialize for Foreign {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_hides_is_escaped() {
        for (text, shown) in [
            ("a\u{1b}[2J\r\nb\u{9b}c", r"a\u{1b}[2J\r\nb\u{9b}c"),
            ("\u{202e}txt.exe\u{2066}", r"\u{202e}txt.exe\u{2066}"),
            ("zero\u{200b}width\u{feff}\u{ad}", r"zero\u{200b}width\u{feff}\u{ad}"),
            ("fill\u{3164}\u{115f}\u{2800}", r"fill\u{3164}\u{115f}\u{2800}"),
            ("tag\u{e0041}\u{a0}\u{2028}", r"tag\u{e0041}\u{a0}\u{2028}"),
            ("naïve 漢字 → \"it's\" \\", "naïve 漢字 → \"it's\" \\"),
            ("", ""),
        ] {
            assert_eq!(Foreign::new(text).as_str(), shown);
        }
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let short = "x".repeat(Foreign::LIMIT);
        assert_eq!(Foreign::new(&short).as_str(), short);
        let long = Foreign::new(&"x".repeat(1 << 20));
        assert_eq!(long.as_str(), format!("{short}… (cut, 1048576 bytes)"));
        // Escapes count: a text of control characters does not grow beyond the limit.
        let escapes = Foreign::new(&"\u{1b}".repeat(1 << 20));
        assert_eq!(escapes.as_str(), format!("{}… (cut, 1048576 bytes)", r"\u{1b}".repeat(40)));
    }

    proptest::proptest! {
        #[test]
        fn it_is_always_one_short_printable_line(text in "\\PC*|[\\x00-\\x7f\u{80}-\u{9f}\u{200b}-\u{202e}]{0,400}") {
            let shown = Foreign::new(&text);
            assert!(shown.as_str().chars().count() <= Foreign::LIMIT + 40);
            // Between the marks of direction are hyphens, dashes and dots, which everybody sees.
            let hides = |it| matches!(it, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
            assert!(!shown.as_str().chars().any(|it| it.is_control() || hides(it)));
            if !shown.as_str().contains('…') {
                assert_eq!(Foreign::new(shown.as_str()), shown, "escaped twice");
            }
        }
    }
}
