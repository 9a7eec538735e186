//! The host names that the recorder serves.

use std::fmt;

/// The most characters of a name (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// The most characters of a label (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// A lower-case host name that is neither an IP address in any spelling nor a name of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostName(String);

impl HostName {
    /// Parses a host name from a Host header, SNI or a DNS query.
    ///
    /// One trailing dot is accepted and removed. Underscores are accepted, since real names have them.
    pub(crate) fn parse(text: &str) -> Result<HostName, BadName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(BadName::Malformed);
        }
        if is_address(name) {
            return Err(BadName::Address);
        }
        let name = name.to_ascii_lowercase();
        if !name.split('.').all(is_label) {
            return Err(BadName::Malformed);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Err(BadName::Local);
        }
        Ok(HostName(name))
    }

    /// The name in lower case without a trailing dot.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a name that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadName {
    /// An IP address in one of its spellings, from which no name follows.
    #[error("is an IP address, not a name")]
    Address,
    /// A name of this machine.
    #[error("means this machine itself")]
    Local,
    /// Not a host name.
    #[error("is not a host name")]
    Malformed,
}

/// True for every spelling that a URL parser would read as an address: WHATWG reads any name whose last label is a
/// number (decimal, octal or hexadecimal) as IPv4.
fn is_address(name: &str) -> bool {
    if name.contains(':') || name.starts_with('[') {
        return true;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match digits {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_every_spelling_are_not_names() {
        for text in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "169.254.169.254",
            "[::1]",
            "::1",
            "example.1",
            "1.",
            "a.0x",
        ] {
            assert_eq!(HostName::parse(text), Err(BadName::Address), "{text}");
        }
    }

    #[test]
    fn names_are_normalised_and_bounded() {
        assert_eq!(HostName::parse("EXAMPLE.org.").unwrap().as_str(), "example.org");
        assert!(HostName::parse("_x.1a.example").is_ok());
        for text in ["", ".", "..", "a..b", "a b", "a/b", "é.example", "a\0b", "user@host"] {
            assert_eq!(HostName::parse(text), Err(BadName::Malformed), "{text}");
        }
        assert_eq!(HostName::parse(&"a".repeat(64)), Err(BadName::Malformed));
        assert_eq!(HostName::parse(&"a.".repeat(130)), Err(BadName::Malformed));
        assert_eq!(HostName::parse("LocalHost"), Err(BadName::Local));
        assert_eq!(HostName::parse("x.localhost."), Err(BadName::Local));
    }
}
