//! Names of packages in the one form in which their type compares them.

use std::borrow::Cow;

/// The kinds whose names are compared in small letters, and so are written in them.
pub(super) const SMALL: [&str; 4] = ["conda", "golang", "npm", "pypi"];

/// A name, or a namespace, as its type compares it.
pub(super) fn name(kind: &str, name: &str) -> String {
    match kind {
        "pypi" => python(name),
        _ if SMALL.contains(&kind) => name.to_ascii_lowercase(),
        _ => name.to_owned(),
    }
}

/// A purl with its name as its type compares it. Its writers agree on small letters, but not on what stands between the
/// words of PyPI's names: the purl specification leaves `zope.interface`, and PEP 503 makes `zope-interface` of it.
pub(crate) fn normal(purl: &str) -> Cow<'_, str> {
    let Some(rest) = purl.strip_prefix("pkg:pypi/") else { return Cow::Borrowed(purl) };
    let end = rest.find(['@', '?', '#']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    match name.contains(['_', '.']) || name.contains("--") {
        true => Cow::Owned(format!("pkg:pypi/{}{rest}", separated(name))),
        false => Cow::Borrowed(purl),
    }
}

/// A name as PyPI compares it (PEP 503).
fn python(name: &str) -> String {
    separated(&name.to_ascii_lowercase())
}

/// One `-` for every run of `-`, `_` and `.`.
fn separated(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if matches!(c, '_' | '.') { '-' } else { c };
        if c != '-' || !out.ends_with('-') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_python_package_is_changed() {
        for (purl, same) in [
            ("pkg:pypi/zope.interface@6.0", "pkg:pypi/zope-interface@6.0"),
            ("pkg:pypi/a._-b", "pkg:pypi/a-b"),
            ("pkg:pypi/a_b?file_name=a_b.whl", "pkg:pypi/a-b?file_name=a_b.whl"),
            ("pkg:pypi/a-b@1.0_x", "pkg:pypi/a-b@1.0_x"),
            ("pkg:npm/lodash.merge@4", "pkg:npm/lodash.merge@4"),
            ("pkg:pypi/*.x@*", "pkg:pypi/*-x@*"),
        ] {
            assert_eq!(normal(purl), same);
        }
    }
}
