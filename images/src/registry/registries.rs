//! Which registries are reached how: by plain HTTP, through mirrors, with roots of one's own.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use attestations::Repository;

use super::{Client, TIMEOUT};
use crate::error::{Error, Result};

/// The most mirrors of one registry.
const MAX_MIRRORS: usize = 16;

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Registries {
    /// Hosts that plain HTTP is spoken to. Loopback needs no mention.
    pub plain: Vec<String>,
    /// Mirrors, by the name of the registry that they stand in for.
    pub mirrored: BTreeMap<String, Mirrored>,
    /// Certificates (DER) that are trusted beside the system's.
    pub roots: Vec<Vec<u8>>,
    /// How long a registry may take to answer at all, and how long it may say nothing in between.
    pub patience: Duration,
}

impl Default for Registries {
    fn default() -> Self {
        Self { plain: Vec::new(), mirrored: BTreeMap::new(), roots: Vec::new(), patience: TIMEOUT }
    }
}

/// A registry's mirrors, in the order they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// The mirrors.
    pub mirrors: Vec<Mirror>,
    /// Whether nobody else is asked, not even the registry itself.
    pub only: bool,
}

/// A mirror. What it serves is held against the digest that was asked for, so it need not be trusted with content; what a
/// tag stands for is another matter: a mirror can tell of yesterday's image, and nothing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    at: String,
    /// Whether it is also believed what a tag stands for, and what is attached to an image.
    pub tags: bool,
}

impl FromStr for Mirror {
    type Err = Error;

    /// `HOST[:PORT][/PREFIX]`; paths of the registry are appended to it.
    fn from_str(text: &str) -> Result<Self> {
        let at = text.trim_end_matches('/');
        let bad = |reason: String| Error::refused(format!("the mirror `{text}`"), reason);
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
    /// The same, believed or not what a tag stands for.
    #[must_use]
    pub fn believed(self, tags: bool) -> Self {
        Self { tags, ..self }
    }

    /// The host, with its port where one was given.
    pub fn host(&self) -> &str {
        self.at.split('/').next().unwrap_or_default()
    }

    fn place(&self, repository: &Repository) -> Result<Repository> {
        let text = format!("{}/{}", self.at, repository.path());
        text.parse().map_err(|_| Error::refused(text, "a mirror's prefix makes the name too long".to_owned()))
    }
}

impl Mirrored {
    /// Adds a mirror behind the others.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, mirror: Mirror) -> Result<()> {
        if self.mirrors.len() >= MAX_MIRRORS {
            return Err(Error::refused("mirrors", format!("{MAX_MIRRORS} are the most of one registry")));
        }
        self.mirrors.push(mirror);
        Ok(())
    }
}

/// Where something may be asked for.
pub(super) struct Place {
    pub(super) repository: Repository,
    pub(super) is_mirror: bool,
}

impl Client {
    /// Where what has a digest may be asked for: the mirrors in their order, and the registry itself last.
    pub(super) fn places(&self, repository: &Repository) -> Result<Vec<Place>> {
        self.places_of(repository, |_| true)
    }

    /// Where it may be asked what a tag stands for.
    pub(super) fn places_of_tags(&self, repository: &Repository) -> Result<Vec<Place>> {
        let places = self.places_of(repository, |mirror| mirror.tags)?;
        match places.is_empty() {
            false => Ok(places),
            true => {
                Err(nobody(repository, "to resolve a tag", "name a digest, or allow a mirror `tags = true`"))
            }
        }
    }

    /// Who is asked what is attached to an image. It may be a veto, so a mirror answers only where nobody else does.
    pub(super) fn lists_of(&self, repository: &Repository) -> Result<Repository> {
        let places = self.places_of_tags(repository)?;
        let itself = places.iter().position(|place| !place.is_mirror).unwrap_or(0);
        let found = places.into_iter().nth(itself).map(|place| place.repository);
        found.ok_or_else(|| nobody(repository, "for what is attached", "allow a mirror `tags = true`"))
    }

    /// Where is written to: never a mirror.
    pub(super) fn check_writable(&self, repository: &Repository) -> Result<()> {
        match self.registries.mirrored.get(repository.registry()) {
            Some(mirrored) if mirrored.only => {
                Err(nobody(repository, "to write to", "push to another registry, or leave out `only = true`"))
            }
            _ => Ok(()),
        }
    }

    fn places_of(&self, repository: &Repository, wanted: impl Fn(&Mirror) -> bool) -> Result<Vec<Place>> {
        let itself = Place { repository: repository.clone(), is_mirror: false };
        let Some(mirrored) = self.registries.mirrored.get(repository.registry()) else {
            return Ok(vec![itself]);
        };
        let mirrors = mirrored.mirrors.iter().filter(|mirror| wanted(mirror));
        let mut places = mirrors
            .map(|mirror| Ok(Place { repository: mirror.place(repository)?, is_mirror: true }))
            .collect::<Result<Vec<_>>>()?;
        if !mirrored.only {
            places.push(itself);
        }
        // One that could not be reached is not waited for again, unless nobody else is left.
        let (alive, dead): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|place| !place.is_mirror || !self.is_shunned(&place.repository));
        Ok(if alive.is_empty() { dead } else { alive })
    }
}

fn nobody(repository: &Repository, what: &str, hint: &str) -> Error {
    let registry = repository.registry();
    Error::refused(
        registry.to_owned(),
        format!("it is reached by its mirrors only, and none of them is there {what}: {hint}"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(only: bool, tags: [bool; 2]) -> Client {
        let mirror = |at: &str, tags| Mirror { tags, ..at.parse().unwrap() };
        let mirrors = vec![mirror("one.example:5000/hub", tags[0]), mirror("two.example", tags[1])];
        let mirrored = BTreeMap::from([("registry.example".to_owned(), Mirrored { mirrors, only })]);
        Client::with(Registries { mirrored, ..Registries::default() })
    }

    fn names(places: Vec<Place>) -> Vec<String> {
        places.iter().map(|place| place.repository.to_string()).collect()
    }

    #[test]
    fn mirrors_come_in_order_and_the_registry_last() {
        let repository: Repository = "registry.example/team/algo".parse().unwrap();
        let (one, two) = ("one.example:5000/hub/team/algo", "two.example/team/algo");
        let itself = "registry.example/team/algo";
        let places = |only, tags| names(client(only, tags).places(&repository).unwrap());
        assert_eq!(places(false, [false; 2]), [one, two, itself]);
        assert_eq!(places(true, [false; 2]), [one, two]);
        let tags = |only, tags| client(only, tags).places_of_tags(&repository).map(names);
        assert_eq!(tags(false, [false; 2]).unwrap(), [itself], "no mirror is believed a tag unasked");
        assert_eq!(tags(false, [false, true]).unwrap(), [two, itself]);
        assert_eq!(tags(true, [false, true]).unwrap(), [two]);
        assert!(tags(true, [false; 2]).unwrap_err().to_string().contains("tags = true"));
        let lists = |only| client(only, [true, false]).lists_of(&repository).unwrap().to_string();
        assert_eq!((lists(false), lists(true)), (itself.to_owned(), one.to_owned()));
        assert!(client(false, [true; 2]).check_writable(&repository).is_ok());
        assert!(client(true, [true; 2]).check_writable(&repository).is_err());
        let other: Repository = "other.example/a".parse().unwrap();
        assert_eq!(names(client(true, [true; 2]).places(&other).unwrap()), ["other.example/a"]);
    }

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
}
