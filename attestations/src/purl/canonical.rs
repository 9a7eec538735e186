//! The one spelling of a purl that patterns are held against.
//!
//! `pkg:pypi/Requests@2`, `pkg:pypi/r%65quests@2` and `pkg:pypi//requests@2` all mean the package that a policy forbids as
//! `pkg:pypi/requests@*`. Instead of guessing what a spelling means, every one but the canonical is refused. What stands
//! between the words of a Python package's name is the one thing in which careful writers differ: it is put into one form.

use std::borrow::Cow;

use super::compared::{SMALL, normal};
use super::is_plain;

/// Whether a text may hold stars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stars {
    Allowed,
    Refused,
}

/// A canonical purl up to its qualifiers, always with the `@` before its version, which may be empty: what patterns are
/// over. The qualifiers say from where and for what machine; nothing is allowed or forbidden by them, so that none can
/// be added to slip past a pattern.
pub(crate) fn coordinates(purl: &str) -> Option<Cow<'_, str>> {
    if !purl.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let end = purl.find(['?', '#']).unwrap_or(purl.len());
    let named = purl.get(..end)?;
    check(named, Stars::Refused).ok()?;
    let named = normal(named);
    Some(match named.contains('@') {
        true => named,
        false => Cow::Owned(format!("{named}@")),
    })
}

/// A pattern over what [`coordinates`] gives, in the form in which it is compared.
///
/// # Errors
/// What is not canonical, with what to write instead.
pub(crate) fn pattern(text: &str) -> Result<Cow<'_, str>, &'static str> {
    check(text, Stars::Allowed)?;
    Ok(normal(text))
}

/// Whether `text` is a canonical purl without qualifiers, or one with stars.
///
/// # Errors
/// What is not canonical, with what to write instead.
fn check(text: &str, stars: Stars) -> Result<(), &'static str> {
    let rest = text.strip_prefix("pkg:").ok_or("it does not begin with pkg:")?;
    if rest.contains(['?', '#']) {
        return Err("it has qualifiers, by which nothing is allowed or forbidden: leave them out");
    }
    let (path, version) = match rest.split_once('@') {
        Some((path, version)) => (path, Some(version)),
        None => (rest, None),
    };
    if version.is_some_and(|version| version.contains('@')) {
        return Err("it has a second @: write one that belongs to a name as %40");
    }
    let star = |text: &str| stars == Stars::Allowed && text.contains('*');
    let (kind, names) = match path.split_once('/') {
        Some(parts) => parts,
        None if path == "**" && star(path) => (path, path),
        None => return Err("it is not pkg:TYPE/NAME@VERSION"),
    };
    if kind.is_empty() || names.split('/').any(str::is_empty) || version == Some("") {
        return Err("one of its parts is empty");
    }
    let kind_byte = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    if !kind.bytes().all(|byte| kind_byte(byte) || (byte == b'*' && stars == Stars::Allowed)) {
        return Err("its type is not in small letters and digits");
    }
    for part in names.split('/').chain(version) {
        is_encoded(part, stars)?;
    }
    if SMALL.contains(&kind) && names.bytes().any(|byte| byte.is_ascii_uppercase()) && !only_hex(names) {
        return Err("names of this type are written in small letters");
    }
    if kind.contains('*') && (names.contains(['_', '.']) || names.contains("--")) {
        return Err("its type may be pypi, where -, _ and . are one: write a pattern for each type");
    }
    Ok(())
}

/// Whether the only capitals are digits of percent-encoded bytes, and none of those bytes is a capital itself.
fn only_hex(names: &str) -> bool {
    let mut parts = names.split('%');
    let capital = |text: &str| text.bytes().any(|byte| byte.is_ascii_uppercase());
    !parts.next().is_some_and(capital) && !parts.any(|part| part.get(2..).is_some_and(capital))
}

/// Letters, digits, `.`, `-`, `_`, `~` and `:` plain, and every other byte percent-encoded with capitals.
fn is_encoded(part: &str, stars: Stars) -> Result<(), &'static str> {
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        if is_plain(byte) || (byte == b'*' && stars == Stars::Allowed) {
            continue;
        }
        if byte != b'%' {
            return Err("a character that must be percent-encoded, as %2B for +, stands plain");
        }
        let digit = |byte: Option<u8>| match byte {
            Some(byte @ b'0'..=b'9') => Some(byte - b'0'),
            Some(byte @ b'A'..=b'F') => Some(byte - b'A' + 10),
            _ => None,
        };
        let encoded = digit(bytes.next()).zip(digit(bytes.next())).map(|(high, low)| high * 16 + low);
        match encoded {
            Some(byte) if !is_plain(byte) => {}
            Some(_) => return Err("a character that must stand plain is percent-encoded"),
            None => return Err("a % is not followed by two digits of 0 to 9 and A to F"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_spelling_is_read_up_to_its_qualifiers() {
        for (purl, named) in [
            ("pkg:pypi/pandas@2.2.3?file_name=pandas-2.2.3.whl", "pkg:pypi/pandas@2.2.3"),
            ("pkg:deb/debian/libstdc%2B%2B6@1:12.2.0?arch=amd64", "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0"),
            ("pkg:npm/%40angular/core@1.0.0", "pkg:npm/%40angular/core@1.0.0"),
            ("pkg:npm/%40%2Bx/core@1.0.0", "pkg:npm/%40%2Bx/core@1.0.0"),
            (
                "pkg:golang/github.com/a/b@v1.0.0%2Bincompatible",
                "pkg:golang/github.com/a/b@v1.0.0%2Bincompatible",
            ),
            ("pkg:apk/alpine/R@4.4.0-r0", "pkg:apk/alpine/R@4.4.0-r0"),
            ("pkg:generic/model?vcs_url=git%2Bhttps:%2F%2Fa%2Fb", "pkg:generic/model@"),
            ("pkg:generic/model#sub/path@1", "pkg:generic/model@"),
            ("pkg:pypi/zope.interface@6?x=a.b", "pkg:pypi/zope-interface@6"),
            ("pkg:pypi/type_extensions", "pkg:pypi/type-extensions@"),
            ("pkg:npm/lodash.merge@4", "pkg:npm/lodash.merge@4"),
        ] {
            assert_eq!(coordinates(purl).as_deref(), Some(named));
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for purl in [
            "",
            "pkg:",
            "pkg:pypi",
            "pkg:pypi/",
            "pypi/requests@1",
            "PKG:pypi/requests@1",
            "pkg://pypi/requests@1",
            "pkg:/pypi/requests@1",
            "pkg:PyPI/requests@1",
            "pkg:pypi/Requests@1",
            "pkg:pypi/r%65quests@1",
            "pkg:pypi//requests@1",
            "pkg:pypi/requests/@1",
            "pkg:pypi/requests@",
            "pkg:pypi/requests@1@2",
            "pkg:pypi/requests%401",
            "pkg:npm/@angular/core@1",
            "pkg:npm/%40Angular/core@1",
            "pkg:npm/%4",
            "pkg:npm/%",
            "pkg:npm/%2b@1",
            "pkg:npm/%zz@1",
            "pkg:pypi/re*@1",
            "pkg:pypi/requests @1",
            "pkg:pypi/requests@1\n",
            "pkg:pypi/réquests@1",
            "pkg:pypi/requests@1?a=\u{1b}[2J",
            "pkg:deb/debian/libstdc++6@1",
            "pkg:pypi%2Frequests@1",
            "?pkg:pypi/a@1",
        ] {
            // The one that is canonical names a package whose name holds an encoded @, and is not `requests`.
            let other = purl == "pkg:pypi/requests%401";
            assert_eq!(coordinates(purl).is_none(), !other, "{purl:?}");
        }
    }
}
