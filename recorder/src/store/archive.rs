//! Recorded responses in one file, for machines without a network: a tar archive of an OCI image layout.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use attestations::Digest;
use errors::files::{self, Existing};
use images::{Descriptor, Manifest};
use serde::{Deserialize, Serialize};

use super::responses::{KeptResponses, MATERIALS_TYPE, PrivateResponses, ResponseStore};
use errors::{Error, Kind, Result};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const BLOBS: &str = "blobs/sha256/";
/// The most bytes of an index or manifest.
const MAX_SMALL: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

/// Writes the recorded responses of a build into one file; each blob is verified against its digest.
///
/// # Errors
/// When a blob is missing or damaged, or the file cannot be written; then there is no file.
pub fn export(
    response_store: &ResponseStore,
    materials: &KeptResponses,
    private: PrivateResponses,
    path: &Path,
) -> Result<()> {
    let failed = |cause: io::Error| Error::io("writing", path, cause);
    let blobs = response_store.blobs_to_send(materials, private)?;
    let mut manifest =
        blobs.first().cloned().ok_or_else(|| Error::new(Kind::Bug, "materials without a manifest"))?;
    manifest.annotations.clear();
    let index = Index { schema_version: 2, manifests: vec![manifest] };
    let index = serde_json::to_vec(&index)
        .map_err(|cause| Error::new(Kind::Bug, "writing the index").because(cause))?;
    files::write_with(path, Existing::Replaced, 0o600, |out| {
        let mut tar = tar::Builder::new(out);
        add(&mut tar, "oci-layout", LAYOUT.len() as u64, LAYOUT.as_bytes()).map_err(failed)?;
        add(&mut tar, "index.json", index.len() as u64, &index[..]).map_err(failed)?;
        let mut written = std::collections::BTreeSet::new();
        for blob in blobs {
            if written.insert(blob.digest) {
                let reader = response_store.store().open_blob(&blob)?;
                add(&mut tar, &format!("{BLOBS}{}", blob.digest.hex()), blob.size, reader).map_err(failed)?;
            }
        }
        tar.finish().map_err(failed)
    })
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
}

/// Reads such a file into the store. Undamaged blobs that are already there are not written again.
///
/// # Errors
/// When the file has anything else in it, or a blob that does not match its digest.
pub fn import(response_store: &ResponseStore, path: &Path) -> Result<Vec<KeptResponses>> {
    let file = File::open(path).map_err(|cause| Error::io("reading", path, cause))?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut index = None;
    let entries = archive.entries().map_err(|cause| malformed(path, &cause.to_string()))?;
    for entry in entries {
        let mut entry = entry.map_err(|cause| malformed(path, &cause.to_string()))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        match name.strip_prefix(BLOBS) {
            _ if kind == tar::EntryType::Directory => {}
            _ if kind != tar::EntryType::Regular => {
                return Err(malformed(path, &format!("{name:?} is no regular file")));
            }
            Some(hex) => {
                let digest = Digest::from_hex(hex)
                    .map_err(|_| malformed(path, &format!("{name:?} is no blob's name")))?;
                take(response_store, &digest, &mut entry, path)?;
            }
            None if name == "index.json" => index = Some(small(&mut entry, path)?),
            None if name == "oci-layout" => {}
            None => {
                return Err(malformed(path, &format!("{name:?} has no place in an image layout")));
            }
        }
    }
    let index = index.ok_or_else(|| malformed(path, "it has no index.json"))?;
    let index: Index = serde_json::from_slice(&index).map_err(|cause| malformed(path, &cause.to_string()))?;
    index.manifests.iter().map(|manifest| adopt(response_store, manifest, path)).collect()
}

fn take(
    response_store: &ResponseStore,
    digest: &Digest,
    entry: &mut tar::Entry<'_, impl Read>,
    path: &Path,
) -> Result<()> {
    let size = entry.header().size().map_err(|cause| malformed(path, &cause.to_string()))?;
    let wanted = Descriptor::new("", *digest, size);
    let is_here = || io::copy(&mut response_store.store().open_blob(&wanted).ok()?, &mut io::sink()).ok();
    if is_here().is_some() {
        return Ok(());
    }
    let mut writer = response_store.store().writer()?;
    io::copy(entry, &mut writer).map_err(|cause| Error::io("taking a blob from", path, cause))?;
    writer.commit_as(&wanted).map_err(Error::from).map(drop)
}

/// Names the recorded responses of an imported manifest, if all its blobs were imported too.
fn adopt(response_store: &ResponseStore, found: &Descriptor, path: &Path) -> Result<KeptResponses> {
    let bytes = response_store.store().read(found, MAX_SMALL)?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|cause| malformed(path, &cause.to_string()))?;
    let (true, Some(image), Some(record)) = (
        manifest.artifact_type.as_deref() == Some(MATERIALS_TYPE),
        &manifest.subject,
        manifest.layers.first(),
    ) else {
        return Err(malformed(path, "what its index names are no materials"));
    };
    response_store.replay(&record.digest)?;
    response_store.name(image, &record.digest, jiff::Timestamp::now())
}

fn small(entry: &mut impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    files::fill(&mut bytes, entry, path, MAX_SMALL)
        .map_err(|cause| malformed(path, "its index cannot be read").because(cause))?;
    Ok(bytes)
}

fn malformed(path: &Path, why: &str) -> Error {
    Error::new(Kind::Input, format!("{}: {why}", path.display()))
        .hint("give a file that `countersign-builder materials export` wrote")
}
