//! What is attached to an image: signed bundles in the form of cosign 3 (a manifest with a `subject`), and artifacts.
//!
//! Registries with the referrers API list them. For others the index under the tag `sha256-<hex>` does, which the
//! client itself has to maintain (distribution-spec, "Referrers Tag Schema"). Where a registry has neither, statements
//! go where cosign 2 put them: into one manifest under the tag `sha256-<hex>.att`.

mod artifact;
mod attach;
mod budget;
mod carry;
mod envelopes;
mod fallback;
mod gather;
mod lists;
mod referrers;
mod settle;

use attestations::{BUNDLE_MEDIA_TYPE, Digest};

use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::image::Manifest;

pub use attach::Statement;
pub use budget::Budget;
pub use carry::{Carried, Copied, ToCarry};

/// The most manifests that may be listed for one image, of whatever kind. More are an error, since choosing some could
/// miss a veto.
pub const MAX_LISTED: usize = 2048;
/// The most bundles among them.
pub const MAX_BUNDLES: usize = attestations::decision::MAX_EVIDENCE;
/// The most bytes of a bundle.
const MAX_BUNDLE: u64 = attestations::bundle::MAX_BUNDLE as u64;
/// The annotation of a bundle's manifest that says what its statement is.
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
/// How the media types of bundles begin, of every version.
const ANY_BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// Everything that a registry lists for an image. Nothing of it is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// The bundles.
    pub bundles: Vec<Attachment>,
    /// What is listed and not there any more. It may have been a veto.
    pub gone: Vec<Gone>,
    /// What looks like evidence and is not used.
    pub unused: Vec<Unused>,
}

/// A bundle as received, which is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where it was found, for people.
    pub origin: String,
}

/// An entry of a list whose manifest or bundle the registry does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Where it should be, for people.
    pub origin: String,
    /// What the list says it is; a stranger's text.
    pub kind: String,
}

/// What was seen and not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Where it was found, for people.
    pub origin: String,
    /// Why it is not used.
    pub why: Passed,
}

/// Why something that looks like evidence is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Passed {
    /// A manifest of several layers, of which at least one is a bundle.
    #[error("a manifest with several layers: a bundle has to be the only one, or nobody reads it")]
    SeveralLayers,
    /// A manifest that says it is a bundle, and whose layer has another media type.
    #[error(
        "it says that it is a Sigstore bundle, and its layer has another media type ({BUNDLE_MEDIA_TYPE})"
    )]
    LayerType,
    /// A signature in the layout of cosign 2.
    #[error("a signature of cosign 2, which says neither what was reviewed nor how the image was built")]
    Signature,
    /// An attestation in the layout of cosign 2 that a certificate vouches for.
    #[error("an attestation of cosign 2 signed by a certificate: attach it as a bundle")]
    Certificate,
    /// A layer among the attestations of cosign 2 that is none.
    #[error("a layer among the attestations of cosign 2 that is no signed envelope")]
    NoEnvelope,
    /// A signature of Notary.
    #[error("a Notary signature, which says neither what was reviewed nor how the image was built")]
    Notary,
}

/// Where statements were listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// By the registry itself.
    ByRegistry,
    /// Under the tag `sha256-<hex>`, since the registry has no referrers API.
    UnderTag,
    /// Under the tag of cosign 2, since the registry has no referrers API and keeps no such tag.
    Envelopes,
}

/// Whether a media type is that of a bundle.
fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with(ANY_BUNDLE)
}

/// The bundle of a manifest that has it as its only layer, as it has to be.
fn only_bundle(manifest: &Manifest) -> Option<&Descriptor> {
    match &manifest.layers[..] {
        [layer] if is_bundle(&layer.media_type) => Some(layer),
        _ => None,
    }
}

fn too_many(what: &str, count: usize, most: usize) -> Error {
    Error::TooMany { what: what.to_owned(), count, most }
}

/// Adds what is not listed yet.
fn join(found: &mut Vec<Descriptor>, more: Vec<Descriptor>) {
    let known: std::collections::BTreeSet<Digest> = found.iter().map(|entry| entry.digest).collect();
    found.extend(more.into_iter().filter(|entry| !known.contains(&entry.digest)));
}

fn check_listed(subject: &attestations::Pinned, count: usize) -> Result<()> {
    match count > MAX_LISTED {
        true => Err(too_many(&format!("attachments of {subject}"), count, MAX_LISTED)),
        false => Ok(()),
    }
}
