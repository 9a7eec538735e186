//! What in a file can deceive a reader, by line: characters that are hidden or change how others are drawn, names in letters of
//! several scripts, and content that nobody can read.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{contents, visible};

/// Something that a reviewer must not overlook, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The file's path, made visible.
    pub(crate) path: String,
    /// The lines that have it, from 1; none where it is the whole file.
    pub(crate) lines: Lines,
    /// What kind of thing it is.
    pub(crate) kind: FindingKind,
    /// What exactly: code points, names, or what the file seems to be.
    pub(crate) what: String,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FindingKind {
    /// Changes the direction in which text is drawn (CVE-2021-42574).
    #[error("BIDIRECTIONAL CONTROL")]
    Bidirectional,
    /// Drawn as nothing, or as a space.
    #[error("INVISIBLE CHARACTER")]
    Invisible,
    /// Acted on by terminals.
    #[error("control character")]
    Control,
    /// One name with letters of several scripts that look alike (CVE-2021-42694).
    #[error("MIXED SCRIPTS in one name")]
    MixedScripts,
    /// No text.
    #[error("BINARY")]
    Binary,
}

impl FindingKind {
    /// Whether it is a character that is not seen where it stands.
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Invisible | Self::Control)
    }
}

/// Lines in order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    fn add(&mut self, line: usize) {
        if self.0.last() != Some(&line) {
            self.0.push(line);
        }
    }

    /// `3,7-9`.
    fn short(&self) -> String {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for line in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *line => *last = *line,
                _ => ranges.push((*line, *line)),
            }
        }
        let range = |(first, last): &(usize, usize)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        ranges.iter().map(range).collect::<Vec<_>>().join(",")
    }
}

impl Serialize for Lines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl Finding {
    /// A line of text about it.
    pub(crate) fn line(&self) -> String {
        let at = self.lines.short();
        let at = if at.is_empty() { String::new() } else { format!(":{at}") };
        format!("! {}{at}: {}: {}", self.path, self.kind, self.what)
    }
}

/// Everything of a file that can deceive, with all its lines.
pub(crate) fn of(path: &str, content: &[u8]) -> Vec<Finding> {
    let finding = |kind, what: String, lines| Finding { path: path.to_owned(), lines, kind, what };
    let Some(text) = contents::as_text(content) else {
        return vec![finding(FindingKind::Binary, kind_of(content).to_owned(), Lines::default())];
    };
    if text.bytes().all(|byte| matches!(byte, b'\n' | b'\t' | b' '..=b'~')) {
        return Vec::new();
    }
    let mut found: BTreeMap<(FindingKind, String), Lines> = BTreeMap::new();
    for (at, line) in text.split('\n').enumerate() {
        let hidden = line.chars().filter(|c| *c != '\t' && visible::is_deceptive(*c));
        let hidden = hidden.map(|c| (kind_of_character(c), format!("U+{:04X}", u32::from(c))));
        let mixed = names(line).filter(|name| is_mixed(name));
        let mixed = mixed.map(|name| (FindingKind::MixedScripts, spelled(name)));
        for key in hidden.chain(mixed) {
            found.entry(key).or_default().add(at + 1);
        }
    }
    found.into_iter().map(|((kind, what), lines)| finding(kind, what, lines)).collect()
}

fn kind_of_character(c: char) -> FindingKind {
    match u32::from(c) {
        0x061C | 0x200E..=0x200F | 0x202A..=0x202E | 0x2066..=0x2069 => FindingKind::Bidirectional,
        _ if c.is_control() => FindingKind::Control,
        _ => FindingKind::Invisible,
    }
}

/// The names of a line, as programming languages cut them; those that are all ASCII hide nothing.
fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_ascii())
}

/// Scripts whose letters look like others'. Those of all further scripts are told from these at a glance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Cherokee,
    /// Latin letters and digits in other forms: full width, mathematical.
    Styled,
}

fn script(c: char) -> Option<Script> {
    Some(match u32::from(c) {
        0x41..=0x5A | 0x61..=0x7A | 0xC0..=0xD6 | 0xD8..=0xF6 | 0xF8..=0x2AF | 0x1E00..=0x1EFF => {
            Script::Latin
        }
        0x370..=0x3FF | 0x1F00..=0x1FFF => Script::Greek,
        0x400..=0x52F | 0x1C80..=0x1C8F | 0x2DE0..=0x2DFF | 0xA640..=0xA69F => Script::Cyrillic,
        0x530..=0x58F => Script::Armenian,
        0x13A0..=0x13FF | 0xAB70..=0xABBF => Script::Cherokee,
        0xFF10..=0xFF5A | 0x1D400..=0x1D7FF => Script::Styled,
        _ => return None,
    })
}

fn is_mixed(name: &str) -> bool {
    let mut scripts = name.chars().filter_map(script);
    let first = scripts.next();
    first == Some(Script::Styled) || scripts.any(|other| Some(other) != first)
}

/// The name with the code points of what is not ASCII in it.
fn spelled(name: &str) -> String {
    let points: Vec<String> =
        name.chars().filter(|c| !c.is_ascii()).map(|c| format!("U+{:04X}", u32::from(c))).collect();
    format!("{} ({})", visible::line(name), points.join(" "))
}

/// What a binary file seems to be, by its first bytes.
fn kind_of(content: &[u8]) -> &'static str {
    const PICKLE: &str = "Python pickle, which runs code when it is read";
    const KINDS: &[(&[u8], &str)] = &[
        (b"\x7fELF", "program or library (ELF)"),
        (b"MZ", "program or library (Windows)"),
        (b"\xcf\xfa\xed\xfe", "program or library (macOS)"),
        (b"\xca\xfe\xba\xbe", "program (Java class or macOS)"),
        (b"\0asm", "program (WebAssembly)"),
        (b"!<arch>\n", "library or package (ar)"),
        (b"PK\x03\x04", "archive (zip, wheel, jar)"),
        (b"\x1f\x8b", "compressed data (gzip)"),
        (b"\xfd7zXZ\0", "compressed data (xz)"),
        (b"\x28\xb5\x2f\xfd", "compressed data (zstd)"),
        (b"BZh", "compressed data (bzip2)"),
        (b"SQLite format 3\0", "database (SQLite)"),
        (b"\x89HDF\r\n\x1a\n", "data (HDF5)"),
        (b"\x89PNG\r\n\x1a\n", "picture (PNG)"),
        (b"\xff\xd8\xff", "picture (JPEG)"),
        (b"%PDF-", "document (PDF)"),
        (b"\x80\x02", PICKLE),
        (b"\x80\x03", PICKLE),
        (b"\x80\x04", PICKLE),
        (b"\x80\x05", PICKLE),
    ];
    if content.get(2..4) == Some(b"\r\n".as_slice()) {
        return "compiled Python";
    }
    let known = KINDS.iter().find(|(magic, _)| content.starts_with(magic));
    known.map_or("content of an unknown kind", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(content: &str) -> Vec<String> {
        of("a.py", content.as_bytes()).iter().map(Finding::line).collect()
    }

    #[test]
    fn what_deceives_is_found_with_every_line_of_it() {
        assert_eq!(lines("plain\n\ttext ~\n"), [""; 0]);
        assert_eq!(lines("na\u{ef}ve \u{6f22}\u{5b57} \u{2192} \u{3b1}\u{3b2} \u{434}\u{430}\n"), [""; 0]);
        assert_eq!(
            lines("a\u{202E}b\nc\nd\u{202E}\u{202E}\ne\u{202E}\nf\u{200B}\n\u{1b}[2J\r\n"),
            [
                "! a.py:1,3-4: BIDIRECTIONAL CONTROL: U+202E",
                "! a.py:5: INVISIBLE CHARACTER: U+200B",
                "! a.py:6: control character: U+000D",
                "! a.py:6: control character: U+001B",
            ]
        );
    }

    #[test]
    fn names_of_several_scripts_are_found() {
        assert_eq!(
            lines("if is_\u{430}dmin(user):\n    \u{440}aypal = 1\n"),
            [
                "! a.py:1: MIXED SCRIPTS in one name: is_\u{430}dmin (U+0430)",
                "! a.py:2: MIXED SCRIPTS in one name: \u{440}aypal (U+0440)",
            ]
        );
        for one in ["\u{ff45}val(x)", "x\u{3bf}", "\u{13a0}bc", "\u{1d41e}val"] {
            assert!(lines(one)[0].contains("MIXED SCRIPTS"), "{one}");
        }
    }

    #[test]
    fn binaries_are_named_by_their_kind() {
        let kind = |content: &[u8]| of("x", content)[0].line();
        assert_eq!(kind(b"\x7fELF\x02\0"), "! x: BINARY: program or library (ELF)");
        assert_eq!(kind(b"PK\x03\x04\0"), "! x: BINARY: archive (zip, wheel, jar)");
        assert_eq!(kind(b"\x80\x04\x95\0"), "! x: BINARY: Python pickle, which runs code when it is read");
        assert_eq!(kind(b"\x6f\x0d\x0d\x0a\0\0"), "! x: BINARY: compiled Python");
        assert_eq!(kind(b"\0\0"), "! x: BINARY: content of an unknown kind");
    }
}
