//! How registries are reached: by plain HTTP, through mirrors, with additional certificate authorities.
//!
//! [`RegistryConfig`] is the written form, which both programs read from TOML (a file of its own, or a table of a
//! larger one); [`Registries`] is the checked form that a client takes. Certificate files are read separately by
//! [`read_certificates`], since they may also apply to connections other than those to registries.

mod certificates;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use attestations::Repository;
use serde::Deserialize;

pub use certificates::{CertificateError, MAX_CERTIFICATES, read_certificates};

/// The most mirrors of one registry.
const MAX_MIRRORS: usize = 16;
/// How long a registry may take to respond, and how long it may be silent in the middle of a response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The written form of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Hosts for plain HTTP, `host` or `host:port`. Loopback need not be listed.
    pub insecure: Vec<String>,
    /// The registries with mirrors.
    pub registry: Vec<RegistryEntry>,
}

/// A registry with mirrors.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryEntry {
    /// The registry's name in references.
    pub name: String,
    /// Whether only the mirrors are used, and never the registry itself.
    #[serde(default)]
    pub only: bool,
    /// Its mirrors, in the order they are tried.
    pub mirror: Vec<MirrorEntry>,
}

/// A mirror of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorEntry {
    /// `HOST[:PORT][/PREFIX]`.
    pub at: String,
    /// Whether it is also trusted to resolve tags and to list attachments.
    #[serde(default)]
    pub tags: bool,
}

/// Why a mirror cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// The mirrored name is not the name of a registry.
    #[error("`{0}` is no registry's name")]
    Name(String),
    /// Its address cannot be parsed.
    #[error("the mirror `{text}`: {reason}")]
    Malformed {
        /// The address.
        text: String,
        /// The reason.
        reason: String,
    },
    /// A registry is listed without a mirror.
    #[error("{0} has no mirror")]
    None(String),
    /// A registry has too many of them.
    #[error("{0} has more than {MAX_MIRRORS} mirrors")]
    TooMany(String),
}

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Registries {
    /// Hosts for plain HTTP. Loopback need not be listed.
    pub plain: Vec<String>,
    /// Mirrors, by the name of the registry.
    pub mirrored: BTreeMap<String, Mirrored>,
    /// Certificates (DER) that are trusted in addition to the system's.
    pub roots: Vec<Vec<u8>>,
    /// How long a registry may take to respond, and how long it may be silent in the middle of a response.
    pub patience: Duration,
}

impl Default for Registries {
    fn default() -> Self {
        Self { plain: Vec::new(), mirrored: BTreeMap::new(), roots: Vec::new(), patience: TIMEOUT }
    }
}

impl TryFrom<&RegistryConfig> for Registries {
    type Error = MirrorError;

    fn try_from(config: &RegistryConfig) -> Result<Self, MirrorError> {
        let mut all = Self::default();
        all.add(config)?;
        Ok(all)
    }
}

impl Registries {
    /// Adds the settings of a configuration after the existing ones.
    ///
    /// # Errors
    /// When a registry has no name, no mirror or too many, or a mirror's address cannot be parsed.
    pub fn add(&mut self, config: &RegistryConfig) -> Result<(), MirrorError> {
        self.plain.extend_from_slice(&config.insecure);
        for entry in &config.registry {
            if entry.mirror.is_empty() {
                return Err(MirrorError::None(entry.name.clone()));
            }
            for mirror in &entry.mirror {
                self.add_mirror(&entry.name, mirror)?;
            }
            self.mirrored.entry(entry.name.clone()).or_default().only |= entry.only;
        }
        Ok(())
    }

    /// Adds a mirror of the registry `name` after its existing ones.
    ///
    /// # Errors
    /// When that is not a registry's name or has too many mirrors, or the mirror's address cannot be parsed.
    pub fn add_mirror(&mut self, name: &str, mirror: &MirrorEntry) -> Result<(), MirrorError> {
        let is_name = format!("{name}/x").parse().is_ok_and(|it: Repository| it.registry() == name);
        if !is_name {
            return Err(MirrorError::Name(name.to_owned()));
        }
        let mirror = mirror.at.parse::<Mirror>()?.believed(mirror.tags);
        let mirrored = self.mirrored.entry(name.to_owned()).or_default();
        if mirrored.mirrors.len() >= MAX_MIRRORS {
            return Err(MirrorError::TooMany(name.to_owned()));
        }
        mirrored.mirrors.push(mirror);
        Ok(())
    }
}

/// A registry's mirrors, in the order they are tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// The mirrors.
    pub mirrors: Vec<Mirror>,
    /// Whether no other server is used, not even the registry itself.
    pub only: bool,
}

/// A mirror. Its content is verified against the requested digest, so it need not be trusted with content. Resolving
/// tags needs trust: a mirror can give an outdated image, and that cannot be detected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    at: String,
    /// Whether it is also trusted to resolve tags and to list attachments.
    pub tags: bool,
}

impl FromStr for Mirror {
    type Err = MirrorError;

    /// `HOST[:PORT][/PREFIX]`; the registry's paths are appended to it.
    fn from_str(text: &str) -> Result<Self, MirrorError> {
        let at = text.trim_end_matches('/');
        let bad = |reason: String| MirrorError::Malformed { text: text.to_owned(), reason };
        let whole: Repository =
            format!("{at}/x").parse().map_err(|_| bad("not HOST[:PORT][/PREFIX]".into()))?;
        let host = at.split('/').next().unwrap_or_default();
        if whole.registry() != host {
            return Err(bad(format!("`{host}` reads as a path: a host has a dot or a port in it")));
        }
        Ok(Self { at: at.to_owned(), tags: false })
    }
}

impl Mirror {
    /// The same mirror, trusted or not to resolve tags.
    #[must_use]
    pub fn believed(self, tags: bool) -> Self {
        Self { tags, ..self }
    }

    /// The host, with its port if one was given.
    pub fn host(&self) -> &str {
        self.at.split('/').next().unwrap_or_default()
    }

    /// The repository on the mirror for `repository`. None if its prefix makes the name too long.
    pub(super) fn repository(&self, repository: &Repository) -> Option<Repository> {
        format!("{}/{}", self.at, repository.path()).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mirror_is_a_host() {
        for text in ["mirror.example", "mirror.example:5000", "localhost:5000/a/b", "mirror.example/hub/"] {
            assert!(text.parse::<Mirror>().is_ok(), "{text}");
        }
        for text in ["", "hub", "hub/library", "https://mirror.example", "mirror.example/A", "m.example/a:b"]
        {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }

    fn entry(name: &str, mirrors: &[&str], only: bool) -> RegistryEntry {
        let mirror = mirrors.iter().map(|at| MirrorEntry { at: (*at).to_owned(), tags: false }).collect();
        RegistryEntry { name: name.to_owned(), only, mirror }
    }

    fn of(registry: Vec<RegistryEntry>) -> Result<Registries, MirrorError> {
        Registries::try_from(&RegistryConfig { registry, ..RegistryConfig::default() })
    }

    #[test]
    fn a_registry_that_is_listed_twice_keeps_the_order_and_the_stricter_word() {
        let all = of(vec![
            entry("a.example", &["one.example"], true),
            entry("a.example", &["two.example"], false),
            entry("b.example", &["one.example"], false),
        ])
        .unwrap();
        let hosts: Vec<_> = all.mirrored["a.example"].mirrors.iter().map(Mirror::host).collect();
        assert_eq!(hosts, ["one.example", "two.example"]);
        assert!(all.mirrored["a.example"].only && !all.mirrored["b.example"].only);
    }

    #[test]
    fn what_is_no_mirror_is_refused_by_what_is_wrong_with_it() {
        let error = |name, mirrors: &[&str]| of(vec![entry(name, mirrors, false)]).unwrap_err();
        assert_eq!(error("a.example", &[]), MirrorError::None("a.example".into()));
        assert_eq!(error("a.example/b", &["m.example"]), MirrorError::Name("a.example/b".into()));
        assert_eq!(error("a.example", &["m.example"; 17]), MirrorError::TooMany("a.example".into()));
        assert!(of(vec![entry("a.example", &["m.example"; 16], false)]).is_ok());
        let text = error("a.example", &["https://m.example"]).to_string();
        assert!(text.contains("`https://m.example`: not HOST"), "{text}");
    }

    /// One program has it in a file of its own, the other in a table.
    #[test]
    fn it_is_read_from_a_table_and_refuses_what_it_does_not_know() {
        let read = |text: &str| serde_json::from_str::<RegistryConfig>(text);
        assert_eq!(read("{}").unwrap(), RegistryConfig::default());
        let whole = r#"{"insecure": ["m.example:5000"], "registry": [
            {"name": "a.example", "only": true, "mirror": [{"at": "m.example:5000/hub", "tags": true}]}]}"#;
        let all = Registries::try_from(&read(whole).unwrap()).unwrap();
        assert_eq!(all.plain, ["m.example:5000"]);
        let mirrored = &all.mirrored["a.example"];
        assert!(mirrored.only && mirrored.mirrors[0].tags);
        for text in [
            r#"{"insecur": []}"#,
            r#"{"registry": [{"name": "a.example"}]}"#,
            r#"{"registry": [{"name": "a.example", "mirror": [{"at": "m.example", "tag": true}]}]}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
