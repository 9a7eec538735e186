//! Looks up an image that the user names: in a folder with an OCI image layout, or in a registry.

use std::path::{Path, PathBuf};

use attestations::{Digest, Reference};
use errors::trusted;
use images::descriptor::{DOCKER_INDEX, INDEX};
use images::{Image, Platform, Store};

use crate::bases::{Registry as _, in_layout};
use crate::error::{Error, Kind, Result};
use crate::registry::Registry;
use crate::workspace::Workspace;

/// Finds an image in a layout or a registry, and the store it is in. Of several images, the one for `platform` or
/// this machine's.
///
/// # Errors
/// When it is in neither.
pub(crate) fn find(
    place: &str,
    platform: Option<&Platform>,
    registry: &Registry,
    workspace: &Workspace,
) -> Result<(Store, Image)> {
    if let Some((folder, digest)) = layout(place) {
        let store = Store::open_existing(folder)?;
        let digest = match digest {
            Some(digest) => digest,
            None => only(&store, platform, place)?,
        };
        let image = Image::load(&store, &digest)?;
        return Ok((store, image));
    }
    let reference: Reference = place.parse().map_err(|cause| {
        Error::new(Kind::NotFound, format!("{place} is neither a folder nor an image reference"))
            .because(cause)
    })?;
    let digest = match reference.digest() {
        // An image given by its digest is used whatever its platform.
        Some(digest) if platform.is_none() => *digest,
        _ => registry.resolve(&reference, platform.unwrap_or(&Platform::here()))?,
    };
    let pinned = reference.repository().clone().pin(digest);
    trusted::state_directory(workspace.state_dir(), 0o755)?;
    let store = crate::pipeline::store(workspace)?;
    let image = registry.pull(&pinned, &store)?;
    Ok((store, image))
}

fn layout(place: &str) -> Option<(PathBuf, Option<Digest>)> {
    let whole = Path::new(place);
    if whole.is_dir() {
        return Some((whole.to_path_buf(), None));
    }
    let (folder, digest) = place.rsplit_once('@')?;
    Path::new(folder).is_dir().then_some(())?;
    Some((folder.into(), Some(digest.parse().ok()?)))
}

fn only(store: &Store, platform: Option<&Platform>, place: &str) -> Result<Digest> {
    match (platform, store.manifests()?.as_slice()) {
        (None, [only]) if ![INDEX, DOCKER_INDEX].contains(&only.media_type.as_str()) => Ok(only.digest),
        (Some(platform), _) => in_layout(store, platform),
        (None, [_]) => in_layout(store, &Platform::here()),
        (None, all) => {
            let digests = all.iter().map(|found| found.digest.to_string()).collect();
            Err(Error::new(Kind::Usage, format!("{place} has {} images", all.len()))
                .details(digests)
                .hint("name the one that is meant as FOLDER@DIGEST"))
        }
    }
}
