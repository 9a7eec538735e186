//! Recognises the indexes of package registries by the shapes of their URLs. They say which packages there are, and change with
//! each that is published; what a build takes from them is a response of its own.

use url::Url;

/// Whether a URL is that of an index.
pub(crate) fn is_index(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let Some(segments) = url.path_segments() else { return false };
    let path: Vec<&str> = segments.filter(|segment| !segment.is_empty()).collect();
    let shapes = [python, debian, go, maven, conda, cargo, npm];
    shapes.iter().any(|shape| shape(url.path(), &path))
}

/// `…/simple/NAME/` (PEP 503 and 691), `…/pypi/NAME/json`
fn python(text: &str, path: &[&str]) -> bool {
    match path {
        [.., "simple"] | [.., "pypi", _, "json"] => true,
        [.., "simple", name] => text.ends_with('/') || !name.contains('.'),
        _ => false,
    }
}

/// `…/dists/SUITE/InRelease` and the lists that it names.
fn debian(_: &str, path: &[&str]) -> bool {
    let names =
        ["InRelease", "Release", "Release.gpg", "Packages", "Sources", "Contents", "Translation", "by-hash"];
    let Some(dists) = path.iter().position(|segment| *segment == "dists") else { return false };
    path[dists..].iter().any(|segment| names.iter().any(|name| segment.starts_with(name)))
}

/// `…/MODULE/@v/list`, `…/MODULE/@latest`, and the database of checksums.
fn go(_: &str, path: &[&str]) -> bool {
    matches!(path, [_, .., "@v", "list"] | [_, .., "@latest"])
        || path.contains(&"lookup")
        || path.contains(&"tile")
}

/// `…/maven-metadata.xml` and its checksums.
fn maven(_: &str, path: &[&str]) -> bool {
    path.last().is_some_and(|file| file.starts_with("maven-metadata.xml"))
}

/// `…/SUBDIR/repodata.json`, also compressed.
fn conda(_: &str, path: &[&str]) -> bool {
    path.last().is_some_and(|file| file.starts_with("repodata") || file.starts_with("current_repodata"))
}

/// `…/config.json` and `…/se/rd/serde` of a sparse index.
fn cargo(_: &str, path: &[&str]) -> bool {
    match path {
        [.., "1" | "2", name] => (1..=2).contains(&name.len()),
        [.., "3", first, name] => name.len() == 3 && name.starts_with(*first),
        [.., first, second, name] => {
            name.len() > 3
                && first.len() == 2
                && second.len() == 2
                && name.get(..2) == Some(*first)
                && name.get(2..4).is_some_and(|found| found == *second)
        }
        _ => false,
    }
}

/// `…/NAME` and `…/@scope%2fNAME` of an npm registry: one segment below the root.
fn npm(_: &str, path: &[&str]) -> bool {
    match path {
        [name] => !name.contains('.') || name.starts_with('@'),
        [scope, name] => scope.starts_with('@') && !name.contains('.'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_told_from_what_they_list() {
        for index in [
            "https://a.example/simple/pandas/",
            "https://a.example/pypi/pandas/json",
            "http://a.example/debian/dists/bookworm/InRelease",
            "http://a.example/debian/dists/bookworm/main/binary-amd64/Packages.xz",
            "http://a.example/debian/dists/bookworm/main/binary-amd64/by-hash/SHA256/ab",
            "https://a.example/golang.org/x/mod/@v/list",
            "https://a.example/org/x/maven-metadata.xml",
            "https://a.example/conda-forge/linux-64/repodata.json.zst",
            "https://a.example/se/rd/serde",
            "https://a.example/left-pad",
            "https://a.example/@types%2fnode",
        ] {
            assert!(is_index(index), "{index}");
        }
        for other in [
            "https://a.example/packages/ab/pandas-2.2.3-cp311-cp311-manylinux_2_17_x86_64.whl",
            "http://a.example/debian/pool/main/c/curl/curl_7.88.1-10_amd64.deb",
            "https://a.example/golang.org/x/mod/@v/v0.1.0.zip",
            "https://a.example/serde/serde-1.0.0.crate",
            "https://a.example/left-pad/-/left-pad-1.3.0.tgz",
            "https://a.example/install.sh",
            "https://a.example/tools/release-1.2.tar.gz",
            "no url",
        ] {
            assert!(!is_index(other), "{other}");
        }
    }
}
