//! Looks through the files of the finished image for what they say of packages: while its last layers are compressed, in the
//! folders of its stage, and then, for files that were never in a folder, in the layers themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use attestations::Digest;
use images::layer::{FilePlace, FoundNode, LayerStack, NodeKind, TreeFile, pick};
use sha2::{Digest as _, Sha256};

use super::failures::cancelled;
use super::stage::Resources;
use super::stage_files::{PackedLayer, StageFiles};
use crate::error::{Error, Result};
use crate::packages::installed::{Content, RecordError, RecordKind, Said, is_program, kind_of, read};
use crate::packages::{Fetched, Inventory, Origin, Purl};

/// Digests of files that a build fetched, by their size.
#[derive(Debug, Clone, Default)]
pub(crate) struct Downloads(BTreeMap<u64, BTreeSet<Digest>>);

impl Downloads {
    /// Adds what a stage fetched.
    pub(crate) fn add(&mut self, files: &[Fetched]) {
        for file in files.iter().filter(|file| file.size > 0) {
            self.0.entry(file.size).or_default().insert(file.digest);
        }
    }
}

/// What a file is looked into for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    kind: Option<RecordKind>,
    /// Whether it may be a file that was fetched.
    is_candidate: bool,
    origin: Origin,
}

/// A look through an image of which some layers are not read yet.
pub(crate) struct Survey<'a> {
    resources: &'a Resources<'a>,
    downloads: Downloads,
    inventory: Inventory,
    /// Files of virtual layers, by the layer.
    packed: Vec<(PackedLayer, BTreeMap<Vec<u8>, Wanted>)>,
}

impl<'a> Survey<'a> {
    /// Looks through everything that is in folders.
    ///
    /// # Errors
    /// When the machine fails, or the build was cancelled.
    pub(crate) fn begin(
        resources: &'a Resources<'a>,
        files: &StageFiles,
        downloads: Downloads,
    ) -> Result<Self> {
        let mut survey = Self { resources, downloads, inventory: Inventory::default(), packed: Vec::new() };
        let mut waiting: BTreeMap<usize, BTreeMap<Vec<u8>, Wanted>> = BTreeMap::new();
        let base = files.base();
        files.layer_stack().each_file(&mut |file: &TreeFile<'_>| {
            if resources.canceller.is_cancelled() {
                return Err(cancelled());
            }
            let origin = if files.is_of_base(file.layer) { Origin::Base } else { Origin::Build };
            let Some(wanted) = survey.wanted(file, origin) else { return Ok(()) };
            match file.place {
                FilePlace::Disk(place) => survey.look_at(file.path, place, wanted, &base),
                FilePlace::Virtual(_) => {
                    waiting.entry(file.layer).or_default().insert(file.path.to_vec(), wanted);
                    Ok(())
                }
            }
        })?;
        let packed = |(at, wanted)| Some((files.packed(at)?, wanted));
        survey.packed = waiting.into_iter().filter_map(packed).collect();
        Ok(survey)
    }

    /// Looks into the virtual layers.
    ///
    /// # Errors
    /// When the machine fails, or the build was cancelled.
    pub(crate) fn finish(mut self) -> Result<Inventory> {
        for (packed, wanted) in std::mem::take(&mut self.packed) {
            let layer = packed.layer(self.resources)?;
            let paths = wanted.keys().cloned().collect();
            pick(self.resources.store, &layer, &paths, &mut |names, _, content| {
                let spooled = self.spooled(content)?;
                for name in names {
                    if let Some(wanted) = wanted.get(name) {
                        self.take(name, &spooled, *wanted, &[])?;
                    }
                }
                Ok::<_, Error>(())
            })?;
        }
        Ok(self.inventory)
    }

    fn wanted(&self, file: &TreeFile<'_>, origin: Origin) -> Option<Wanted> {
        let kind = kind_of(file.path, file.mode).filter(|_| file.size > 0);
        let kind = match (kind, file.place) {
            (Some(RecordKind::Program), FilePlace::Virtual(start)) => kind.filter(|_| is_program(start)),
            _ => kind,
        };
        let is_candidate = origin == Origin::Build && self.downloads.0.contains_key(&file.size);
        (kind.is_some() || is_candidate).then_some(Wanted { kind, is_candidate, origin })
    }

    fn look_at(&mut self, path: &[u8], place: &Path, wanted: Wanted, base: &LayerStack) -> Result<()> {
        let file = opened(place)?;
        let mut wanted = wanted;
        if wanted.kind == Some(RecordKind::Program) {
            let mut start = [0; 4];
            let length = file.read_at(&mut start, 0).map_err(|cause| Error::io("reading", place, cause))?;
            wanted.kind = wanted.kind.filter(|_| length == start.len() && is_program(start));
        }
        // Only lists of many packages say again what the base's said.
        let is_list = matches!(
            wanted.kind,
            Some(RecordKind::Dpkg | RecordKind::Apk | RecordKind::RpmSqlite | RecordKind::RpmNdb)
        );
        let before = match (is_list, wanted.origin) {
            (true, Origin::Build) => of_base(path, wanted, base)?,
            _ => Vec::new(),
        };
        self.take(path, &file, wanted, &before)
    }

    /// Reads a file for what it is wanted for.
    fn take(&mut self, path: &[u8], file: &File, wanted: Wanted, base: &[Purl]) -> Result<()> {
        let shown = String::from_utf8_lossy(path);
        let failed = |cause| Error::io("reading", Path::new(&*shown), cause);
        if let Some(kind) = wanted.kind {
            match read(kind, &shown, Content::of(file).map_err(failed)?) {
                Ok(said) => self.inventory.add(&shown, wanted.origin, said, base),
                Err(RecordError::Malformed(why)) => self.inventory.add_unread(&shown, why),
                Err(RecordError::Io(cause)) => return Err(failed(cause)),
            }
        }
        if wanted.is_candidate {
            let (size, digest) = digest_of(file).map_err(failed)?;
            if self.downloads.0.get(&size).is_some_and(|digests| digests.contains(&digest)) {
                self.inventory.add_file(&shown, digest);
            }
        }
        Ok(())
    }

    /// A file of a virtual layer, where it can be read as one in a folder.
    fn spooled(&self, content: &mut dyn Read) -> Result<File> {
        let scratch = self.resources.scratch;
        let mut spool = || {
            let mut file = tempfile::tempfile_in(scratch)?;
            io::copy(content, &mut file)?;
            Ok(file)
        };
        spool().map_err(|cause| Error::io("writing into", scratch, cause))
    }
}

/// The packages of a list as it was in the base.
fn of_base(path: &[u8], wanted: Wanted, base: &LayerStack) -> Result<Vec<Purl>> {
    let found = base.find(path)?.filter(|found| found.node.kind == NodeKind::File);
    let Some((kind, place)) = wanted.kind.zip(found.as_ref().and_then(FoundNode::on_disk)) else {
        return Ok(Vec::new());
    };
    let failed = |cause| Error::io("reading", place, cause);
    let file = opened(place)?;
    match read(kind, &String::from_utf8_lossy(path), Content::of(&file).map_err(failed)?) {
        Ok(Said::Packages(packages)) => Ok(packages),
        // What the base says there in no form that is read here is taken for the build's.
        Ok(Said::Vendor(_)) | Err(RecordError::Malformed(_)) => Ok(Vec::new()),
        Err(RecordError::Io(cause)) => Err(failed(cause)),
    }
}

fn opened(place: &Path) -> Result<File> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(place);
    file.map_err(|cause| Error::io("opening", place, cause))
}

fn digest_of(file: &File) -> io::Result<(u64, Digest)> {
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let length = file.read_at(&mut buffer, size)?;
        if length == 0 {
            return Ok((size, Digest::from_bytes(hash.finalize().into())));
        }
        hash.update(&buffer[..length]);
        size += length as u64;
    }
}
