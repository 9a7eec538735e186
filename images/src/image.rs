//! Manifest and config of an image (OCI image-spec `manifest.md`, `config.md`), read strictly and written the same way always.

use std::collections::BTreeMap;

use attestations::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::store::Store;

/// The most bytes of a manifest or index (the limit of distribution-spec's registries).
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The most bytes of a config.
pub(crate) const MAX_CONFIG: u64 = 4 << 20;
/// The most layers of an image; overlayfs itself takes 500.
pub const MAX_LAYERS: usize = 400;

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Which kind of manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact, when it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, from the lowest.
    pub layers: Vec<Descriptor>,
    /// What this is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// The manifest of an image.
    pub fn image(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let media_type = Some(descriptor::MANIFEST.to_owned());
        Self {
            schema_version: 2,
            media_type,
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Its bytes; the same for the same manifest.
    ///
    /// # Errors
    /// Never for values that can be made here.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|cause| Error::refused("manifest", cause.to_string()))
    }
}

/// A config. Fields that are not known here are kept as they are, so that a base loses nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// When, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor.
    pub architecture: String,
    /// The operating system.
    pub os: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How to run it.
    #[serde(default)]
    pub config: Execution,
    /// Its layers by what they unpack to.
    pub rootfs: RootFs,
    /// How it came to be, by the builder's own word.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// What else was there.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How to run an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// As whom.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// Ports it means to listen on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// The environment, `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or what runs when there is no entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Folders meant for volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// What else was there: `Healthcheck`, `OnBuild`, `Shell`.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers by what they unpack to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the uncompressed archives, from the lowest.
    pub diff_ids: Vec<Digest>,
}

/// One step of how an image came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// Its bytes; the same for the same config.
    ///
    /// # Errors
    /// Never for values that can be made here.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|cause| Error::refused("config", cause.to_string()))
    }

    /// The platform it is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// An image whose manifest and config are in a store, well formed and fitting each other.
#[derive(Debug, Clone)]
pub struct Image {
    manifest: Descriptor,
    layers: Vec<Descriptor>,
    config_descriptor: Descriptor,
    config: Config,
}

impl Image {
    /// Reads the image with this manifest. Its layers need not be here yet.
    ///
    /// # Errors
    /// When manifest or config are missing, too large, of a foreign kind, or do not fit each other.
    pub fn load(store: &Store, manifest: &Digest) -> Result<Self> {
        let descriptor = store.describe(descriptor::MANIFEST, manifest)?;
        let parsed = parse_manifest(&store.read(&descriptor, MAX_MANIFEST)?)?;
        let config_bytes = store.read(&parsed.config, MAX_CONFIG)?;
        let media_type = parsed.media_type.clone().unwrap_or_else(|| descriptor::MANIFEST.to_owned());
        Self::new(Descriptor { media_type, ..descriptor }, parsed, &config_bytes)
    }

    fn new(manifest: Descriptor, parsed: Manifest, config_bytes: &[u8]) -> Result<Self> {
        let what = format!("image {}", manifest.digest);
        let config: Config = serde_json::from_slice(config_bytes)
            .map_err(|cause| Error::refused(&what, format!("its config: {cause}")))?;
        if config.rootfs.kind != "layers" {
            return Err(Error::refused(
                what,
                format!("its rootfs is of type `{}`, not `layers`", config.rootfs.kind),
            ));
        }
        if config.rootfs.diff_ids.len() != parsed.layers.len() {
            let (named, held) = (config.rootfs.diff_ids.len(), parsed.layers.len());
            return Err(Error::refused(
                what,
                format!("its config names {named} layers, its manifest {held}"),
            ));
        }
        Ok(Self { manifest, layers: parsed.layers, config_descriptor: parsed.config, config })
    }

    /// Stores a config and the manifest that joins it with its layers.
    ///
    /// # Errors
    /// When they do not fit, or cannot be written.
    pub fn assemble(store: &Store, config: &Config, layers: Vec<Descriptor>) -> Result<Self> {
        let config_bytes = config.to_bytes()?;
        let config_descriptor = store.put(descriptor::CONFIG, &config_bytes)?;
        let parsed = Manifest::image(config_descriptor, layers);
        let manifest = store.put(descriptor::MANIFEST, &parsed.to_bytes()?)?;
        Self::new(manifest, parsed, &config_bytes)
    }

    /// The manifest's descriptor.
    pub fn manifest(&self) -> &Descriptor {
        &self.manifest
    }

    /// The manifest's digest, by which the image is known.
    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }

    /// The layers' blobs, from the lowest.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The layers by what they unpack to, from the lowest.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The config's descriptor; its digest is what Docker calls the image's id.
    pub fn config_descriptor(&self) -> &Descriptor {
        &self.config_descriptor
    }
}

/// Parses the manifest of an image, and refuses every other kind by name.
///
/// # Errors
/// When it is an index, schema 1, of a foreign media type, or malformed.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest> {
    let refused = |reason: String| Error::refused("manifest", reason);
    let value: Value = serde_json::from_slice(bytes).map_err(|cause| refused(cause.to_string()))?;
    match value.get("schemaVersion").and_then(Value::as_u64) {
        Some(2) => {}
        Some(1) => return Err(schema_1()),
        _ => return Err(refused("its `schemaVersion` is not 2".to_owned())),
    }
    // Without this, one document could be read as a manifest by one program and as an index by another.
    if value.get("manifests").is_some() {
        return Err(refused(
            "this is an index of several images, where the manifest of one is wanted".to_owned(),
        ));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|cause| refused(cause.to_string()))?;
    let known = |kind: &str, allowed: &[&str]| {
        allowed.contains(&kind).then_some(()).ok_or_else(|| refused(unknown(kind)))
    };
    if let Some(kind) = &manifest.media_type {
        known(kind, &[descriptor::MANIFEST, descriptor::DOCKER_MANIFEST])?;
    }
    known(&manifest.config.media_type, &[descriptor::CONFIG, descriptor::DOCKER_CONFIG])?;
    for layer in &manifest.layers {
        known(
            &layer.media_type,
            &[descriptor::LAYER, descriptor::LAYER_GZIP, descriptor::LAYER_ZSTD, descriptor::DOCKER_LAYER],
        )?;
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(refused(format!("{} layers: {MAX_LAYERS} are the most", manifest.layers.len())));
    }
    Ok(manifest)
}

/// Refuses Docker's first kind of manifest by its media types: the plain one and the two signed ones.
///
/// # Errors
/// When it is that.
pub(crate) fn refuse_schema_1(media_type: &str) -> Result<()> {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    match kind.strip_prefix("application/vnd.docker.distribution.manifest.v1+") {
        Some("json" | "prettyjws" | "jws") => Err(schema_1()),
        _ => Ok(()),
    }
}

fn schema_1() -> Error {
    let reason = "schema 1 of Docker's manifests names its layers by nothing that can be verified; push the image again \
                  with a current client";
    Error::refused("manifest", reason)
}

/// Why a media type is refused.
fn unknown(kind: &str) -> String {
    let foreign = kind.contains("foreign") || kind.contains("nondistributable");
    match (foreign, kind) {
        (true, _) => format!(
            "a layer of media type `{kind}` is not in the registry but at a URL that the manifest names, and nothing is \
             fetched from there: base the image on one whose layers may be distributed"
        ),
        (_, kind) if kind.ends_with("+encrypted") => {
            format!("a layer of media type `{kind}` is encrypted: use an image that is not")
        }
        _ => format!("the media type `{kind}` is not known here"),
    }
}

/// Docker writes `null` for what is empty.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
