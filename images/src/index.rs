//! An index: several images under one name, one for each platform (OCI image-spec `image-index.md`).
//!
//! It only selects an image for a platform. Signatures, comparisons and runs always concern one image, by the digest
//! of its own manifest.

use std::collections::BTreeMap;

use attestations::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::{self, DOCKER_INDEX, Descriptor, INDEX};
use crate::error::{Error, Result};
use crate::image::{Image, MAX_MANIFEST};
use crate::platform::Platform;
use crate::store::Store;

/// An index with its descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    descriptor: Descriptor,
    manifests: Vec<Descriptor>,
}

/// The JSON form of an index, as written here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [Descriptor],
}

impl Index {
    /// Stores an index of images, each for another platform. The same images in any order give the same bytes.
    ///
    /// # Errors
    /// When two are for one platform, or it cannot be written.
    pub fn assemble(store: &Store, images: &[&Image]) -> Result<Self> {
        let mut by_platform = BTreeMap::new();
        for image in images {
            let platform = image.config().platform();
            let manifest = image.manifest();
            let entry = Descriptor {
                platform: Some(platform.clone()),
                ..Descriptor::new(manifest.media_type.clone(), manifest.digest, manifest.size)
            };
            if by_platform.insert(platform.clone(), entry).is_some() {
                return Err(Error::refused("index", format!("two of its images are for {platform}")));
            }
        }
        let manifests: Vec<_> = by_platform.into_values().collect();
        let document = Document { schema_version: 2, media_type: INDEX, manifests: &manifests };
        let bytes =
            serde_json::to_vec(&document).map_err(|cause| Error::refused("index", cause.to_string()))?;
        Ok(Self { descriptor: store.put(INDEX, &bytes)?, manifests })
    }

    /// Parses an index; none if the bytes are something else. A document that could be both is refused.
    ///
    /// # Errors
    /// When it is malformed, or one program could read it as an index and another as an image.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Listed {
            manifests: Vec<Descriptor>,
        }
        let refused = |reason: String| Error::refused("manifest", reason);
        let value: Value = serde_json::from_slice(bytes).map_err(|cause| refused(cause.to_string()))?;
        let kind = value.get("mediaType").and_then(Value::as_str).map(str::to_owned);
        let says_index = kind.as_deref().is_some_and(|kind| [INDEX, DOCKER_INDEX].contains(&kind));
        let is_image = value.get("layers").is_some() || value.get("config").is_some();
        match (value.get("manifests").is_some(), is_image) {
            (true, true) => return Err(refused("it is an index and an image at once".to_owned())),
            (true, false) if kind.is_some() && !says_index => {
                return Err(refused(format!("an index of media type `{}`", kind.unwrap_or_default())));
            }
            (false, _) if says_index => return Err(refused("an index without manifests".to_owned())),
            (false, _) => return Ok(None),
            (true, false) => {}
        }
        let listed: Listed = serde_json::from_value(value).map_err(|cause| refused(cause.to_string()))?;
        let descriptor = Descriptor::of(kind.as_deref().unwrap_or(INDEX), bytes);
        Ok(Some(Self { descriptor, manifests: listed.manifests }))
    }

    /// Loads an index from a store.
    ///
    /// # Errors
    /// When it is missing, damaged, or not an index.
    pub fn load(store: &Store, digest: &Digest) -> Result<Self> {
        let bytes = store.read(&store.describe(descriptor::INDEX, digest)?, MAX_MANIFEST)?;
        Self::parse(&bytes)?
            .ok_or_else(|| Error::refused(digest.to_string(), "it is one image, and no index".to_owned()))
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Its entries in their order.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// Its images with their platforms. Other tools list attestations as images for the platform `unknown/unknown`;
    /// they are left out.
    pub fn images(&self) -> impl Iterator<Item = (&Platform, &Descriptor)> {
        let known = self.manifests.iter().filter_map(|entry| Some((entry.platform.as_ref()?, entry)));
        known.filter(|(platform, _)| platform.os != "unknown")
    }

    /// The only image for a platform. `what` is the index's name, for messages.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn choose(&self, platform: &Platform, what: &str) -> Result<Digest> {
        let fitting: Vec<_> = self.images().filter(|(found, _)| found.fits(platform)).collect();
        match fitting[..] {
            [(_, one)] => Ok(one.digest),
            [] => Err(Error::NotFound { what: format!("an image for {platform} in the index of {what}") }),
            _ => Err(Error::refused(what, format!("its index has {} images for {platform}", fitting.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::{Config, RootFs};

    fn image(store: &Store, platform: &str) -> Image {
        let Platform { architecture, os, variant } = platform.parse().unwrap();
        let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() };
        let config = Config { architecture, os, variant, rootfs, ..Config::default() };
        Image::assemble(store, &config, Vec::new()).unwrap()
    }

    #[test]
    fn the_order_of_the_images_does_not_matter_and_each_is_found_by_its_platform() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let [amd64, arm64, arm] =
            ["linux/amd64", "linux/arm64", "linux/arm/v7"].map(|text| image(&store, text));
        let index = Index::assemble(&store, &[&arm, &amd64, &arm64]).unwrap();
        assert_eq!(Index::assemble(&store, &[&arm64, &arm, &amd64]).unwrap(), index);
        assert_eq!(Index::load(&store, &index.digest()).unwrap(), index);
        let listed: Vec<String> = index.images().map(|(platform, _)| platform.to_string()).collect();
        assert_eq!(listed, ["linux/amd64", "linux/arm/v7", "linux/arm64"]);
        let choose = |text: &str| index.choose(&text.parse().unwrap(), "it");
        assert_eq!(choose("linux/arm64").unwrap(), arm64.digest());
        assert_eq!(choose("linux/arm").unwrap(), arm.digest());
        assert!(choose("linux/arm/v6").is_err() && choose("linux/s390x").is_err());
        assert!(Index::assemble(&store, &[&arm, &arm]).is_err());
        assert!(Index::load(&store, &arm.digest()).is_err());
    }

    #[test]
    fn attestations_among_the_images_are_none() {
        let entry = |platform: &str, digest: char| {
            format!(
                r#"{{"mediaType":"{}","digest":"sha256:{}","size":2,"platform":{platform}}}"#,
                descriptor::MANIFEST,
                String::from(digest).repeat(64)
            )
        };
        let (one, other) = (
            entry(r#"{"architecture":"amd64","os":"linux"}"#, 'a'),
            entry(r#"{"architecture":"unknown","os":"unknown"}"#, 'b'),
        );
        let text =
            format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_INDEX}","manifests":[{one},{other}]}}"#);
        let index = Index::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((index.manifests().len(), index.images().count()), (2, 1));
        assert_eq!(index.descriptor().media_type, DOCKER_INDEX);
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for text in [
            r#"{"manifests":[],"layers":[]}"#,
            r#"{"manifests":[],"config":{}}"#,
            r#"{"mediaType":"application/x","manifests":[]}"#,
            r#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#,
            r#"{"manifests":[{"digest":"x"}]}"#,
            "[",
        ] {
            assert!(Index::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Index::parse(br#"{"layers":[]}"#).unwrap(), None);
    }
}
