//! What counts as a result: JSON, and the three numbers that Python's `json` writes though JSON has no word for them.

use serde::de::IgnoredAny;

/// The numbers that Python reads and writes, and so vantage6's wrapper and clients do.
const NUMBERS: [&[u8]; 2] = [b"NaN", b"Infinity"];

/// What an algorithm that ended well gave as its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Returned {
    /// JSON, as it wrote it.
    Result(Vec<u8>),
    /// Something else.
    Unusable(Unusable),
}

/// Why what an algorithm gave is no result.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unusable {
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: &'static str,
}

impl Returned {
    /// Of the bytes that were read, the size of the file and what is allowed.
    pub(crate) fn new(bytes: Vec<u8>, size: u64, limit: u64) -> Self {
        if size > limit {
            return Self::Unusable(Unusable {
                reason: format!("its result has {size} bytes: {limit} are allowed"),
                remedy: "raise result_kib in runner.toml and in the rule's [algorithm.budget], or ask for less",
            });
        }
        match unusable(&bytes) {
            None => Self::Result(bytes),
            Some(reason) => Self::Unusable(Unusable {
                reason,
                remedy: "the algorithm must write JSON to the file that OUTPUT_FILE names; its log may say more",
            }),
        }
    }

    /// The result, if it is one.
    pub(crate) fn result(&self) -> Option<&[u8]> {
        match self {
            Self::Result(bytes) => Some(bytes),
            Self::Unusable(_) => None,
        }
    }
}

/// Why a result is none; `None` when it is one. `NaN`, `Infinity` and `-Infinity` stand where a number may: a statistic that
/// does not exist for one patient must not take all the others with it. The bytes themselves are passed on as they are.
fn unusable(result: &[u8]) -> Option<String> {
    if result.iter().all(u8::is_ascii_whitespace) {
        return Some("it wrote no result".to_owned());
    }
    let strict = serde_json::from_slice::<IgnoredAny>(result).err()?;
    // Every number becomes one of JSON with as many bytes, so that lines and columns stay right.
    let read = with_plain_numbers(result).map(|plain| serde_json::from_slice::<IgnoredAny>(&plain));
    match read {
        Some(Ok(IgnoredAny)) => None,
        Some(Err(error)) => Some(format!("its result is not JSON: {error}")),
        None => Some(format!("its result is not JSON: {strict}")),
    }
}

/// The same with `0` and blanks for each of [`NUMBERS`] outside strings; none where there is none of them.
fn with_plain_numbers(result: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let (mut at, mut place) = (0, JsonPosition::Before);
    while let Some(&byte) = result.get(at) {
        if place == JsonPosition::Before
            && let Some(number) = NUMBERS.iter().find(|number| result[at..].starts_with(number))
        {
            if plain.is_empty() {
                plain.extend_from_slice(result);
            }
            plain[at..at + number.len()].fill(b' ');
            plain[at] = b'0';
            (at, place) = (at + number.len(), JsonPosition::Within);
            continue;
        }
        place = place.after(byte, result.get(at + 1).copied());
        at += 1;
    }
    (!plain.is_empty()).then_some(plain)
}

/// Where the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JsonPosition {
    /// Where a value may begin, or its minus has been read.
    Before,
    /// In or after a value that is no string.
    Within,
    /// In a string.
    Text,
    /// In a string, behind its backslash.
    Escaped,
}

impl JsonPosition {
    fn after(self, byte: u8, next: Option<u8>) -> Self {
        match (self, byte) {
            (Self::Text, b'\\') => Self::Escaped,
            (Self::Text, b'"') => Self::Within,
            (Self::Text | Self::Escaped, _) => Self::Text,
            (_, b'"') => Self::Text,
            (_, b'[' | b',' | b':') => Self::Before,
            (Self::Before, b' ' | b'\t' | b'\n' | b'\r') => Self::Before,
            // Python knows a negative infinity, and no negative NaN.
            (Self::Before, b'-') if next == Some(b'I') => Self::Before,
            (Self::Before | Self::Within, _) => Self::Within,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_reads_and_writes_is_a_result() {
        for result in [
            "NaN",
            "Infinity",
            "-Infinity",
            r#"{"mean": 1.0, "std": NaN}"#,
            "[NaN, -Infinity,\n\tInfinity , 1e9]",
            r#"{"a": {"b": [Infinity]}, "c": "\" NaN", "NaN": null}"#,
            " 1 ",
            r#""NaN""#,
        ] {
            assert_eq!(unusable(result.as_bytes()), None, "{result}");
        }
    }

    #[test]
    fn what_python_does_not_read_is_none_and_the_place_is_named() {
        for (result, reason) in [
            ("", "it wrote no result"),
            (" \n", "it wrote no result"),
            ("average: 1", "line 1 column 1"),
            ("[NaN", "line 1 column 4"),
            ("[NaN,\n x]", "line 2 column 2"),
            ("{NaN: 1}", "line 1 column 2"),
            ("[NaN5]", "line 1 column 5"),
            ("[1NaN]", "line 1 column 3"),
            ("[-NaN]", "line 1 column 3"),
            ("[- Infinity]", "line 1 column 3"),
            ("[--Infinity]", "line 1 column 3"),
            ("[NaN NaN]", "line 1 column 6"),
            ("[nan]", "line 1 column 3"),
            ("[+Infinity]", "line 1 column 2"),
            (r#"{"a": NaN} {}"#, "line 1 column 12"),
        ] {
            let found = unusable(result.as_bytes()).unwrap_or_default();
            assert!(found.contains(reason), "{result}: {found}");
        }
    }

    #[test]
    fn a_deep_one_is_read_without_a_stack() {
        let deep = [vec![b'['; 1 << 20], b"NaN".to_vec(), vec![b']'; 1 << 20]].concat();
        assert_eq!(unusable(&deep), None);
    }
}
