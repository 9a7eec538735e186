//! `conda-meta/NAME-VERSION-BUILD.json`, which conda, mamba and pixi leave for each package.

use serde::Deserialize;

use super::{Content, Purl, RecordError, Result};

/// The largest file, in bytes: it names every file of the package.
const LIMIT: u64 = 256 << 20;

#[derive(Deserialize)]
struct Meta {
    name: String,
    version: String,
    #[serde(default)]
    build: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    subdir: String,
    #[serde(default, rename = "fn")]
    file: String,
}

/// The package.
pub(super) fn read(content: Content<'_>) -> Result<Purl> {
    let bytes = content.whole(LIMIT)?;
    let meta: Meta = serde_json::from_slice(&bytes)
        .map_err(|_| RecordError::Malformed("it is not JSON with name and version"))?;
    let ending = [".conda", ".tar.bz2"].into_iter().find(|ending| meta.file.ends_with(ending));
    // The channel is a name, or a URL that may end with the subdir.
    let channel = meta.channel.trim_end_matches('/');
    let channel = channel.strip_suffix(meta.subdir.as_str()).unwrap_or(channel).trim_end_matches('/');
    let channel = channel.rsplit('/').next().unwrap_or_default();
    let purl = Purl::new("conda", meta.name, meta.version).with("build", meta.build).with("channel", channel);
    Ok(purl.with("subdir", meta.subdir).with("type", ending.unwrap_or_default().trim_start_matches('.')))
}
