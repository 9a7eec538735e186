//! Compares two images: first by config and diff IDs, then down to entries and bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use attestations::Digest;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::descriptor::Descriptor;
use crate::error::{At, Result};
use crate::image::Image;
use crate::layer::{ArchiveEntry, Entries, LayerLimits, open_archive};
use crate::store::Store;

/// How much of a differing file is kept to find the first differing byte.
const WINDOW: usize = 64 << 20;
/// The most differences listed for one layer; further ones are counted.
const MAX_LISTED: usize = 1000;

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Comparison {
    /// The same manifest.
    Identical,
    /// The same config and the same layers, compressed differently.
    SameContent,
    /// Different content.
    Differs {
        /// The fields of the config that differ, as JSON pointers.
        config: Vec<FieldDifference>,
        /// The layers that differ.
        layers: Vec<LayerDifference>,
    },
}

/// One field of the config.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldDifference {
    /// A JSON pointer; empty if only the config's bytes differ, and then the values are their digests.
    pub pointer: String,
    /// The first image's value.
    pub a: Option<Value>,
    /// The second image's value.
    pub b: Option<Value>,
}

/// A layer that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerDifference {
    /// Its number from zero, the lowest first.
    pub index: usize,
    /// Its diff ID in the first image, if that has as many layers.
    pub a: Option<Digest>,
    /// Its diff ID in the second image, likewise.
    pub b: Option<Digest>,
    /// The entries that differ; empty when only the archive's form does.
    pub entries: Vec<EntryDifference>,
    /// The number of differing entries that are not listed.
    pub unlisted: usize,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryDifference {
    /// Its path.
    pub path: String,
    /// The difference.
    pub what: Difference,
}

/// The kind of difference of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Difference {
    /// Only the first image has it.
    OnlyInA,
    /// Only the second has it.
    OnlyInB,
    /// A field of its header.
    Header {
        /// Its name.
        field: String,
        /// The first image's value.
        a: String,
        /// The second image's value.
        b: String,
    },
    /// Its content.
    Content {
        /// The offset of the first differing byte; none beyond the first 64 MiB.
        offset: Option<u64>,
        /// The first image's length.
        a: u64,
        /// The second's.
        b: u64,
        /// A likely cause, guessed from the name and the bytes.
        likely: Option<String>,
    },
}

impl fmt::Display for EntryDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        match &self.what {
            Difference::OnlyInA => f.write_str("only in the first"),
            Difference::OnlyInB => f.write_str("only in the second"),
            Difference::Header { field, a, b } => write!(f, "{field} {a}, in the second {b}"),
            Difference::Content { offset, a, b, likely } => {
                match offset {
                    Some(offset) => write!(f, "differs from byte {offset}")?,
                    None => write!(f, "differs beyond its first 64 MiB")?,
                }
                if a != b {
                    write!(f, " ({a} bytes, in the second {b})")?;
                }
                likely.iter().try_for_each(|likely| write!(f, "; likely {likely}"))
            }
        }
    }
}

/// Compares two images, each with its store.
///
/// # Errors
/// When a layer that has to be read is missing or does not match its digest.
pub fn compare(a: (&Store, &Image), b: (&Store, &Image)) -> Result<Comparison> {
    if a.1.digest() == b.1.digest() {
        return Ok(Comparison::Identical);
    }
    let mut config = Vec::new();
    fields("", &to_value(a.1)?, &to_value(b.1)?, &mut config);
    // Differing diff IDs are reported layer by layer.
    config.retain(|field| !field.pointer.starts_with("/rootfs/diff_ids"));
    let digests = [a.1, b.1].map(|image| image.config_descriptor().digest);
    if config.is_empty() && digests[0] != digests[1] && a.1.diff_ids() == b.1.diff_ids() {
        // Equal values in other bytes still make another image, since the image is identified by the config's digest.
        let [a, b] = digests.map(|digest| Some(Value::String(digest.to_string())));
        config.push(FieldDifference { pointer: String::new(), a, b });
    }
    let count = a.1.layers().len().max(b.1.layers().len());
    let mut layers = Vec::new();
    for index in 0..count {
        let (left, right) = (a.1.diff_ids().get(index), b.1.diff_ids().get(index));
        if left != right {
            layers.push(layer(
                (a.0, a.1.layers().get(index)),
                (b.0, b.1.layers().get(index)),
                index,
                (left, right),
            )?);
        }
    }
    if config.is_empty() && layers.is_empty() {
        return Ok(Comparison::SameContent);
    }
    Ok(Comparison::Differs { config, layers })
}

fn to_value(image: &Image) -> Result<Value> {
    serde_json::to_value(image.config()).map_err(|cause| crate::Error::refused("config", cause.to_string()))
}

fn fields(pointer: &str, a: &Value, b: &Value, found: &mut Vec<FieldDifference>) {
    match (a, b) {
        _ if a == b => {}
        (Value::Object(left), Value::Object(right)) => {
            let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let below = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                fields(
                    &below,
                    left.get(key).unwrap_or(&Value::Null),
                    right.get(key).unwrap_or(&Value::Null),
                    found,
                );
            }
        }
        _ => {
            let some = |value: &Value| (!value.is_null()).then(|| value.clone());
            found.push(FieldDifference { pointer: pointer.to_owned(), a: some(a), b: some(b) });
        }
    }
}

type Side<'a> = (&'a Store, Option<&'a Descriptor>);

fn layer(
    a: Side<'_>,
    b: Side<'_>,
    index: usize,
    diff_ids: (Option<&Digest>, Option<&Digest>),
) -> Result<LayerDifference> {
    let (left, right) = (list(a)?, list(b)?);
    let mut entries = Vec::new();
    let paths: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let mut contents = Vec::new();
    for path in paths {
        match (left.get(path), right.get(path)) {
            (Some(x), Some(y)) => {
                headers(path, x, y, &mut entries);
                if x.content != y.content {
                    contents.push(path.clone());
                }
            }
            (Some(_), None) => entries.push(EntryDifference { path: shown(path), what: Difference::OnlyInA }),
            _ => entries.push(EntryDifference { path: shown(path), what: Difference::OnlyInB }),
        }
    }
    for path in contents {
        if entries.len() >= MAX_LISTED {
            entries.push(content(&path, &[], &[], (left[&path].size, right[&path].size)));
            continue;
        }
        let (x, y) = (read_entry(a, &path)?, read_entry(b, &path)?);
        entries.push(content(&path, &x, &y, (left[&path].size, right[&path].size)));
    }
    entries.sort_by(|x, y| x.path.cmp(&y.path));
    let unlisted = entries.len().saturating_sub(MAX_LISTED);
    entries.truncate(MAX_LISTED);
    Ok(LayerDifference { index, a: diff_ids.0.copied(), b: diff_ids.1.copied(), entries, unlisted })
}

struct Listed {
    header: Vec<(&'static str, String)>,
    content: [u8; 32],
    size: u64,
}

fn list((store, layer): Side<'_>) -> Result<BTreeMap<Vec<u8>, Listed>> {
    let mut found = BTreeMap::new();
    let Some(layer) = layer else { return Ok(found) };
    let archive = open_archive(store, layer, None, LayerLimits::default())?;
    let what = layer.digest.to_string();
    let mut entries = Entries::new(archive.reader(), &what);
    while let Some(entry) = entries.next()? {
        let header = fields_of(&entry).at("reading", &what)?;
        let (path, size) = (entry.path, entry.size);
        let mut content = entries.content();
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match content.read(&mut buffer).at("reading", &what)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        found.insert(path, Listed { header, content: hash.finalize().into(), size });
    }
    archive.finish()?;
    Ok(found)
}

/// Every field of the header and its extensions, except the name and the length.
fn fields_of(entry: &ArchiveEntry) -> std::io::Result<Vec<(&'static str, String)>> {
    let pairs = |map: &BTreeMap<Vec<u8>, Vec<u8>>, value: fn(&[u8]) -> String| {
        let listed: Vec<_> =
            map.iter().map(|(key, found)| format!("{}={}", shown(key), value(found))).collect();
        listed.join(" ")
    };
    let header = &entry.header;
    let device = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    let (major, minor) = match entry.kind.is_character_special() || entry.kind.is_block_special() {
        true => (header.device_major()?, header.device_minor()?),
        false => (None, None),
    };
    let names = [header.username_bytes(), header.groupname_bytes()];
    let [user, group] = names.map(|name| name.map(shown).unwrap_or_default());
    Ok(vec![
        ("type", format!("{:?}", entry.kind)),
        ("mode", format!("{:o}", entry.mode)),
        ("uid", entry.uid.to_string()),
        ("gid", entry.gid.to_string()),
        ("user", user),
        ("group", group),
        ("mtime", entry.mtime.to_string()),
        ("device", format!("{}:{}", device(major), device(minor))),
        ("link", entry.link.as_deref().map(shown).unwrap_or_default()),
        ("xattrs", pairs(&entry.xattrs, |value| hex::encode(value))),
        ("records", pairs(&entry.records, shown)),
    ])
}

fn headers(path: &[u8], a: &Listed, b: &Listed, found: &mut Vec<EntryDifference>) {
    for ((field, left), (_, right)) in a.header.iter().zip(&b.header) {
        if left != right {
            let what = Difference::Header { field: (*field).to_owned(), a: left.clone(), b: right.clone() };
            found.push(EntryDifference { path: shown(path), what });
        }
    }
}

fn read_entry((store, layer): Side<'_>, path: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(layer) = layer else { return Ok(bytes) };
    let archive = open_archive(store, layer, None, LayerLimits::default())?;
    let what = layer.digest.to_string();
    let mut entries = Entries::new(archive.reader(), &what);
    // The last entry of a name counts.
    while let Some(entry) = entries.next()? {
        if *entry.path == *path {
            bytes.clear();
            entries.content().take(WINDOW as u64).read_to_end(&mut bytes).at("reading", &what)?;
        }
    }
    Ok(bytes)
}

fn content(path: &[u8], x: &[u8], y: &[u8], sizes: (u64, u64)) -> EntryDifference {
    let first = x.iter().zip(y).position(|(left, right)| left != right);
    let shorter = x.len().min(y.len());
    let offset = first.or((x.len() != y.len()).then_some(shorter)).map(|offset| offset as u64);
    let likely = likely(path, x, y, offset).map(str::to_owned);
    EntryDifference {
        path: shown(path),
        what: Difference::Content { offset, a: sizes.0, b: sizes.1, likely },
    }
}

/// A guess from well-known causes. It never excuses a difference.
fn likely(path: &[u8], x: &[u8], y: &[u8], offset: Option<u64>) -> Option<&'static str> {
    let path = String::from_utf8_lossy(path);
    let both = |magic: &[u8]| x.starts_with(magic) && y.starts_with(magic);
    match offset? {
        8..=15 if path.ends_with(".pyc") => Some(
            "the source's time in the header of Python's compiled code: SOURCE_DATE_EPOCH did not reach the compiler",
        ),
        _ if path.ends_with(".pyc") => {
            Some("Python's compiled code of another source, or in another order of sets")
        }
        4..=7 if both(&[0x1f, 0x8b]) => Some("the time in a gzip header: `gzip -n` leaves it out"),
        _ if both(b"\x7fELF") => {
            Some("compiled code: a build path, a time, an unsorted list of inputs, or another compiler")
        }
        _ if both(b"!<arch>\n") => Some("an archive of objects with times: `ar D` leaves them out"),
        _ if both(b"PK\x03\x04") => Some("a zip archive with times or another order of entries"),
        _ if path.contains("var/log/") => Some("a log with times of the build"),
        _ if path.contains("/cache/") => Some("a cache"),
        _ => None,
    }
}

fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"")
}
