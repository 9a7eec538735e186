//! The store of recorded responses on this machine: listing, pushing and fetching them, and removing old ones.
//!
//! It is an OCI image layout. Each build with stored responses has one manifest in it, whose `subject` is the image;
//! its first layer is the record, the others are the bodies. Equal bodies of different builds are one blob.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use attestations::{Digest, Pinned, Repository};
use images::descriptor::{EMPTY, MANIFEST};
use images::store::{Collect, Collected};
use images::{Descriptor, Manifest, Store};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::record::{MAX_RECORD, RECORD_MEDIA_TYPE, Record};
use super::replay::{Replay, not_for_everybody};
use super::writer::{BODY_MEDIA_TYPE, StoreWriter};
use errors::{Error, Kind, Result};

/// The artifact type of a build's recorded responses.
pub(crate) const MATERIALS_TYPE: &str = "application/vnd.countersign.materials.v1";

/// The most bytes of their manifest; registries enforce the same limit.
const MAX_MANIFEST: u64 = 4 << 20;
const CREATED: &str = "org.opencontainers.image.created";

/// The recorded responses on this machine. While it is open, none of them are removed.
#[derive(Debug)]
pub struct ResponseStore {
    store: Store,
    lock: File,
}

/// The recorded responses of one build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptResponses {
    /// The digest of the record.
    pub record: Digest,
    /// The digest of the build's image.
    pub image: Digest,
    /// When it was built, as RFC 3339.
    pub created: String,
    /// The number of bodies.
    pub bodies: usize,
    /// Bytes of the record and the bodies.
    pub size: u64,
    #[serde(skip)]
    manifest: Descriptor,
}

/// Whether responses are included that steps with secrets, or requests with credentials, received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateResponses {
    /// They stay on this machine.
    Withhold,
    /// They are included, and can be read by everybody who can read the image or file.
    Include,
}

/// A registry, with the operations that recorded responses need.
pub trait Remote {
    /// Attaches an artifact in a store to an image.
    ///
    /// # Errors
    /// When the registry refuses it, or a blob is missing or damaged.
    fn attach_stored(&self, subject: &Pinned, store: &Store, manifest: &Descriptor) -> Result<()>;

    /// Fetches blobs into a store.
    ///
    /// # Errors
    /// When the registry does not have one or sends something else.
    fn pull_blobs(&self, repository: &Repository, blobs: &[Descriptor], store: &Store) -> Result<()>;

    /// Reads one blob of at most `max` bytes.
    ///
    /// # Errors
    /// When the registry does not have it, or sends something else or too much.
    fn blob(&self, repository: &Repository, digest: &Digest, max: u64) -> Result<Vec<u8>>;
}

impl ResponseStore {
    /// Opens the recorded responses below a state directory.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn open(state_dir: &Path) -> Result<ResponseStore> {
        let folder = state_dir.join("materials");
        let store = Store::open(&folder)?;
        let path = folder.join(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|cause| Error::io("opening", &path, cause))?;
        // Waits for a running garbage collection.
        flock(&lock, FlockOperation::LockShared)
            .map_err(|cause| Error::io("locking", &path, cause.into()))?;
        Ok(ResponseStore { store, lock })
    }

    /// A writer for the responses of a new build.
    pub fn writer(&self) -> StoreWriter {
        StoreWriter::new(self.store.clone())
    }

    /// The underlying store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The record with this digest, ready for a replay.
    ///
    /// # Errors
    /// When it or one of its bodies is missing or damaged.
    pub fn replay(&self, record: &Digest) -> Result<Replay> {
        Replay::load(self.store.clone(), record)
    }

    /// Assigns recorded responses to an image, so that they are listed, attached when it is pushed, and kept until
    /// they are explicitly removed.
    ///
    /// # Errors
    /// When there are more bodies than a manifest can list, or the disk refuses.
    pub fn name(&self, image: &Descriptor, record: &Digest, created: Timestamp) -> Result<KeptResponses> {
        let (found, document) = Record::stored(&self.store, record)?;
        let mut layers = vec![found];
        let bodies = document.bodies();
        layers.extend(bodies.iter().map(|(digest, size)| Descriptor::new(BODY_MEDIA_TYPE, *digest, *size)));
        let config = self.store.put(EMPTY, b"{}")?;
        let created = created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let manifest = Manifest {
            artifact_type: Some(MATERIALS_TYPE.to_owned()),
            subject: Some(Descriptor::new(image.media_type.clone(), image.digest, image.size)),
            annotations: [(CREATED.to_owned(), created)].into(),
            ..Manifest::image(config, layers)
        };
        let bytes = manifest.to_bytes()?;
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::new(
                Kind::Input,
                format!(
                    "the build asked for {} different things: more than one manifest can name",
                    bodies.len()
                ),
            )
            .hint("split the image, or build with --no-keep"));
        }
        let stored = self.store.put(MANIFEST, &bytes)?;
        self.store.set_ref(&format!("{}-{}", image.digest.hex(), record.hex()), &stored)?;
        self.read(&stored)
    }

    /// The recorded responses of every build, the latest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<KeptResponses>> {
        let mut all =
            self.store.manifests()?.iter().map(|entry| self.read(entry)).collect::<Result<Vec<_>>>()?;
        all.sort_by(|a, b| b.created.cmp(&a.created).then(a.record.cmp(&b.record)));
        Ok(all)
    }

    /// The recorded responses whose record or image has this digest.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there are none.
    pub fn find(&self, digest: &Digest) -> Result<KeptResponses> {
        let found = self.list()?.into_iter().find(|one| one.record == *digest || one.image == *digest);
        found.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("no materials of {digest} are kept here"))
                .hint("`countersign-builder materials list` names what is; `materials import` and `materials pull` bring more")
        })
    }

    fn read(&self, entry: &Descriptor) -> Result<KeptResponses> {
        let bytes = self.store.read(entry, MAX_MANIFEST)?;
        let bad = |why: &str| Error::new(Kind::Input, format!("the materials {}: {why}", entry.digest));
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|cause| bad(&cause.to_string()))?;
        if manifest.artifact_type.as_deref() != Some(MATERIALS_TYPE) {
            return Err(bad("their manifest is of another kind"));
        }
        let (Some(image), [record, bodies @ ..]) = (&manifest.subject, &manifest.layers[..]) else {
            return Err(bad("their manifest names no image or no record"));
        };
        Ok(KeptResponses {
            record: record.digest,
            image: image.digest,
            created: manifest.annotations.get(CREATED).cloned().unwrap_or_default(),
            bodies: bodies.len(),
            size: manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size)),
            manifest: entry.clone(),
        })
    }

    /// The manifest for others: the complete one, or one without the private bodies.
    ///
    /// # Errors
    /// When the recorded responses are missing.
    fn described(&self, materials: &KeptResponses, private: PrivateResponses) -> Result<Descriptor> {
        let withheld = self.private_bodies(materials)?;
        if private == PrivateResponses::Include || withheld.is_empty() {
            return Ok(materials.manifest.clone());
        }
        let mut manifest = self.manifest(materials)?;
        manifest.layers.retain(|layer| !withheld.contains_key(&layer.digest));
        Ok(self.store.put(MANIFEST, &manifest.to_bytes()?)?)
    }

    /// The bodies that only private exchanges received, each with its request.
    ///
    /// # Errors
    /// When the record is missing.
    pub fn private_bodies(&self, materials: &KeptResponses) -> Result<BTreeMap<Digest, String>> {
        Ok(Record::stored(&self.store, &materials.record)?.1.private_bodies())
    }

    fn manifest(&self, materials: &KeptResponses) -> Result<Manifest> {
        let bytes = self.store.read(&materials.manifest, MAX_MANIFEST)?;
        serde_json::from_slice(&bytes)
            .map_err(|cause| Error::new(Kind::Input, "the materials' manifest is malformed").because(cause))
    }

    /// The descriptors of the blobs for others: see [`PrivateResponses`].
    ///
    /// # Errors
    /// When the recorded responses are missing.
    pub(super) fn blobs_to_send(
        &self,
        materials: &KeptResponses,
        private: PrivateResponses,
    ) -> Result<Vec<Descriptor>> {
        self.blobs(&KeptResponses { manifest: self.described(materials, private)?, ..materials.clone() })
    }

    /// The descriptors of the manifest and all blobs.
    pub fn blobs(&self, materials: &KeptResponses) -> Result<Vec<Descriptor>> {
        let manifest = self.manifest(materials)?;
        Ok([materials.manifest.clone(), manifest.config].into_iter().chain(manifest.layers).collect())
    }

    /// Attaches recorded responses to their image in a registry.
    ///
    /// # Errors
    /// When the registry refuses them, or a blob is missing or damaged here.
    pub fn send(
        &self,
        registry: &dyn Remote,
        subject: &Pinned,
        materials: &KeptResponses,
        private: PrivateResponses,
    ) -> Result<()> {
        registry.attach_stored(subject, &self.store, &self.described(materials, private)?)
    }

    /// Fetches the missing blobs of a record from the image's repository, and assigns the record to the image.
    ///
    /// # Errors
    /// When the registry does not have them, or sends something else.
    pub fn fetch(
        &self,
        registry: &dyn Remote,
        image: &Pinned,
        described: &Descriptor,
        record: &Digest,
    ) -> Result<()> {
        let bytes = registry.blob(image.repository(), record, MAX_RECORD)?;
        let document = Record::parse(&bytes)?;
        let private = document.private_bodies();
        let (mut bodies, mut others) = (Vec::new(), Vec::new());
        for (digest, size) in document.bodies() {
            let body = Descriptor::new(BODY_MEDIA_TYPE, digest, size);
            let list = if private.contains_key(&digest) { &mut others } else { &mut bodies };
            list.push(body);
        }
        registry.pull_blobs(image.repository(), &bodies, &self.store)?;
        // The registry has them only if the builder included them.
        others.retain(|body| !self.store.contains(&body.digest));
        registry.pull_blobs(image.repository(), &others, &self.store).map_err(|cause| {
            let asked = others.iter().filter_map(|body| private.get(&body.digest).cloned()).collect();
            match cause.kind() {
                Kind::NotFound => not_for_everybody(asked).because(cause),
                _ => cause,
            }
        })?;
        self.store.put(RECORD_MEDIA_TYPE, &bytes)?;
        self.name(described, record, Timestamp::now()).map(drop)
    }

    /// Verifies every blob against its digest.
    ///
    /// # Errors
    /// The first that is missing or damaged.
    pub fn verify(&self, materials: &KeptResponses) -> Result<()> {
        for blob in self.blobs(materials)? {
            let path = self.store.path_of(&blob.digest);
            let mut reader = self.store.open_blob(&blob)?;
            std::io::copy(&mut reader, &mut std::io::sink()).map_err(|cause| {
                Error::new(Kind::Input, format!("{} is damaged", path.display()))
                    .hint("remove it, and fetch the materials again")
                    .because(cause)
            })?;
        }
        Ok(())
    }

    /// Removes the recorded responses of builds before `before`, and everything that belongs to no build. Waits until
    /// no build is running.
    ///
    /// # Errors
    /// When a blob cannot be removed.
    pub fn collect(
        &self,
        before: Option<Timestamp>,
        what: Collect,
    ) -> Result<(Vec<KeptResponses>, Collected)> {
        let busy = |cause: rustix::io::Errno| match cause {
            rustix::io::Errno::WOULDBLOCK => {
                Error::new(Kind::Machine, "a build is going on, and what it keeps must not be collected")
                    .hint("try again when it is over")
            }
            other => Error::io("locking", self.store.root(), other.into()),
        };
        flock(&self.lock, FlockOperation::NonBlockingLockExclusive).map_err(busy)?;
        let is_old = |one: &KeptResponses| match (before, one.created.parse::<Timestamp>()) {
            (Some(before), Ok(created)) => created < before,
            _ => false,
        };
        let (old, kept): (Vec<_>, Vec<_>) = self.list()?.into_iter().partition(is_old);
        let mut needed = BTreeSet::new();
        for one in &kept {
            needed.extend(self.blobs(one)?.into_iter().map(|blob| blob.digest));
        }
        if what == Collect::Remove {
            for one in &old {
                let name = format!("{}-{}", one.image.hex(), one.record.hex());
                self.store.remove_ref(&name)?;
            }
        }
        let collected = self.store.collect(&needed, what)?;
        flock(&self.lock, FlockOperation::LockShared).map_err(busy)?;
        Ok((old, collected))
    }
}
