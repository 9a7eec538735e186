//! Whose word a federation's policy is: a name, keys, and how many of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::TrustError;
use crate::keys::PublicKey;
use crate::policy_release::FederationName;

/// Larger texts are refused before they are parsed.
const MAX_TEXT: usize = 1 << 20;
/// More keys than this are no federation's.
const MAX_KEYS: usize = 64;

/// What a node trusts of a federation, from a small file of its own.
#[derive(Debug, Clone)]
pub struct Trust {
    name: FederationName,
    threshold: usize,
    keys: BTreeMap<String, PublicKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    name: String,
    threshold: usize,
    keys: BTreeMap<String, String>,
}

impl Trust {
    /// An example with every field.
    pub const EXAMPLE: &str = include_str!("example.toml");

    /// Reads it.
    ///
    /// # Errors
    /// On unknown fields, a key that stands twice, and a threshold that is 0 or cannot be met.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        if text.len() > MAX_TEXT {
            return Err(TrustError::TooLarge);
        }
        let document: Document = toml::from_str(text).map_err(|error| TrustError::Form(error.to_string()))?;
        let Document { version, name, threshold, keys: texts } = document;
        if version != 1 {
            return Err(TrustError::Version(version));
        }
        let name = name.parse().map_err(|cause| TrustError::Form(format!("name: {cause}")))?;
        if threshold == 0 || threshold > texts.len() || texts.len() > MAX_KEYS {
            return Err(TrustError::Threshold { threshold, keys: texts.len(), most: MAX_KEYS });
        }
        let (mut keys, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for (holder, text) in texts {
            let key = PublicKey::parse(&text);
            let key = key.map_err(|cause| TrustError::Key { holder: holder.clone(), cause })?;
            if !seen.insert(key.spki_der().to_vec()) {
                return Err(TrustError::KeyTwice { holder });
            }
            keys.insert(holder, key);
        }
        Ok(Self { name, threshold, keys })
    }

    /// The federation's name.
    pub fn name(&self) -> &FederationName {
        &self.name
    }

    /// How many keys have to sign a release.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Each key with its holder's name.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.keys.iter().map(|(holder, key)| (holder.as_str(), key))
    }
}
