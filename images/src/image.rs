//! Manifest and config of an image (OCI image-spec `manifest.md`, `config.md`): parsed strictly, and written in one
//! form.

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
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The artifact type, if it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, from the lowest.
    pub layers: Vec<Descriptor>,
    /// The manifest that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
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

    /// Its bytes; equal manifests have equal bytes.
    ///
    /// # Errors
    /// Never for a manifest built from this type's values.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|cause| Error::refused("manifest", cause.to_string()))
    }
}

/// A config. Unknown fields are kept unchanged, so that those of a base are not lost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The creation time, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor.
    pub architecture: String,
    /// The operating system.
    pub os: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The execution parameters.
    #[serde(default)]
    pub config: Execution,
    /// Its layers by diff ID.
    pub rootfs: RootFs,
    /// How it was made, according to its builder.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Unknown fields.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The execution parameters of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// The user.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// The exposed ports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// The environment, `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the command if there is no entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// The volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Value>,
    /// The working directory.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Unknown fields, and `Healthcheck`, `OnBuild` and `Shell`.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers by diff ID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the uncompressed archives, from the lowest.
    pub diff_ids: Vec<Digest>,
}

/// A step of the image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// Its bytes; equal configs have equal bytes.
    ///
    /// # Errors
    /// Never for a config built from this type's values.
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

/// An image whose manifest and config are in a store, valid and consistent.
#[derive(Debug, Clone)]
pub struct Image {
    manifest: Descriptor,
    layers: Vec<Descriptor>,
    config_descriptor: Descriptor,
    config: Config,
}

impl Image {
    /// Loads the image with this manifest. Its layers may be missing from the store.
    ///
    /// # Errors
    /// When manifest or config are missing, too large, of an unsupported kind, or inconsistent.
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

    /// Stores a config and the manifest that combines it with its layers.
    ///
    /// # Errors
    /// When they are inconsistent, or cannot be written.
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

    /// The manifest's digest, which identifies the image.
    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }

    /// The layers' blobs, from the lowest.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The layers by diff ID, from the lowest.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The config's descriptor; its digest is Docker's image id.
    pub fn config_descriptor(&self) -> &Descriptor {
        &self.config_descriptor
    }
}

/// Parses the manifest of an image, and refuses every other kind with its name.
///
/// # Errors
/// When it is an index, schema 1, of an unsupported media type, or malformed.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest> {
    let refused = |reason: String| Error::refused("manifest", reason);
    let value: Value = serde_json::from_slice(bytes).map_err(|cause| refused(cause.to_string()))?;
    match value.get("schemaVersion").and_then(Value::as_u64) {
        Some(2) => {}
        Some(1) => return Err(schema_1()),
        _ => return Err(refused("its `schemaVersion` is not 2".to_owned())),
    }
    // Otherwise one program could read the document as a manifest and another as an index.
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

/// Refuses Docker's manifest schema 1 by its media types: the plain one and the two signed ones.
///
/// # Errors
/// When it is one of them.
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

/// Docker writes `null` for empty values.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
