//! Base images: from an OCI image layout or a registry into the build's own store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use attestations::provenance::RecordedBase;
use attestations::{Digest, Pinned, Reference};
use images::descriptor::{DOCKER_INDEX, DOCKER_LAYER, INDEX, LAYER_GZIP};
use images::{Descriptor, Image, Index, Platform, Store};

use crate::error::{Error, Kind, Result};
use crate::progress::{Direction, Event};
use crate::project::{Project, as_docker_reads, is_same_base, said_of_base};
use crate::workspace::Workspace;

/// A base in the store.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Its name in the Dockerfile.
    pub(crate) asked: String,
    /// Its origin, for the provenance.
    pub(crate) uri: String,
    /// Who chose it.
    pub(crate) origin: BaseOrigin,
    /// The index that it was chosen from by its platform, where it was.
    pub(crate) index: Option<Digest>,
    /// The image.
    pub(crate) image: Image,
}

/// Who chose a base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseOrigin {
    /// The tree, by a digest.
    Pinned,
    /// The tree, by a name that was looked up where it says.
    Named,
    /// The caller: another place, for a name without a digest.
    Given,
    /// An earlier build, whose provenance says which.
    Recorded,
}

/// A source of images in registries; a trait so that tests need no registry.
pub(crate) trait Registry {
    /// The digest that a reference (a tag or a digest) stands for now, for a platform.
    ///
    /// # Errors
    /// When the registry does not know it or cannot be reached, or has no image for the platform.
    fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Digest>;
    /// Pulls an image into the store.
    ///
    /// # Errors
    /// When the registry does not have it or cannot be reached.
    fn pull(&self, pinned: &Pinned, store: &Store) -> Result<Image>;
}

/// Where the bases of a build come from.
pub(crate) struct Bases<'a> {
    /// `--base NAME=WHERE`.
    pub(crate) given: &'a BTreeMap<String, String>,
    /// The repository's own pins.
    pub(crate) project: &'a Project,
    /// The digests and origins that must be used, by the name in the Dockerfile, for a rebuild or a locked build.
    pub(crate) recorded: Option<&'a BTreeMap<String, RecordedBase>>,
    /// The registries.
    pub(crate) registry: &'a dyn Registry,
    /// The platform to build for.
    pub(crate) platform: &'a Platform,
    /// Where progress is reported.
    pub(crate) workspace: &'a Workspace,
}

impl Bases<'_> {
    /// Brings the base that the Dockerfile calls `name` into `store`.
    ///
    /// # Errors
    /// When it is not known or cannot be fetched, or cannot be built upon.
    pub(crate) fn get(&self, name: &str, store: &Store) -> Result<Base> {
        let moving = self.workspace.progress().moving(Direction::In, name);
        let base = self.fetch(name, store).map_err(|error| of_base(name, error))?;
        let (bytes, seconds) = moving.done();
        self.workspace.report(&Event::BaseFetched {
            name,
            uri: &base.uri,
            digest: base.image.digest(),
            size: base.image.layers().iter().fold(0, |sum, layer| layer.size.saturating_add(sum)),
            bytes,
            seconds,
        });
        self.refuse_contradiction(&base)?;
        if let Some(recorded) = self.recorded {
            let digest = &recorded.get(name).ok_or_else(|| not_recorded(name))?.digest;
            if base.image.digest() != *digest {
                let found = base.image.digest();
                return Err(Error::new(
                    Kind::NotFound,
                    format!("the base {name} given here is {found}, and the provenance names {digest}"),
                )
                .hint("give the image with that digest"));
            }
        }
        self.check(&base)?;
        Ok(base)
    }

    /// Refuses a `--base` whose name none of `names` is.
    ///
    /// # Errors
    /// When there is one.
    pub(crate) fn refuse_unused(&self, names: &BTreeSet<String>) -> Result<()> {
        let is_used = |given: &&String| names.iter().any(|name| name == *given || is_same_base(given, name));
        // Of a Dockerfile without bases, none can have been meant by another name.
        let unused = self.given.keys().find(|given| !is_used(given)).filter(|_| !names.is_empty());
        let Some(unused) = unused else { return Ok(()) };
        Err(Error::new(Kind::Usage, format!("--base {unused}: the Dockerfile has no base of that name"))
            .details(names.iter().map(|name| format!("it has {name}")).collect())
            .hint("name one of them, as --base NAME=FOLDER or --base NAME=REFERENCE"))
    }

    /// Where the caller says that a base is.
    fn given(&self, name: &str) -> Option<&String> {
        said_of_base(self.given, name)
    }

    fn fetch(&self, name: &str, store: &Store) -> Result<Base> {
        let given = self.given(name).is_some();
        let origin = match (self.pinned_digest(name), self.recorded, given) {
            (Some(_), ..) => BaseOrigin::Pinned,
            (None, Some(_), _) => BaseOrigin::Recorded,
            (None, None, true) => BaseOrigin::Given,
            (None, None, false) => BaseOrigin::Named,
        };
        let base = |uri: String, image, index| Base { asked: name.to_owned(), uri, origin, index, image };
        if let Some(place) = self.given(name) {
            let folder = Path::new(place.strip_prefix("oci:").unwrap_or(place));
            if folder.is_dir() {
                let (image, index) = from_layout(folder, self.platform, store)?;
                return Ok(base(format!("oci-layout:{name}"), image, index));
            }
        }
        if let Some(known) = self.recorded.and_then(|recorded| recorded.get(name))
            && self.given(name).is_none()
        {
            let pinned = recorded_place(name, known)?;
            return Ok(base(registry_uri(&pinned), self.registry.pull(&pinned, store)?, known.index));
        }
        let (pinned, index) = match (self.given(name), self.project.base(name)) {
            (Some(place), _) => self.pin(place, store)?,
            (None, Some(pinned)) => self.pin(&pinned.to_string(), store)?,
            (None, None) => self.pin(name, store)?,
        };
        let image = self.registry.pull(&pinned, store)?;
        Ok(base(registry_uri(&pinned), image, index))
    }

    /// The digest that the tree gives a base: in the Dockerfile's name of it, or in countersign.toml.
    fn pinned_digest(&self, name: &str) -> Option<Digest> {
        let named = name.parse::<Reference>().ok().and_then(|reference| reference.digest().copied());
        named.or_else(|| self.project.base(name).map(|pinned| *pinned.digest()))
    }

    /// Refuses a base that was mapped to another one than the reviewed tree pins.
    fn refuse_contradiction(&self, base: &Base) -> Result<()> {
        let Some(pinned) = self.pinned_digest(&base.asked) else { return Ok(()) };
        let found = base.image.digest();
        if found == pinned || base.index == Some(pinned) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Refused,
            format!("the commit pins the base {} to {pinned}, and what was given is {found}", base.asked),
        )
        .hint("give the image with that digest, or change the pin in a commit and have that reviewed"))
    }

    /// Pins the base to a digest; for an index, that of the image for this platform, and the index's own.
    fn pin(&self, text: &str, store: &Store) -> Result<(Pinned, Option<Digest>)> {
        let bad = |cause| {
            Error::new(Kind::NotFound, format!("the base {text} is neither a folder nor an image reference"))
                .hint("give --base NAME=FOLDER or --base NAME=REFERENCE")
                .because(cause)
        };
        let reference = as_docker_reads(text).map_err(bad)?;
        let digest = match reference.digest() {
            // An image that is already in the store need not be looked up.
            Some(digest) if Image::load(store, digest).is_ok() => *digest,
            _ => self.registry.resolve(&reference, self.platform)?,
        };
        let index = reference.digest().copied().filter(|named| *named != digest);
        Ok((reference.repository().clone().pin(digest), index))
    }

    fn check(&self, base: &Base) -> Result<()> {
        let found = base.image.config().platform();
        if !found.fits(self.platform) {
            return Err(Error::new(
                Kind::Input,
                format!("the base {} is for {found}, and this build is for {}", base.asked, self.platform),
            )
            .hint("give a base for that platform, or build for the base's with --platform"));
        }
        Ok(())
    }
}

/// The same error with the base's name.
pub(crate) fn of_base(name: &str, error: Error) -> Error {
    let text = error.to_string();
    let error = match error.kind() {
        Kind::Network => {
            let way_out = format!(
                "--base {name}=FOLDER|REFERENCE takes it from elsewhere, --mirror asks another server"
            );
            let hint = error.hint_text().map_or(way_out.clone(), |hint| format!("{hint}; {way_out}"));
            error.hint(hint)
        }
        _ => error,
    };
    if text.contains(name) {
        return error;
    }
    let named =
        Error::new(error.kind(), format!("the base {name}: {text}")).details(error.detail_lines().to_vec());
    match error.hint_text().map(str::to_owned) {
        Some(hint) => named.because(error).hint(hint),
        None => named.because(error),
    }
}

fn not_recorded(name: &str) -> Error {
    Error::new(Kind::Input, format!("the provenance names no base {name}"))
        .hint("the Dockerfile of that commit uses it, so the provenance is not of this build")
}

fn registry_uri(pinned: &Pinned) -> String {
    format!("oci://{pinned}")
}

fn recorded_place(name: &str, recorded: &RecordedBase) -> Result<Pinned> {
    let RecordedBase { uri, digest, .. } = recorded;
    let place = uri.strip_prefix("oci://").and_then(|text| text.parse::<Reference>().ok());
    let pinned = place.and_then(|reference| reference.pin(*digest).ok());
    pinned.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("the base {name}, {digest}, was not taken from a registry"))
            .hint(format!("give it with --base {name}=FOLDER or --base {name}=REPOSITORY@{digest}"))
    })
}

/// The image of a layout for a platform, and the index of the layout that lists it, where one does.
fn from_layout(folder: &Path, platform: &Platform, store: &Store) -> Result<(Image, Option<Digest>)> {
    let layout = Store::open_existing(folder)?;
    let digest = in_layout(&layout, platform)?;
    let index = layout.manifests()?.into_iter().map(|entry| entry.digest).find(|listed| {
        *listed != digest
            && Index::load(&layout, listed)
                .is_ok_and(|it| it.manifests().iter().any(|entry| entry.digest == digest))
    });
    let image = Image::load(&layout, &digest)?;
    copy_blobs(&layout, store, image.layers())?;
    Ok((image, index))
}

/// The only image for a platform in a layout, listed there directly or by an index.
///
/// # Errors
/// When there is none, or more than one.
pub(crate) fn in_layout(layout: &Store, platform: &Platform) -> Result<Digest> {
    let fits = |entry: &Descriptor| entry.platform.as_ref().is_none_or(|found| found.fits(platform));
    let listed: Vec<Descriptor> = layout.manifests()?.into_iter().filter(fits).collect();
    let place = layout.root().display();
    match listed.as_slice() {
        [index] if [INDEX, DOCKER_INDEX].contains(&index.media_type.as_str()) => {
            Index::load(layout, &index.digest)
                .and_then(|it| it.choose(platform, &place.to_string()))
                .map_err(Error::from)
        }
        [image] => Ok(image.digest),
        several => {
            let digests = several.iter().map(|found| found.digest.to_string()).collect();
            let what = format!("{place} has {} images for {platform}, and one is wanted", several.len());
            Err(Error::new(Kind::NotFound, what)
                .details(digests)
                .hint("copy the one that is meant into a layout of its own"))
        }
    }
}

/// Copies blobs between stores in order, each verified while it is copied.
///
/// # Errors
/// When one is missing, does not match its descriptor, or cannot be written.
pub(crate) fn copy_blobs<'a>(
    from: &Store,
    to: &Store,
    blobs: impl IntoIterator<Item = &'a Descriptor>,
) -> Result<()> {
    for blob in blobs.into_iter().filter(|blob| !to.contains(&blob.digest)) {
        let mut reader = from.open_blob(blob)?;
        let mut writer = to.writer()?;
        std::io::copy(&mut reader, &mut writer).map_err(|cause| match cause.downcast::<images::Error>() {
            // The reader's own error says what is wrong with the blob.
            Ok(ours) => Error::from(ours),
            Err(cause) => Error::io("copying a blob into", to.root(), cause),
        })?;
        writer.commit_as(blob)?;
    }
    Ok(())
}

/// A base's layer in this build's manifest: the same blob, with the OCI media type for its compression.
pub(crate) fn layer_of_base(layer: &Descriptor) -> Descriptor {
    let media_type = if layer.media_type == DOCKER_LAYER { LAYER_GZIP } else { &layer.media_type };
    Descriptor::new(media_type, layer.digest, layer.size)
}
