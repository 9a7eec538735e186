//! Image references: what a person asks for, and what may be pulled.
//!
//! A [`Reference`] may hold a tag, which somebody else can move; only a [`Pinned`] one can be pulled or run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::foreign::Foreign;
use crate::through_text::through_text;

mod grammar;

use grammar::Parts;

/// Longer references are refused before they are parsed; the registries' own limit is 255 for the name and 128 for a tag.
const MAX_LENGTH: usize = 512;

/// Where an image lives, without tag or digest: `registry[:port]/path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// The registry's host, with its port where one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The reference to one manifest here.
    pub fn pin(self, digest: Digest) -> Pinned {
        Pinned { repository: self, digest }
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let parts = Parts::of(text)?;
        if parts.tag.is_some() || parts.digest.is_some() {
            return Err(ReferenceError::NotARepository { text: Foreign::new(text) });
        }
        Ok(parts.repository)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// What a person asks for: a repository with a tag, a digest, or both. There is no default tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Where the image lives.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// This reference, resolved to `digest`.
    ///
    /// # Errors
    /// When the reference itself names another digest.
    pub fn pin(&self, digest: Digest) -> Result<Pinned, ReferenceError> {
        match self.digest {
            Some(asked) if asked != digest => Err(ReferenceError::OtherDigest { asked, found: digest }),
            _ => Ok(self.repository.clone().pin(digest)),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let Parts { repository, tag, digest } = Parts::of(text)?;
        let digest = match digest {
            Some(digest) => {
                Some(digest.parse().map_err(|_| ReferenceError::Digest { text: Foreign::new(&digest) })?)
            }
            None => None,
        };
        if tag.is_none() && digest.is_none() {
            return Err(ReferenceError::NoVersion { text: Foreign::new(text) });
        }
        Ok(Self { repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A reference to exactly one manifest: the only kind that can be pulled or run. A text does not become one unseen: it is
/// read as a [`Reference`], and that is pinned to the digest that was found.
///
/// ```compile_fail,E0451
/// fn forge(it: attestations::Pinned, digest: attestations::Digest) -> attestations::Pinned {
///     attestations::Pinned { digest, ..it }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pinned {
    repository: Repository,
    digest: Digest,
}

impl Pinned {
    /// Where the image lives.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The manifest's digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl From<Pinned> for Reference {
    fn from(pinned: Pinned) -> Self {
        Self { repository: pinned.repository, tag: None, digest: Some(pinned.digest) }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

through_text!(Repository: ReferenceError, Reference: ReferenceError);

/// Why a text is no reference that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is longer than any registry takes.
    #[error("an image reference of {length} characters: {MAX_LENGTH} are the most")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// It does not follow the grammar.
    #[error(
        "`{text}` is not an image reference ({cause}): write registry/name:tag or registry/name@sha256:…"
    )]
    Grammar {
        /// What was given.
        text: Foreign,
        /// What is wrong.
        cause: Foreign,
    },
    /// It has neither tag nor digest.
    #[error("`{text}` has neither tag nor digest, and none is assumed: write {text}:TAG or {text}@sha256:…")]
    NoVersion {
        /// What was given.
        text: Foreign,
    },
    /// It has a tag or a digest where a repository alone is wanted.
    #[error("`{text}` has a tag or digest, where a repository alone is wanted")]
    NotARepository {
        /// What was given.
        text: Foreign,
    },
    /// Its digest is not SHA-256.
    #[error("`{text}` is not sha256: and 64 lowercase hexadecimal digits")]
    Digest {
        /// What was given.
        text: Foreign,
    },
    /// It resolved to a digest other than its own.
    #[error("the reference names {asked}, but {found} was found")]
    OtherDigest {
        /// What the reference says.
        asked: Digest,
        /// What was found.
        found: Digest,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_port_is_not_a_tag() {
        let reference: Reference = "localhost:5000/img:1".parse().unwrap();
        assert_eq!((reference.repository().registry(), reference.tag()), ("localhost:5000", Some("1")));
        assert!(matches!("localhost:5000/img".parse::<Reference>(), Err(ReferenceError::NoVersion { .. })));
    }

    #[test]
    fn no_tag_is_invented() {
        assert!("registry.example/a".parse::<Reference>().is_err());
        let pinned: Reference = format!("registry.example/a@{DIGEST}").parse().unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!("registry.example/a:latest".parse::<Reference>().unwrap().tag(), Some("latest"));
    }

    #[test]
    fn a_tag_and_a_digest_both_stay() {
        let text = format!("registry.example:5000/a/b:1.0@{DIGEST}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        assert!(reference.pin(Digest::of(b"")).is_ok());
        assert!(matches!(reference.pin(Digest::of(b"x")), Err(ReferenceError::OtherDigest { .. })));
    }

    #[test]
    fn a_repository_has_no_version() {
        assert!("registry.example/a:1".parse::<Repository>().is_err());
        assert!(format!("registry.example/a@{DIGEST}").parse::<Repository>().is_err());
        assert_eq!("localhost:5000/a".parse::<Repository>().unwrap().to_string(), "localhost:5000/a");
    }

    #[test]
    fn what_is_no_reference_is_an_error() {
        for text in
            ["", "A/B:1", "a b:1", "registry.example/a:", "registry.example/a@sha256:12", &"a".repeat(600)]
        {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
