//! The layout of cosign 2: one manifest under a tag of the image's digest, in which each layer is a signed envelope
//! (`.att`) or a signature (`.sig`).
//!
//! Attestations signed by a key are read, and written where a registry has neither the referrers API nor the tag for
//! it. An envelope holds all that a key's signature needs; the hint which key it was is lost, and is not needed.

use attestations::{BUNDLE_MEDIA_TYPE, Digest, Pinned};
use serde_json::{Value, json};

use super::super::client::{Client, Fetched};
use super::Passed;
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Result};
use crate::image::Manifest;

/// The end of the tag of attestations.
pub(super) const ATTESTATIONS: &str = "att";
/// The end of the tag of signatures.
pub(super) const SIGNATURES: &str = "sig";
/// A DSSE envelope.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// A certificate beside an envelope.
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// The signature beside a layer, which is empty for an envelope.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

impl Client {
    /// The layers under one of the two tags. What is no manifest of an image holds none.
    pub(super) async fn envelopes(&self, subject: &Pinned, end: &str) -> Result<Vec<Descriptor>> {
        let Some(Fetched { bytes, .. }) =
            self.tagged(subject, &tag(subject, end), descriptor::MANIFEST).await?
        else {
            return Ok(Vec::new());
        };
        let is_itself = Digest::of(&bytes) == *subject.digest();
        Ok(match serde_json::from_slice::<Manifest>(&bytes) {
            Ok(manifest) if !is_itself => manifest.layers,
            Ok(_) | Err(_) => Vec::new(),
        })
    }
}

/// `sha256-<hex>.att` or `.sig`.
pub(super) fn tag(subject: &Pinned, end: &str) -> String {
    format!("sha256-{}.{end}", subject.digest().hex())
}

/// Whether a layer is an attestation that a key signed.
pub(super) fn is_attestation(layer: &Descriptor) -> std::result::Result<(), Passed> {
    match () {
        () if layer.media_type != ENVELOPE => Err(Passed::NoEnvelope),
        () if layer.annotations.contains_key(CERTIFICATE) => Err(Passed::Certificate),
        () => Ok(()),
    }
}

/// The bundle that an envelope comes to. What is no JSON stays as it is, so that its reader says why it cannot be read.
pub(super) fn to_bundle(envelope: Vec<u8>) -> Vec<u8> {
    let Ok(value) = serde_json::from_slice::<Value>(&envelope) else { return envelope };
    let bundle = json!({
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": { "publicKey": { "hint": "" } },
        "dsseEnvelope": value,
    });
    bundle.to_string().into_bytes()
}

/// The envelope of a bundle that a key signed, as a layer and its bytes.
///
/// # Errors
/// When the bundle is of another form.
pub(super) fn of_bundle(bundle: &[u8], predicate_type: &str) -> Result<(Descriptor, Vec<u8>)> {
    let refused = |reason: &str| Error::refused("bundle", reason);
    let mut value: Value = serde_json::from_slice(bundle).map_err(|cause| refused(&cause.to_string()))?;
    if value.pointer("/verificationMaterial/publicKey").is_none() {
        return Err(refused("only what a key signed can be attached in the layout of cosign 2"));
    }
    let envelope = value.get_mut("dsseEnvelope").map(Value::take).ok_or_else(|| refused("no envelope"))?;
    let bytes = envelope.to_string().into_bytes();
    let annotations = [(SIGNATURE, ""), ("predicateType", predicate_type)];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok((Descriptor { annotations: annotations.into(), ..Descriptor::of(ENVELOPE, &bytes) }, bytes))
}

/// The manifest of these layers and its config, which names each as if it were a layer of files: cosign 2 reads it so.
pub(super) fn manifest(layers: Vec<Descriptor>) -> (Manifest, Vec<u8>) {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "architecture": "",
        "config": {},
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string().into_bytes();
    let described = Descriptor::of(descriptor::CONFIG, &config);
    (Manifest::image(described, layers), config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_envelope_comes_back_as_the_same_signed_bytes() {
        let bundle = br#"{"mediaType":"x","verificationMaterial":{"publicKey":{"hint":"k"}},"dsseEnvelope":{"payload":"e30=","payloadType":"t","signatures":[{"sig":"AA=="}]}}"#;
        let (layer, envelope) = of_bundle(bundle, "https://example.org/p").unwrap();
        assert!(is_attestation(&layer).is_ok());
        let back: Value = serde_json::from_slice(&to_bundle(envelope)).unwrap();
        let before: Value = serde_json::from_slice(bundle).unwrap();
        assert_eq!(back["dsseEnvelope"], before["dsseEnvelope"]);
        let certified = Descriptor { annotations: [(CERTIFICATE.to_owned(), String::new())].into(), ..layer };
        assert_eq!(is_attestation(&certified), Err(Passed::Certificate));
        assert_eq!(is_attestation(&Descriptor::of("text/plain", b"")), Err(Passed::NoEnvelope));
        for other in [&b"["[..], b"{}", br#"{"verificationMaterial":{"publicKey":{}}}"#] {
            assert!(of_bundle(other, "p").is_err());
        }
    }
}
