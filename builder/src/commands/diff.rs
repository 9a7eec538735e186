//! `diff`: which layers and files of two images differ.

use std::path::{Path, PathBuf};

use attestations::{Digest, Reference};
use errors::trusted;
use images::compare::{Comparison, compare};
use images::descriptor::{DOCKER_INDEX, INDEX};
use images::{Image, Platform, Store};
use serde_json::json;

use super::registries::Reach;
use super::{Answer, Session};
use crate::bases::{Registry as _, in_layout};
use crate::registry::Registry;

use crate::error::{Error, Kind, Result};

/// Entries told of each layer; JSON has more.
const TOLD: usize = 20;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// First image: a folder with an OCI image layout (FOLDER or FOLDER@DIGEST), or an image reference.
    a: String,
    /// Second image, in the same form.
    b: String,
    /// Platform to compare, when an image has several; this machine's by default.
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    reach: Reach,
}

/// Runs it.
///
/// # Errors
/// When an image cannot be had; see [`Kind`].
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let runtime = session.workspace().runtime()?;
    let registry =
        Registry::new(arguments.reach.registries()?, session.workspace(), runtime.handle().clone());
    let platform = arguments.platform.as_ref();
    let a = find(&arguments.a, platform, &registry, session)?;
    let b = find(&arguments.b, platform, &registry, session)?;
    let comparison = compare((&a.0, &a.1), (&b.0, &b.1))?;
    let value = json!({ "a": a.1.digest(), "b": b.1.digest(), "comparison": comparison });
    session.result(&describe(&comparison), &value)?;
    Ok(if comparison == Comparison::Identical { Answer::Yes } else { Answer::No })
}

/// An image and the store it is in, from a layout or a registry; of several, the one for `platform` or this machine's.
///
/// # Errors
/// When it is in neither.
pub(crate) fn find(
    place: &str,
    platform: Option<&Platform>,
    registry: &Registry,
    session: &Session,
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
        // An image that was asked for by its digest is the one that is meant, whatever it is for.
        Some(digest) if platform.is_none() => *digest,
        _ => registry.resolve(&reference, platform.unwrap_or(&Platform::here()))?,
    };
    let pinned = reference.repository().clone().pin(digest);
    trusted::state_directory(session.workspace().state_dir(), 0o755)?;
    let store = crate::pipeline::store(session.workspace())?;
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

/// A comparison for people.
pub(crate) fn describe(comparison: &Comparison) -> String {
    let Comparison::Differs { config, layers } = comparison else {
        return match comparison {
            Comparison::SameContent => "same content, compressed differently".to_owned(),
            _ => "identical".to_owned(),
        };
    };
    let mut text = "differs\n".to_owned();
    let value =
        |value: &Option<serde_json::Value>| value.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    for field in config {
        text.push_str(&format!(
            "config {}: {}, in the second {}\n",
            field.pointer,
            value(&field.a),
            value(&field.b)
        ));
    }
    for layer in layers {
        let digest = |digest: &Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
        text.push_str(&format!(
            "layer {}: {}, in the second {}\n",
            layer.index,
            digest(&layer.a),
            digest(&layer.b)
        ));
        for entry in layer.entries.iter().take(TOLD) {
            text.push_str(&format!("  {entry}\n"));
        }
        let more = layer.entries.len().saturating_sub(TOLD) + layer.unlisted;
        if more > 0 {
            text.push_str(&format!("  and {more} more\n"));
        }
    }
    text
}
