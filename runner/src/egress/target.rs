//! The request target, read so strictly that no server behind the proxy can read it as something else.

use super::head::Refusal;

/// The longest target that is looked at, in bytes.
const MAX_TARGET: usize = 2048;

/// A target in origin form, split; every part is plain text that needs no decoding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) segments: Vec<&'a str>,
    pub(super) query: Vec<(&'a str, &'a str)>,
}

impl<'a> Target<'a> {
    /// Splits a target. Percent-encoding is refused in paths altogether: no listed path needs it, and it is how one
    /// path is made to look like another.
    pub(super) fn parse(text: &'a str) -> Result<Target<'a>, Refusal> {
        if text.len() > MAX_TARGET {
            return Err(Refusal::TargetTooLong);
        }
        if !text.starts_with('/') {
            return Err(Refusal::NotOriginForm);
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        let segments: Vec<&str> = path[1..].split('/').collect();
        segments.iter().try_for_each(|segment| check_segment(segment))?;
        Ok(Target { segments, query: query.map_or_else(|| Ok(Vec::new()), parse_query)? })
    }
}

fn check_segment(segment: &str) -> Result<(), Refusal> {
    if segment.is_empty() {
        return Err(Refusal::EmptySegment);
    }
    if matches!(segment, "." | "..") {
        return Err(Refusal::DotSegment);
    }
    if segment.contains('%') {
        let lower = segment.to_ascii_lowercase();
        return Err(if lower.contains("%2f") || lower.contains("%5c") {
            Refusal::EncodedSlash
        } else if lower.contains("%2e") {
            Refusal::DotSegment
        } else {
            Refusal::EncodedPath
        });
    }
    if segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
        Ok(())
    } else {
        Err(Refusal::PathCharacter)
    }
}

fn parse_query(query: &str) -> Result<Vec<(&str, &str)>, Refusal> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
            return Err(Refusal::QueryEncoding);
        }
        check_value(value.as_bytes())?;
        if pairs.iter().any(|(seen, _)| *seen == key) {
            return Err(Refusal::QueryKeyTwice(key.to_owned()));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// Values may be percent-encoded, but only where that is needed and in the one normal spelling (upper-case hex).
fn check_value(value: &[u8]) -> Result<(), Refusal> {
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => {
                let decoded = after.get(..2).and_then(decode_upper_hex).ok_or(Refusal::QueryEncoding)?;
                if decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) || decoded.is_ascii_control()
                {
                    return Err(Refusal::QueryEncoding);
                }
                &after[2..]
            }
            b'-' | b'.' | b'_' | b'~' | b'+' | b',' | b':' | b'@' => after,
            _ if byte.is_ascii_alphanumeric() => after,
            _ => return Err(Refusal::QueryEncoding),
        };
    }
    Ok(())
}

fn decode_upper_hex(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ordinary_targets_are_split() {
        let target = Target::parse("/result?task_id=7&page=2").unwrap();
        assert_eq!(target.segments, ["result"]);
        assert_eq!(target.query, [("task_id", "7"), ("page", "2")]);
    }

    #[test]
    fn spellings_that_another_server_could_read_differently_are_refused() {
        for (text, why) in [
            ("http://elsewhere/task", Refusal::NotOriginForm),
            ("*", Refusal::NotOriginForm),
            ("/task/../user", Refusal::DotSegment),
            ("/task/%2e%2E/user", Refusal::DotSegment),
            ("/task/.", Refusal::DotSegment),
            ("//task", Refusal::EmptySegment),
            ("/task/", Refusal::EmptySegment),
            ("/task%2F1", Refusal::EncodedSlash),
            ("/task%5c1", Refusal::EncodedSlash),
            ("/t%61sk", Refusal::EncodedPath),
            ("/task;a=b", Refusal::PathCharacter),
            ("/task\\1", Refusal::PathCharacter),
            ("/task#x", Refusal::PathCharacter),
            ("/t\u{e9}", Refusal::PathCharacter),
            ("/run?p%61ge=1", Refusal::QueryEncoding),
            ("/run?page=%31", Refusal::QueryEncoding),
            ("/run?page=%2f", Refusal::QueryEncoding),
            ("/run?page=%0A", Refusal::QueryEncoding),
            ("/run?page=%2", Refusal::QueryEncoding),
            ("/run?page=1?x", Refusal::QueryEncoding),
            ("/run?page=1&page=2", Refusal::QueryKeyTwice("page".into())),
        ] {
            assert_eq!(Target::parse(text), Err(why), "{text}");
        }
        assert_eq!(Target::parse(&format!("/{}", "a".repeat(3000))), Err(Refusal::TargetTooLong));
    }
}
