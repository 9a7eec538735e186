//! Makes untrusted text safe to display.
//!
//! Characters that a terminal or an editor would interpret, hide, or draw as others are replaced by their code
//! points, so that a reviewer reads the same as the machine (compare CVE-2021-42574, "Trojan Source").

/// The content of a file: everything but line feeds and tabs is made visible.
pub(crate) fn text(text: &str) -> String {
    escape(text, |c| c == '\n' || c == '\t')
}

/// A name or another value on a single line.
pub(crate) fn line(text: &str) -> String {
    escape(text, |_| false)
}

/// A name that may not be UTF-8.
pub(crate) fn bytes(name: &[u8]) -> String {
    let mut out = String::new();
    for chunk in name.utf8_chunks() {
        out.push_str(&line(chunk.valid()));
        for byte in chunk.invalid() {
            out.push_str(&format!("⟨{byte:02X}⟩"));
        }
    }
    out
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if keep(c) || !is_deceptive(c) {
            out.push(c);
        } else {
            out.push_str(&format!("⟨U+{:04X}⟩", u32::from(c)));
        }
    }
    out
}

/// Characters that change how others are displayed, or that are displayed as nothing or as a space.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00A0 | 0x00AD | 0x034F | 0x061C | 0x070F | 0x115F..=0x1160 | 0x1680 | 0x17B4..=0x17B5
            | 0x180B..=0x180F
            // Spaces of other widths, zero-width characters, directional marks, line and paragraph separators.
            | 0x2000..=0x200F | 0x2028..=0x202F | 0x205F..=0x206F
            | 0x2800 | 0x3000 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFC
            | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
            // Private-use characters depend on the font; tags are invisible.
            | 0xE000..=0xF8FF | 0xE0000..=0xE0FFF | 0xF0000..=0x10FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_is_written_out() {
        assert_eq!(text("a\u{202E}b\u{2066}c"), "a⟨U+202E⟩b⟨U+2066⟩c");
        assert_eq!(text("\u{1b}[2J\r\nx\ty\u{7f}\u{9b}"), "⟨U+001B⟩[2J⟨U+000D⟩\nx\ty⟨U+007F⟩⟨U+009B⟩");
        assert_eq!(text("a\u{200B}\u{FEFF}\u{AD}\u{E0041}"), "a⟨U+200B⟩⟨U+FEFF⟩⟨U+00AD⟩⟨U+E0041⟩");
        assert_eq!(text("naïve 漢字 →"), "naïve 漢字 →");
        assert_eq!(line("a\nb\t"), "a⟨U+000A⟩b⟨U+0009⟩");
        assert_eq!(bytes(b"a\xff\x1bz"), "a⟨FF⟩⟨U+001B⟩z");
    }
}
