//! The grammar of image references (distribution's `reference` package), and Docker's short names.
//!
//! A name that says its registry is read here, in a microsecond. All others are left to `oci-spec`, which knows what
//! Docker makes of a short name, and whose one regular expression takes tens of milliseconds to compile: longer than all
//! the rest of a decision. What is read here, `oci-spec` reads alike; a test holds the two against each other.

use oci_spec::distribution::{ParseError, Reference as Known};

use crate::foreign::Foreign;

use super::{MAX_LENGTH, ReferenceError, Repository};

/// The most characters of a name, with its registry.
const MAX_NAME: usize = 255;
/// The most characters of a tag.
const MAX_TAG: usize = 128;

/// A reference in its parts. The digest is not judged yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) repository: Repository,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<String>,
}

impl Parts {
    pub(super) fn of(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_LENGTH {
            return Err(ReferenceError::TooLong { length: text.len() });
        }
        match Self::spelled_out(text) {
            Some(parts) => Ok(parts),
            None => Self::known(text),
        }
    }

    /// The parts of a text that names its registry; none when it does not, or has no such form.
    fn spelled_out(text: &str) -> Option<Self> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        let (registry, rest) = named.split_once('/')?;
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let fits = registry.len() + 1 + path.len() <= MAX_NAME;
        let fine = fits
            && is_registry(registry)
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_sha256);
        let repository = Repository { registry: registry.to_owned(), path: path.to_owned() };
        fine.then(|| Self { repository, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }

    fn known(text: &str) -> Result<Self, ReferenceError> {
        let wrong =
            |cause: &str| ReferenceError::Grammar { text: Foreign::new(text), cause: Foreign::new(cause) };
        if !text.is_ascii() {
            return Err(wrong("it has characters beyond ASCII"));
        }
        let parsed: Known = text.parse().map_err(|cause: ParseError| wrong(&cause.to_string()))?;
        // The parser invents `latest` where there is no tag.
        let before_digest = text.split('@').next().unwrap_or(text);
        let tag = parsed.tag().filter(|tag| before_digest.ends_with(&format!(":{tag}")));
        let repository =
            Repository { registry: parsed.registry().to_owned(), path: parsed.repository().to_owned() };
        Ok(Self { repository, tag: tag.map(str::to_owned), digest: parsed.digest().map(str::to_owned) })
    }
}

/// A host that cannot be the first part of a short name. Docker's own hosts have aliases, which are not known here.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let is_host = port.is_some() || host.contains('.') || host == "localhost";
    is_host
        && !host.contains("docker")
        && host.split('.').all(label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Runs of lowercase letters and digits, between them one dot, one or two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(is_word) || !bytes.last().is_some_and(is_word) {
        return false;
    }
    bytes.split(is_word).all(|between| match between {
        b"" | b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|byte| *byte == b'-'),
    })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_sha256(text: &str) -> bool {
    text.parse::<crate::digest::Digest>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn what_is_read_here_is_read_alike_by_oci_spec(
            registry in "[a-z0-9A-Z.:-]{0,12}|localhost(:[0-9]{0,5})?|[a-z]{1,4}\\.[a-z]{1,4}(:[0-9]{1,4})?",
            path in "[a-z0-9._/-]{0,12}|[a-z]{1,4}(/[a-z0-9]{1,3}(__|[._]|-{1,3})[a-z]{1,2}){0,2}",
            tag in "(:[A-Za-z0-9_.:-]{0,6})?",
            digest in prop::sample::select(vec!["", DIGEST, "@sha256:12", "@sha512:12"]),
        ) {
            let text = format!("{registry}/{path}{tag}{digest}");
            if let Some(parts) = Parts::spelled_out(&text) {
                prop_assert_eq!(parts, Parts::known(&text).unwrap());
            }
        }
    }

    #[test]
    fn names_that_say_their_registry_need_no_regular_expression() {
        let whole = format!("registry.example:5000/a/b__c-d/e.f:1.0{DIGEST}");
        for text in ["127.0.0.1:5000/test/count:1.0", "localhost/a:1", "r.example/a", &whole] {
            let parts = Parts::spelled_out(text).unwrap();
            assert_eq!(parts, Parts::known(text).unwrap());
        }
        for text in
            ["a/b:1", "a:1", "r.example/A:1", "r.example/a:", "r.example/a_-b:1", "r.example//a", "-.x/a"]
        {
            assert_eq!(Parts::spelled_out(text), None, "{text}");
        }
    }

    #[test]
    fn letters_beyond_ascii_are_refused() {
        assert!(Parts::of("r.example/a:t\u{e4}g").is_err());
    }
}
