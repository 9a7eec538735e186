//! Package URLs (the purl specification): `pkg:type/namespace/name@version?qualifiers`.

use std::fmt;

mod canonical;
mod compared;

pub(crate) use canonical::{coordinates, pattern};
pub(crate) use compared::normal;

/// A package's name. Two are equal when they are written the same; names are put into the form in which their type compares
/// them, so that it does not matter who wrote them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Purl {
    /// `deb`, `pypi`, `npm`, …
    pub kind: &'static str,
    /// The name's first part, its segments separated by `/`; empty when the type has none.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version; empty when it is not known.
    pub version: String,
    /// What else tells it from others, in alphabetical order.
    qualifiers: Vec<(&'static str, String)>,
}

impl Purl {
    /// A package without namespace.
    pub fn new(kind: &'static str, name: impl Into<String>, version: impl Into<String>) -> Purl {
        let (name, version) = (compared::name(kind, &name.into()), version.into());
        Purl { kind, namespace: String::new(), name, version, qualifiers: Vec::new() }
    }

    /// The same in a namespace.
    #[must_use]
    pub fn within(mut self, namespace: impl Into<String>) -> Purl {
        self.namespace = compared::name(self.kind, &namespace.into());
        self
    }

    /// The same with a qualifier, unless its value is empty.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Purl {
        let value = value.into();
        if !value.is_empty() {
            self.qualifiers.push((key, value));
            self.qualifiers.sort_unstable();
        }
        self
    }

    /// The same with those qualifiers of another that it lacks.
    #[must_use]
    pub fn qualified_as(mut self, other: &Purl) -> Purl {
        for (key, value) in &other.qualifiers {
            if self.qualifier(key).is_none() {
                self = self.with(key, value.clone());
            }
        }
        self
    }

    /// The value of a qualifier.
    pub fn qualifier(&self, key: &str) -> Option<&str> {
        self.qualifiers.iter().find(|(found, _)| *found == key).map(|(_, value)| value.as_str())
    }

    /// The name as people of its ecosystem write it.
    pub fn plain_name(&self) -> String {
        match (self.kind, self.namespace.as_str()) {
            (_, "") | ("deb" | "apk" | "rpm", _) => self.name.clone(),
            ("maven", namespace) => format!("{namespace}:{}", self.name),
            (_, namespace) => format!("{namespace}/{}", self.name),
        }
    }
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}/", self.kind)?;
        for segment in self.namespace.split('/').filter(|segment| !segment.is_empty()) {
            write!(f, "{}/", encoded(segment))?;
        }
        write!(f, "{}", encoded(&self.name))?;
        if !self.version.is_empty() {
            write!(f, "@{}", encoded(&self.version))?;
        }
        let mut separator = '?';
        for (key, value) in &self.qualifiers {
            // A slash ends nothing there, and links stay legible.
            write!(f, "{separator}{key}={}", encoded(value).replace("%2F", "/"))?;
            separator = '&';
        }
        Ok(())
    }
}

/// What the specification leaves alone: letters, digits, `.`, `-`, `_`, `~` and the colon.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte)
}

/// Percent-encoded but for what is plain.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match is_plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_the_specification_says() {
        let scoped = Purl::new("npm", "animation", "12.3.1").within("@angular");
        assert_eq!(scoped.to_string(), "pkg:npm/%40angular/animation@12.3.1");
        assert_eq!(scoped.plain_name(), "@angular/animation");
        let deb =
            Purl::new("deb", "libstdc++6", "1:12.2.0-14+deb12u1").within("debian").with("arch", "amd64");
        assert_eq!(deb.to_string(), "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1?arch=amd64");
        let jar = Purl::new("maven", "a", "1").within("org.b").with("type", "pom").with("classifier", "");
        assert_eq!(
            (jar.to_string().as_str(), jar.plain_name().as_str()),
            ("pkg:maven/org.b/a@1?type=pom", "org.b:a")
        );
        assert_eq!(Purl::new("generic", "a b\n", "").to_string(), "pkg:generic/a%20b%0A");
    }

    #[test]
    fn names_are_the_same_however_their_writers_spell_them() {
        for spelling in ["zope.interface", "Zope_Interface", "zope-interface", "ZOPE.-_interface"] {
            assert_eq!(Purl::new("pypi", spelling, "6").to_string(), "pkg:pypi/zope-interface@6");
        }
        let go = Purl::new("golang", "Mux", "v1").within("github.com/Gorilla");
        assert_eq!(go.to_string(), "pkg:golang/github.com/gorilla/mux@v1");
        assert_eq!(Purl::new("cran", "Matrix", "1").to_string(), "pkg:cran/Matrix@1");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_here_is_canonical(name in "[^*]{1,12}", version in ".{0,8}", space in "[^/]{0,8}") {
            let purl = Purl::new("generic", name, version.clone()).within(space).with("arch", version);
            let text = purl.to_string();
            let named = coordinates(&text).map(|it| it.into_owned());
            proptest::prop_assert!(named.is_some_and(|it| text.starts_with(it.trim_end_matches('@'))), "{}", text);
        }
    }
}
