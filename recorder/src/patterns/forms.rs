//! The forms of a secret to search for.

use zeroize::Zeroizing;

/// Shorter lines of a secret are not searched for, since they occur in many files.
const MIN_LINE: usize = 16;
/// The most lines of a secret that are searched for one by one.
const MAX_LINES: usize = 256;
/// The most bytes of a form, which is a prefix of the secret or of one of its lines.
const MAX_PLAIN: usize = 1024;
/// The same for base64, in bytes before encoding: short enough that the form ends before a line break.
const MAX_ENCODED: usize = 33;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Without surrounding white space, which shells and tools remove.
pub(crate) fn trimmed(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// The secret itself, its longer lines, and each of these in base64 (both alphabets, at any alignment) and
/// percent-encoded.
pub(crate) fn of(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let whole = trimmed(secret);
    let lines = whole.split(|byte| *byte == b'\n').map(trimmed);
    // The header and footer of a PEM key are not secret.
    let lines = lines.filter(|line| line.len() >= MIN_LINE && !line.starts_with(b"-----")).take(MAX_LINES);
    let mut all = Vec::new();
    for part in std::iter::once(whole).chain(lines.filter(|line| *line != whole)) {
        let part = &part[..part.len().min(MAX_PLAIN)];
        all.push(part.to_vec());
        all.extend([Case::Upper, Case::Lower].map(|case| percent(part, case)));
        let beginning = &part[..part.len().min(MAX_ENCODED)];
        for alphabet in [STANDARD, FOR_URLS] {
            all.extend((0..3).map(|before| base64(beginning, before, alphabet)));
        }
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(Zeroizing::new).collect()
}

/// The base64 digits that depend on `bytes` alone if `before` bytes (modulo 3) are encoded before them.
fn base64(bytes: &[u8], before: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bit = |at: usize| match at / 8 {
        place if place < before => 0,
        place => (bytes[place - before] >> (7 - at % 8)) & 1,
    };
    let (first, end) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
    let digit = |group: usize| (0..6).fold(0, |value, offset| value << 1 | bit(group * 6 + offset));
    (first..end).map(|group| alphabet[usize::from(digit(group))]).collect()
}

/// How hexadecimal digits are written.
#[derive(Clone, Copy)]
enum Case {
    Upper,
    Lower,
}

/// Everything but letters, digits and `-._~` percent-encoded (RFC 3986, section 2.3).
fn percent(bytes: &[u8], case: Case) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(*byte),
            byte if byte.is_ascii_alphanumeric() => out.push(*byte),
            byte => out.extend(match case {
                Case::Upper => format!("%{byte:02X}").into_bytes(),
                Case::Lower => format!("%{byte:02x}").into_bytes(),
            }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_found_whatever_is_in_front() {
        let secret = b"pa\xffss/wo+rd12";
        // Independently computed: `printf 'XXpa\377ss/wo+rd12' | base64`, and so on.
        for (before, alphabet, digits) in [
            (0, STANDARD, "cGH/c3Mvd28rcmQxM"),
            (1, STANDARD, "Bh/3NzL3dvK3JkMT"),
            (2, STANDARD, "wYf9zcy93bytyZDEy"),
            (0, FOR_URLS, "cGH_c3Mvd28rcmQxM"),
        ] {
            let found = String::from_utf8(base64(secret, before, alphabet)).unwrap();
            assert_eq!(found, digits, "{before}");
        }
        assert_eq!(base64(b"12345678", 0, STANDARD).len(), 10);
    }

    #[test]
    fn lines_are_looked_for_and_the_frames_of_keys_are_not() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAAB3NzaC1yc2EAAAADAQABAAABgQ\nshort\n-----END OPENSSH PRIVATE KEY-----\n";
        let forms = of(key.as_bytes());
        let has = |text: &str| forms.iter().any(|form| form.as_slice() == text.as_bytes());
        assert!(has(key.trim_end()) && has("AAAAB3NzaC1yc2EAAAADAQABAAABgQ"));
        assert!(!has("-----BEGIN OPENSSH PRIVATE KEY-----") && !has("short"));
        assert!(forms.iter().all(|form| form.len() >= 8));
        let forms = of(b"a b/c%d?e\n");
        for text in ["a b/c%d?e", "a%20b%2Fc%25d%3Fe", "a%20b%2fc%25d%3fe"] {
            assert!(forms.iter().any(|form| form.as_slice() == text.as_bytes()), "{text}");
        }
    }
}
