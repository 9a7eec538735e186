//! A client for any number of registries: images from and to a stranger's server.

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
pub(super) use request::Request;
pub use traffic::Traffic;

/// A client for any number of registries.
pub struct Client {
    registries: Registries,
    teller: Option<Teller>,
    /// One for each [`Channel`].
    http: [OnceCell<reqwest::Client>; Channel::COUNT],
    /// What was granted, by repository and deed. A refused one is asked for again.
    granted: Mutex<BTreeMap<(String, Operation), Auth>>,
    /// Mirrors that could not be reached.
    shunned: Mutex<BTreeSet<String>>,
    observer: Option<traffic::Observer>,
}

/// Who is told of what is tried again, and of mirrors that are passed over.
type Teller = Box<dyn Fn(&str) + Send + Sync>;

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// An image, by the digest of its manifest.
    Image(Digest),
    /// An index of several.
    Index(Index),
}

impl Client {
    /// A client that speaks TLS to every host but those on this machine's loopback and those named in `plain`.
    pub fn new(plain: impl IntoIterator<Item = String>) -> Self {
        Self::with(Registries { plain: plain.into_iter().collect(), ..Registries::default() })
    }

    /// A client that reaches registries as these say.
    pub fn with(registries: Registries) -> Self {
        Self {
            registries,
            teller: None,
            http: [const { OnceCell::const_new() }; Channel::COUNT],
            granted: Mutex::default(),
            shunned: Mutex::default(),
            observer: None,
        }
    }

    /// The same, telling `teller` in a line of text what is tried again, and which mirror was passed over.
    #[must_use]
    pub fn telling(self, teller: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { teller: Some(Box::new(teller)), ..self }
    }

    /// The digest of the image manifest that `reference` names now. Where a tag names an index, the manifest for this
    /// machine's platform.
    ///
    /// # Errors
    /// When there is none, the registry cannot be reached, or a digest names an index: which of its images was meant is not said.
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

    /// What `reference` names now: an image, or an index of several.
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

    fn tell(&self, text: &str) {
        if let Some(teller) = &self.teller {
            teller(text);
        }
    }

    fn shun(&self, mirror: &Repository) {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.registry().to_owned());
    }

    fn is_shunned(&self, mirror: &Repository) -> bool {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).contains(mirror.registry())
    }
}
