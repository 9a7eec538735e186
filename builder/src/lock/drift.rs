//! The differences between a lock and a later build, in people's form: `pandas 2.2.3 → 2.3.0`.

use std::collections::{BTreeMap, BTreeSet};

use attestations::Digest;

use super::Lock;

/// The differences of `now` from `locked`, a line for each base and package; empty when both used the same.
pub(crate) fn drift(locked: &Lock, now: &Lock) -> Vec<String> {
    let mut lines = Vec::new();
    let names: BTreeSet<&String> = locked.bases.keys().chain(now.bases.keys()).collect();
    for name in names {
        match (locked.bases.get(name), now.bases.get(name)) {
            (Some(then), Some(now)) if then.digest != now.digest => {
                lines.push(format!("base {name} {} → {}", then.digest, now.digest));
            }
            (None, Some(now)) => lines.push(format!("base {name} is new: {}", now.digest)),
            (Some(_), None) => lines.push(format!("base {name} is gone")),
            _ => {}
        }
    }
    lines.extend(drift_of(&locked.packages, &now.packages));
    let passed_by = drift_of(&locked.fetched, &now.fetched);
    lines.extend(passed_by.into_iter().map(|line| format!("fetched, and not seen in the image: {line}")));
    lines
}

/// Packages by purl, with the digests of their files.
type ByPurl = BTreeMap<String, Vec<Digest>>;

/// The differences of these packages, a line each.
fn drift_of(locked: &ByPurl, now: &ByPurl) -> Vec<String> {
    let mut lines = Vec::new();
    let (then, now_by_name) = (by_name(locked), by_name(now));
    let names: BTreeSet<&String> = then.keys().chain(now_by_name.keys()).collect();
    for name in names {
        let none = BTreeSet::new();
        let (before, after) = (then.get(name).unwrap_or(&none), now_by_name.get(name).unwrap_or(&none));
        let text = |versions: &BTreeSet<String>| versions.iter().cloned().collect::<Vec<_>>().join(", ");
        match (before.is_empty(), after.is_empty()) {
            _ if before == after => {}
            (false, false) => lines.push(format!("{name} {} → {}", text(before), text(after))),
            (true, _) => lines.push(format!("{name} {} is new", text(after))),
            (_, true) => lines.push(format!("{name} {} is gone", text(before))),
        }
    }
    for (purl, digests) in locked {
        if now.get(purl).is_some_and(|found| found != digests) {
            lines.push(format!("{purl} has other bytes under the same version"));
        }
    }
    lines
}

/// The versions of each package, by kind and name.
fn by_name(packages: &ByPurl) -> BTreeMap<String, BTreeSet<String>> {
    let mut names = BTreeMap::<String, BTreeSet<String>>::new();
    for purl in packages.keys() {
        let (name, version) = split(purl);
        names.entry(name).or_default().insert(version);
    }
    names
}

/// A purl's name and version for people. An `@` in the name is encoded in a purl, so the only one separates them.
fn split(purl: &str) -> (String, String) {
    let plain = purl.split('?').next().unwrap_or_default();
    let plain = plain.strip_prefix("pkg:").unwrap_or(plain);
    let (name, version) = plain.split_once('@').unwrap_or((plain, "(no version)"));
    let decoded = |text: &str| {
        let text = text.replace("%40", "@").replace("%2B", "+").replace("%20", " ");
        text.chars().filter(|c| !c.is_control()).collect::<String>()
    };
    (decoded(name), decoded(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{LockedBase, VERSION};

    fn lock(base: &str, packages: &[(&str, &str)]) -> Lock {
        let locked = LockedBase { digest: Digest::of(base.as_bytes()), from: "x".into(), index: None };
        let packages =
            packages.iter().map(|(purl, file)| ((*purl).to_owned(), vec![Digest::of(file.as_bytes())]));
        let bases = BTreeMap::from([("b".to_owned(), locked)]);
        let fetched = BTreeMap::from([("pkg:pypi/tried@1".to_owned(), vec![Digest::of(base.as_bytes())])]);
        Lock { version: VERSION, record: None, bases, packages: packages.collect(), fetched }
    }

    #[test]
    fn drift_is_told_by_name_and_version() {
        let then = lock(
            "1",
            &[
                ("pkg:pypi/pandas@2.2.3?file_name=x", "a"),
                ("pkg:npm/%40a/b@1", "b"),
                ("pkg:deb/debian/c@1", "c"),
            ],
        );
        let now = lock(
            "2",
            &[
                ("pkg:pypi/pandas@2.3.0?file_name=y", "d"),
                ("pkg:npm/%40a/b@1", "other"),
                ("pkg:cargo/e@1%2B2", "e"),
            ],
        );
        let lines = drift(&then, &now);
        assert!(lines[0].starts_with("base b sha256:") && lines[0].contains(" → sha256:"), "{lines:?}");
        assert_eq!(
            lines[1..],
            [
                "cargo/e 1+2 is new",
                "deb/debian/c 1 is gone",
                "pypi/pandas 2.2.3 → 2.3.0",
                "pkg:npm/%40a/b@1 has other bytes under the same version",
                "fetched, and not seen in the image: pkg:pypi/tried@1 has other bytes under the same version"
            ]
        );
        assert_eq!(drift(&then, &then), Vec::<String>::new());
    }
}
