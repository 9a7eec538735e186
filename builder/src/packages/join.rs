//! Joins what is in an image with what was fetched for it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Fetched, Installed, Inventory, Origin, Packages, Purl};

impl Packages {
    /// Which of the fetched packages are in the image, by their names or as the files that they came in, and which only
    /// passed by.
    pub(crate) fn joined(mut inventory: Inventory, fetched: Vec<Fetched>) -> Packages {
        let mut installed: Vec<Installed> = inventory
            .named()
            .into_iter()
            .map(|(purl, found)| Installed { purl, records: found.records, origin: found.origin, file: None })
            .collect();
        let places: BTreeMap<_, _> =
            installed.iter().enumerate().map(|(at, one)| (key(&one.purl), at)).collect();
        let purls: Vec<Purl> = installed.iter().map(|one| one.purl.clone()).collect();
        let mut passed_by = Vec::new();
        let mut more = Vec::new();
        for file in fetched {
            let place = places.get(&key(&file.purl)).copied();
            let paths = inventory.files.get(&file.digest);
            match (place, paths) {
                (Some(at), paths) => {
                    let one = &mut installed[at];
                    one.records.extend(paths.into_iter().flatten().cloned());
                    let purl = purls[at].clone().qualified_as(&file.purl);
                    let joined = Installed { purl, file: Some(file), ..one.clone() };
                    match one.file {
                        None => *one = joined,
                        // The same package in another file.
                        Some(_) => more.push(joined),
                    }
                }
                (None, Some(paths)) => more.push(Installed {
                    purl: file.purl.clone(),
                    records: paths.clone(),
                    origin: Origin::Build,
                    file: Some(file),
                }),
                (None, None) => passed_by.push(file),
            }
        }
        installed.extend(more);
        installed.sort();
        Packages { installed, passed_by, unread: inventory.unread() }
    }
}

/// What a package's record and its URL have in common.
type Key = (&'static str, String, String, String);

fn key(purl: &Purl) -> Key {
    // Mirrors do not tell which distribution it is.
    let is_of_distribution = matches!(purl.kind, "deb" | "apk" | "rpm");
    let name = match is_of_distribution {
        true => purl.name.clone(),
        false => format!("{}/{}", purl.namespace, purl.name),
    };
    let version = match purl.kind {
        // The names of Debian's files lack the epoch.
        "deb" => Cow::Borrowed(purl.version.split_once(':').map_or(&*purl.version, |(_, version)| version)),
        "pypi" => Cow::Owned(python_version(&purl.version)),
        _ => Cow::Borrowed(&*purl.version),
    };
    let other = if purl.kind == "conda" { "build" } else { "arch" };
    let other = purl.qualifier(other).unwrap_or_default().to_owned();
    (purl.kind, name, version.into_owned(), other)
}

/// A version as PEP 440 compares it, as far as the names of files differ from metadata: separators and small letters.
fn python_version(version: &str) -> String {
    let version = version.to_ascii_lowercase();
    let version = version.trim_start_matches('v').replace(['-', '_'], ".");
    let mut out = String::with_capacity(version.len());
    let mut rest = version.chars().peekable();
    while let Some(c) = rest.next() {
        let next_to_letter = out.ends_with(|c: char| c.is_ascii_alphabetic())
            || rest.peek().is_some_and(char::is_ascii_alphabetic);
        if c != '.' || !next_to_letter {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use attestations::Digest;

    use super::*;
    use crate::packages::installed::Said;

    fn fetched(purl: Purl) -> Fetched {
        let digest = Digest::of(purl.to_string().as_bytes());
        let step = recorder::StepId::new("build", 2);
        Fetched { purl, digest, size: 1, url: "https://a.example/x".into(), step }
    }

    fn inventory() -> Inventory {
        let mut inventory = Inventory::default();
        let debian = [
            Purl::new("deb", "curl", "7.88.1-10").with("arch", "amd64"),
            Purl::new("deb", "vim", "2:9.0-1").with("arch", "amd64"),
        ];
        let all = Said::Packages(debian.to_vec());
        inventory.add("var/lib/dpkg/status", Origin::Build, all, &debian[..1]);
        let pandas = |version: &str| Said::Packages(vec![Purl::new("pypi", "pandas", version)]);
        inventory.add("b/pandas-2.0rc1.dist-info/METADATA", Origin::Build, pandas("2.0rc1"), &[]);
        inventory.add("a/pandas-2.0rc1.dist-info/METADATA", Origin::Base, pandas("2.0rc1"), &[]);
        inventory.add("usr/lib/os-release", Origin::Base, Said::Vendor("ubuntu".into()), &[]);
        inventory
    }

    #[test]
    fn what_was_fetched_is_in_the_image_or_passed_by() {
        let mut inventory = inventory();
        let model = fetched(Purl::new("generic", "model.bin", ""));
        inventory.add_file("srv/model.bin", model.digest);
        let passed_by = [
            fetched(Purl::new("deb", "curl", "7.88.1-10").within("debian").with("arch", "arm64")),
            fetched(Purl::new("pypi", "pandas", "1.9").with("file_name", "pandas-1.9.tar.gz")),
        ];
        let taken = [
            fetched(Purl::new("deb", "vim", "9.0-1").within("debian").with("arch", "amd64")),
            fetched(Purl::new("pypi", "Pandas", "2.0-rc.1").with("file_name", "pandas-2.0-rc.1.tar.gz")),
            fetched(
                Purl::new("pypi", "pandas", "2.0rc1").with("file_name", "pandas-2.0rc1-py3-none-any.whl"),
            ),
            model,
        ];
        let packages = Packages::joined(inventory, passed_by.iter().chain(&taken).cloned().collect());
        assert_eq!(packages.passed_by, passed_by);
        let lines: Vec<String> = packages
            .installed
            .iter()
            .map(|one| {
                let records = one.records.iter().cloned().collect::<Vec<_>>().join(" ");
                let file = one.file.as_ref().map(|file| file.purl.version.as_str());
                format!("{} {:?} {records} {file:?}", one.purl, one.origin)
            })
            .collect();
        let metadata = "a/pandas-2.0rc1.dist-info/METADATA b/pandas-2.0rc1.dist-info/METADATA";
        assert_eq!(
            lines,
            [
                "pkg:deb/ubuntu/curl@7.88.1-10?arch=amd64 Base var/lib/dpkg/status None".to_owned(),
                "pkg:deb/ubuntu/vim@2:9.0-1?arch=amd64 Build var/lib/dpkg/status Some(\"9.0-1\")".to_owned(),
                "pkg:generic/model.bin Build srv/model.bin Some(\"\")".to_owned(),
                format!(
                    "pkg:pypi/pandas@2.0rc1?file_name=pandas-2.0-rc.1.tar.gz Build {metadata} Some(\"2.0-rc.1\")"
                ),
                format!(
                    "pkg:pypi/pandas@2.0rc1?file_name=pandas-2.0rc1-py3-none-any.whl Build {metadata} Some(\"2.0rc1\")"
                ),
            ]
        );
        assert!(packages.unread.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_and_bounded() {
        let mut inventory = inventory();
        for number in 0..100 {
            inventory.add_unread(&format!("x/{number:03}"), "it is not JSON");
        }
        let packages = Packages::joined(inventory, Vec::new());
        assert_eq!(packages.unread.len(), 65);
        assert_eq!(
            (&*packages.unread[0], &*packages.unread[64]),
            ("x/000: it is not JSON", "and 36 more records")
        );
    }
}
