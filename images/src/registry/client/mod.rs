//! A client for any number of registries, which are untrusted.

mod body;
mod places;
mod pull;
mod push;
mod request;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use attestations::{Digest, Reference, Repository};
use tokio::sync::OnceCell;

use super::auth::{Auth, Operation};
use super::config::Registries;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::platform::Platform;

use request::Channel;
pub(super) use request::{Fetched, Request};
pub use traffic::Traffic;

/// A client for any number of registries.
pub struct Client {
    registries: Registries,
    reporter: Option<Reporter>,
    /// One for each [`Channel`].
    http: [OnceCell<reqwest::Client>; Channel::COUNT],
    /// Tokens and credentials by repository and operation. A refused one is requested again.
    granted: Mutex<BTreeMap<(String, Operation), Auth>>,
    /// Mirrors that could not be reached.
    shunned: Mutex<BTreeSet<String>>,
    observer: Option<traffic::Observer>,
}

/// Receives messages about retries and skipped mirrors.
type Reporter = Box<dyn Fn(&str) + Send + Sync>;

/// The target of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// An image, by the digest of its manifest.
    Image(Digest),
    /// An index of several images.
    Index(Index),
}

impl Client {
    /// A client that uses TLS for every host but those on this machine's loopback and those in `plain`.
    pub fn new(plain: impl IntoIterator<Item = String>) -> Self {
        Self::with(Registries { plain: plain.into_iter().collect(), ..Registries::default() })
    }

    /// A client with these settings.
    pub fn with(registries: Registries) -> Self {
        Self {
            registries,
            reporter: None,
            http: [const { OnceCell::const_new() }; Channel::COUNT],
            granted: Mutex::default(),
            shunned: Mutex::default(),
            observer: None,
        }
    }

    /// Calls `teller` with a line of text for each retry and each skipped mirror.
    #[must_use]
    pub fn telling(self, reporter: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { reporter: Some(Box::new(reporter)), ..self }
    }

    /// The digest of the image manifest that `reference` names now. If a tag names an index, the manifest for this
    /// machine's platform.
    ///
    /// # Errors
    /// When there is none, the registry cannot be reached, or a digest names an index, since it does not say which of
    /// its images is meant.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest> {
        let here = Platform::here();
        let index = match self.look(reference).await? {
            Named::Image(digest) => return Ok(digest),
            Named::Index(index) => index,
        };
        let chosen = index.choose(&here, &reference.to_string());
        if reference.digest().is_none() {
            return chosen;
        }
        let hint = match chosen {
            Ok(digest) => format!("; for {here} that is {}@{digest}", reference.repository()),
            Err(_) => String::new(),
        };
        Err(Error::refused(
            reference.to_string(),
            format!("this digest names an index of several images: name one image's manifest{hint}"),
        ))
    }

    /// The target of `reference` now: an image, or an index of several.
    ///
    /// # Errors
    /// When there is none, or the registry cannot be reached.
    pub async fn look(&self, reference: &Reference) -> Result<Named> {
        let version =
            reference.digest().map(Digest::to_string).or_else(|| reference.tag().map(str::to_owned));
        let version =
            version.ok_or_else(|| Error::refused(reference.to_string(), "it has neither tag nor digest"))?;
        let repository = reference.repository();
        let places = match reference.digest() {
            Some(_) => self.places(repository)?,
            None => self.places_of_tags(repository)?,
        };
        let found = self.manifest_at(&places, &version).await?;
        Ok(match Index::parse(&found.bytes)? {
            None => Named::Image(found.digest),
            Some(index) => Named::Index(index),
        })
    }

    fn granted(&self, repository: &Repository, operation: Operation) -> Option<Auth> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.get(&(repository.to_string(), operation)).cloned()
    }

    fn remember(&self, repository: &Repository, operation: Operation, auth: Auth) {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.insert((repository.to_string(), operation), auth);
    }

    fn report(&self, text: &str) {
        if let Some(reporter) = &self.reporter {
            reporter(text);
        }
    }

    fn shun(&self, mirror: &Repository) {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.registry().to_owned());
    }

    fn is_shunned(&self, mirror: &Repository) -> bool {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).contains(mirror.registry())
    }
}
