//! The servers for a request: a registry's mirrors, and the registry itself.

use attestations::Repository;

use super::super::config::Mirror;
use super::Client;
use crate::error::{Error, Result};

/// A server for a request.
pub(super) struct RegistryPlace {
    pub(super) repository: Repository,
    pub(super) is_mirror: bool,
}

impl Client {
    /// The servers for content with a known digest: the mirrors in order, and the registry itself last.
    pub(super) fn places(&self, repository: &Repository) -> Result<Vec<RegistryPlace>> {
        self.places_of(repository, |_| true)
    }

    /// The servers that may resolve a tag.
    pub(super) fn places_of_tags(&self, repository: &Repository) -> Result<Vec<RegistryPlace>> {
        let places = self.places_of(repository, |mirror| mirror.tags)?;
        match places.is_empty() {
            false => Ok(places),
            true => {
                Err(nobody(repository, "to resolve a tag", "name a digest, or allow a mirror `tags = true`"))
            }
        }
    }

    /// The server that lists attachments. One of them may be a veto, so a mirror is asked only if the registry must
    /// not be.
    pub(in crate::registry) fn lists_of(&self, repository: &Repository) -> Result<Repository> {
        let places = self.places_of_tags(repository)?;
        let itself = places.iter().position(|place| !place.is_mirror).unwrap_or(0);
        let found = places.into_iter().nth(itself).map(|place| place.repository);
        found.ok_or_else(|| nobody(repository, "for what is attached", "allow a mirror `tags = true`"))
    }

    /// Checks that the registry may be written to; mirrors never are.
    pub(super) fn check_writable(&self, repository: &Repository) -> Result<()> {
        match self.registries.mirrored.get(repository.registry()) {
            Some(mirrored) if mirrored.only => {
                Err(nobody(repository, "to write to", "push to another registry, or leave out `only = true`"))
            }
            _ => Ok(()),
        }
    }

    fn places_of(
        &self,
        repository: &Repository,
        wanted: impl Fn(&Mirror) -> bool,
    ) -> Result<Vec<RegistryPlace>> {
        let itself = RegistryPlace { repository: repository.clone(), is_mirror: false };
        let Some(mirrored) = self.registries.mirrored.get(repository.registry()) else {
            return Ok(vec![itself]);
        };
        let mirrors = mirrored.mirrors.iter().filter(|mirror| wanted(mirror));
        let mut places = mirrors
            .map(|mirror| Ok(RegistryPlace { repository: at_mirror(mirror, repository)?, is_mirror: true }))
            .collect::<Result<Vec<_>>>()?;
        if !mirrored.only {
            places.push(itself);
        }
        // Unreachable mirrors are skipped, unless there is no other server.
        let (alive, dead): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|place| !place.is_mirror || !self.is_shunned(&place.repository));
        Ok(if alive.is_empty() { dead } else { alive })
    }
}

fn at_mirror(mirror: &Mirror, repository: &Repository) -> Result<Repository> {
    let too_long = || {
        Error::refused(
            format!("{}/{}", mirror.host(), repository.path()),
            "a mirror's prefix makes the name too long",
        )
    };
    mirror.repository(repository).ok_or_else(too_long)
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::config::{Mirrored, Registries};

    fn client(only: bool, tags: [bool; 2]) -> Client {
        let mirror = |at: &str, tags| at.parse::<Mirror>().unwrap().believed(tags);
        let mirrors = vec![mirror("one.example:5000/hub", tags[0]), mirror("two.example", tags[1])];
        let mirrored = BTreeMap::from([("registry.example".to_owned(), Mirrored { mirrors, only })]);
        Client::with(Registries { mirrored, ..Registries::default() })
    }

    fn names(places: Vec<RegistryPlace>) -> Vec<String> {
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
}
