//! Copying an image with everything that is attached to it: from a registry into a store, and from a store into a
//! registry.
//!
//! Other programs leave evidence behind, or know only one of the places where it may be. Here each list is read, and
//! what is in the store is attached anew, wherever the other registry keeps such things.

use std::collections::BTreeMap;
use std::io;

use attestations::{Digest, Pinned, Reference, Repository};

use super::super::client::{Client, Named};
use super::lists::{self, List};
use super::settle::Settled;
use super::{Listed, envelopes, is_bundle};
use crate::descriptor::{self, Descriptor, EMPTY, INDEX, MANIFEST};
use crate::error::{At, Error, Result};
use crate::image::{Image, MAX_MANIFEST, Manifest};
use crate::index::Index;
use crate::store::Store;

/// An image, or an index of several, with what is attached to them; all of it is in a store.
#[derive(Debug, Clone)]
pub struct Carried {
    top: Top,
    images: Vec<CarriedImage>,
}

#[derive(Debug, Clone)]
enum Top {
    /// The only image, by the descriptor of its manifest.
    Image(Descriptor),
    Index(Index),
}

/// One image, with what is attached to it.
#[derive(Debug, Clone)]
struct CarriedImage {
    image: Image,
    /// The manifests that are attached, as a list names them.
    attached: Vec<Descriptor>,
    /// The layers in the layout of cosign 2, by the end of their tag.
    envelopes: BTreeMap<&'static str, Vec<Descriptor>>,
}

/// How much of what is attached is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToCarry {
    /// All of it.
    Everything,
    /// Signed statements alone.
    Evidence,
}

/// What became of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many manifests and envelopes were attached.
    pub attached: usize,
    /// Whether some of them are where cosign 2 puts them.
    pub as_envelopes: bool,
    /// What could not be attached there, and why.
    pub left: Vec<String>,
}

/// The tags of cosign 2 that are copied.
const ENDS: [(&str, List); 2] =
    [(envelopes::ATTESTATIONS, List::Envelopes), (envelopes::SIGNATURES, List::Signatures)];

impl Carried {
    /// The digest of the image, or of the index.
    pub fn digest(&self) -> Digest {
        self.descriptor().digest
    }

    /// The images.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().map(|one| &one.image)
    }

    /// How many manifests and envelopes are attached to them.
    pub fn count(&self) -> usize {
        let of_one =
            |one: &CarriedImage| one.attached.len() + one.envelopes.values().map(Vec::len).sum::<usize>();
        self.images.iter().map(of_one).sum()
    }

    /// Checks that everything is in the store; what is there was checked against its digest when it came there.
    ///
    /// # Errors
    /// When something is missing.
    pub fn check(&self, store: &Store) -> Result<()> {
        for one in &self.images {
            let layers = one.image.layers().iter().chain(one.envelopes.values().flatten());
            layers.chain([one.image.config_descriptor()]).try_for_each(|blob| present(blob, store))?;
            for entry in &one.attached {
                let manifest = parsed(&store.read(entry, MAX_MANIFEST)?)?;
                manifest.layers.iter().try_for_each(|blob| present(blob, store))?;
            }
        }
        Ok(())
    }

    /// The bundles that are attached to each image; nothing of them is verified.
    ///
    /// # Errors
    /// When one is missing, damaged or too large.
    pub fn bundles(&self, store: &Store) -> Result<Vec<(Digest, Vec<Vec<u8>>)>> {
        self.images.iter().map(|one| Ok((one.image.digest(), one.bundles(store)?))).collect()
    }

    /// Copies everything into another store, each blob checked.
    ///
    /// # Errors
    /// When something is missing or damaged, or the other store cannot be written.
    pub fn copy_blobs(&self, from: &Store, to: &Store) -> Result<()> {
        for one in &self.images {
            let image =
                one.image.layers().iter().chain([one.image.config_descriptor(), one.image.manifest()]);
            image.chain(one.envelopes.values().flatten()).try_for_each(|blob| copy(blob, from, to))?;
            for entry in &one.attached {
                let manifest = parsed(&from.read(entry, MAX_MANIFEST)?)?;
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    copy(blob, from, to)?;
                }
                copy(entry, from, to)?;
            }
        }
        match &self.top {
            Top::Image(_) => Ok(()),
            Top::Index(index) => copy(index.descriptor(), from, to),
        }
    }

    fn descriptor(&self) -> &Descriptor {
        match &self.top {
            Top::Index(index) => index.descriptor(),
            Top::Image(manifest) => manifest,
        }
    }

    /// Names everything in the layout of the store that it is in, so that it is found there again, also by others: the
    /// image by `name`, what is attached by its manifests, and the lists by their tags.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn name_in(&self, store: &Store, name: &str) -> Result<()> {
        for one in &self.images {
            let subject = one.image.digest();
            if !one.attached.is_empty() {
                let list = store.put(INDEX, &lists::index(&one.attached))?;
                store.set_ref(&format!("sha256-{}", subject.hex()), &list)?;
            }
            for (end, layers) in &one.envelopes {
                let (manifest, config) = envelopes::manifest(layers.clone());
                store.put(descriptor::CONFIG, &config)?;
                let manifest = store.put(MANIFEST, &manifest.to_bytes()?)?;
                store.set_ref(&format!("sha256-{}.{end}", subject.hex()), &manifest)?;
            }
        }
        store.set_ref(name, self.descriptor())
    }

    /// Finds an image in a layout, with what is attached to it there. Without a name, the layout has to have only one.
    ///
    /// # Errors
    /// When there is none, or something of it is missing or damaged.
    pub fn find_in(store: &Store, name: Option<&str>) -> Result<Self> {
        let (mut named, mut loose) = (BTreeMap::new(), Vec::new());
        for entry in store.manifests()? {
            match Store::name_of(&entry).map(str::to_owned) {
                Some(name) => drop(named.insert(name, Descriptor { annotations: BTreeMap::new(), ..entry })),
                None => loose.push(entry),
            }
        }
        let what = || format!("the layout in {}", store.root().display());
        let mut candidates = named.iter().filter(|(known, _)| match name {
            Some(name) => name == known.as_str(),
            None => !known.starts_with("sha256-"),
        });
        let (_, top) = candidates
            .next()
            .ok_or_else(|| Error::NotFound { what: format!("an image of this name in {}", what()) })?;
        if candidates.next().is_some() {
            return Err(Error::refused(what(), "it has several images: say which, as oci:FOLDER:NAME"));
        }
        let bytes = store.read(top, MAX_MANIFEST)?;
        let (top, digests) = match Index::parse(&bytes)? {
            None => (Top::Image(top.clone()), vec![top.digest]),
            Some(index) => {
                let digests = index.images().map(|(_, entry)| entry.digest).collect();
                (Top::Index(index), digests)
            }
        };
        let images = digests.into_iter().map(|digest| CarriedImage::find_in(store, &digest, &named, &loose));
        Ok(Self { top, images: images.collect::<Result<_>>()? })
    }
}

impl CarriedImage {
    fn bundles(&self, store: &Store) -> Result<Vec<Vec<u8>>> {
        let mut bundles = Vec::new();
        for entry in &self.attached {
            let manifest = parsed(&store.read(entry, MAX_MANIFEST)?)?;
            if let Some(layer) = super::only_bundle(&manifest) {
                bundles.push(store.read(layer, super::MAX_BUNDLE)?);
            }
        }
        let attestations = self.envelopes.get(envelopes::ATTESTATIONS).into_iter().flatten();
        for layer in attestations.filter(|layer| envelopes::is_attestation(layer).is_ok()) {
            bundles.push(envelopes::to_bundle(store.read(layer, super::MAX_BUNDLE)?));
        }
        Ok(bundles)
    }

    /// Other programs have no list in a layout: they put what is attached into its index, without a name.
    fn find_in(
        store: &Store,
        digest: &Digest,
        named: &BTreeMap<String, Descriptor>,
        loose: &[Descriptor],
    ) -> Result<Self> {
        let image = Image::load(store, digest)?;
        let mut attached = Vec::new();
        if let Some(list) = named.get(&format!("sha256-{}", digest.hex())) {
            let index = Index::parse(&store.read(list, MAX_MANIFEST)?)?;
            attached.extend(index.iter().flat_map(|index| index.manifests().iter().cloned()));
        }
        for entry in loose.iter().filter(|entry| entry.media_type == MANIFEST) {
            let manifest = parsed(&store.read(entry, MAX_MANIFEST)?)?;
            let is_listed = attached.iter().any(|known: &Descriptor| known.digest == entry.digest);
            if manifest.subject.is_some_and(|it| it.digest == *digest) && !is_listed {
                attached.push(Descriptor { artifact_type: manifest.artifact_type, ..entry.clone() });
            }
        }
        let mut found = BTreeMap::new();
        for (end, _) in ENDS {
            if let Some(entry) = named.get(&format!("sha256-{}.{end}", digest.hex())) {
                let manifest: Manifest = parsed(&store.read(entry, MAX_MANIFEST)?)?;
                found.insert(end, manifest.layers);
            }
        }
        Ok(Self { image, attached, envelopes: found })
    }
}

fn present(blob: &Descriptor, store: &Store) -> Result<()> {
    match store.describe(&blob.media_type, &blob.digest)?.size == blob.size {
        true => Ok(()),
        false => Err(Error::refused(blob.digest.to_string(), "it has another size than is said of it")),
    }
}

fn copy(blob: &Descriptor, from: &Store, to: &Store) -> Result<()> {
    if to.contains(&blob.digest) {
        return Ok(());
    }
    let mut writer = to.writer()?;
    io::copy(&mut from.open_blob(blob)?, &mut writer).at("copying", from.path_of(&blob.digest))?;
    writer.commit_as(blob).map(drop)
}

fn parsed(bytes: &[u8]) -> Result<Manifest> {
    serde_json::from_slice(bytes).map_err(|cause| Error::refused("what is attached", cause.to_string()))
}

impl Client {
    /// Fetches an image, or an index with all its images, and everything that is attached to them. Nothing that is
    /// listed is left out: what is gone is an error.
    ///
    /// # Errors
    /// When the registry does not have something, or sends something else.
    pub async fn fetch_all(&self, reference: &Reference, store: &Store, wanted: ToCarry) -> Result<Carried> {
        let repository = reference.repository();
        let index = match self.look(reference).await? {
            Named::Image(digest) => {
                let one = self.fetch_one(&repository.clone().pin(digest), store, wanted).await?;
                return Ok(Carried { top: Top::Image(one.image.manifest().clone()), images: vec![one] });
            }
            Named::Index(index) => index,
        };
        let raw = self.manifest(repository, &index.digest()).await?;
        store.put(&index.descriptor().media_type, &raw.bytes)?;
        let mut images = Vec::new();
        for (_, entry) in index.images() {
            images.push(self.fetch_one(&repository.clone().pin(entry.digest), store, wanted).await?);
        }
        Ok(Carried { top: Top::Index(index), images })
    }

    async fn fetch_one(&self, pinned: &Pinned, store: &Store, wanted: ToCarry) -> Result<CarriedImage> {
        let repository = pinned.repository();
        let image = self.pull(pinned, store).await?;
        let mut attached = Vec::new();
        for entry in self.listed(pinned).await? {
            let bytes = self.manifest(repository, &entry.digest).await?.bytes;
            let manifest = parsed(&bytes)?;
            if manifest.subject.as_ref().is_none_or(|it| it.digest != *pinned.digest()) {
                continue;
            }
            let says_bundle = manifest.layers.iter().any(|layer| is_bundle(&layer.media_type));
            if wanted == ToCarry::Evidence && !says_bundle {
                continue;
            }
            let blobs: Vec<Descriptor> = manifest.layers.into_iter().chain([manifest.config]).collect();
            self.pull_blobs(repository, &blobs, store).await?;
            store.put(&entry.media_type, &bytes)?;
            attached.push(Descriptor { artifact_type: manifest.artifact_type, ..entry });
        }
        let mut found = BTreeMap::new();
        for (end, _) in ENDS {
            let layers = self.envelopes(pinned, end).await?;
            if !layers.is_empty() {
                self.pull_blobs(repository, &layers, store).await?;
                found.insert(end, layers);
            }
        }
        Ok(CarriedImage { image, attached, envelopes: found })
    }

    /// Pushes what is in a store, what is attached before the image it is attached to, and the tag last.
    ///
    /// # Errors
    /// When the registry refuses something. What it cannot list is told instead.
    pub async fn send_all(
        &self,
        carried: &Carried,
        store: &Store,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Copied> {
        let mut copied = Copied::default();
        let alone = matches!(carried.top, Top::Image(_));
        for one in &carried.images {
            self.push_blobs_of(store, &one.image, repository).await?;
            match self.send_attached_of(one, store, repository, &mut copied).await {
                Err(Error::NoSubject { .. }) => {
                    self.put_image(store, &one.image, repository, None).await?;
                    self.send_attached_of(one, store, repository, &mut copied).await?;
                }
                other => other?,
            }
            self.put_image(store, &one.image, repository, tag.filter(|_| alone)).await?;
        }
        if let Top::Index(index) = &carried.top {
            self.push_index(store, index, repository, tag).await?;
        }
        Ok(copied)
    }

    async fn send_attached_of(
        &self,
        one: &CarriedImage,
        store: &Store,
        repository: &Repository,
        copied: &mut Copied,
    ) -> Result<()> {
        let subject = repository.clone().pin(one.image.digest());
        let mut sent = Vec::new();
        for entry in &one.attached {
            let bytes = store.read(entry, MAX_MANIFEST)?;
            let manifest = parsed(&bytes)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                match blob.media_type == EMPTY {
                    true => self.push_bytes(b"{}", repository).await?,
                    false => self.push_blob(store, blob, repository).await?,
                }
            }
            sent.push(self.send_attached(&subject, entry.clone(), bytes).await?);
        }
        let mut envelopes = one.envelopes.clone();
        if !sent.is_empty() {
            match self.list(&subject, &sent).await? {
                Ok(Listed::ByRegistry | Listed::UnderTag) => copied.attached += sent.len(),
                Ok(Listed::Envelopes) | Err(_) => {
                    let layers = envelopes.entry(envelopes::ATTESTATIONS).or_default();
                    self.as_envelopes(one, store, repository, layers, copied).await?;
                }
            }
        }
        for (end, list) in ENDS {
            let Some(layers) = envelopes.get(end).filter(|layers| !layers.is_empty()) else { continue };
            for layer in layers {
                self.push_blob(store, layer, repository).await?;
            }
            match self.settle(&subject, list, layers).await? {
                Settled::Yes => copied.attached += layers.len(),
                Settled::Refused(reason) => copied.left.push(format!("{} of .{end}: {reason}", layers.len())),
            }
        }
        Ok(())
    }

    /// Turns bundles into envelopes, for a registry that lists no manifests; what is no bundle is left.
    async fn as_envelopes(
        &self,
        one: &CarriedImage,
        store: &Store,
        repository: &Repository,
        layers: &mut Vec<Descriptor>,
        copied: &mut Copied,
    ) -> Result<()> {
        for entry in &one.attached {
            let manifest = parsed(&store.read(entry, MAX_MANIFEST)?)?;
            let envelope = match super::only_bundle(&manifest) {
                Some(layer) => {
                    let kind = manifest.annotations.get(super::PREDICATE_TYPE);
                    let bundle = store.read(layer, super::MAX_BUNDLE)?;
                    envelopes::of_bundle(&bundle, kind.map_or("", String::as_str)).ok()
                }
                None => None,
            };
            match envelope {
                Some((layer, bytes)) => {
                    store.put(&layer.media_type, &bytes)?;
                    if layers.iter().all(|known| known.digest != layer.digest) {
                        layers.push(layer);
                    }
                    copied.as_envelopes = true;
                }
                None => copied.left.push(format!(
                    "{} ({}) in {repository}",
                    entry.digest,
                    attestations::Foreign::new(entry.artifact_type.as_deref().unwrap_or(&entry.media_type))
                )),
            }
        }
        Ok(())
    }
}
