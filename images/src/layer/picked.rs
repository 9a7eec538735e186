//! Reads some files of a layer that is not unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use tar::EntryType;

use super::archive::Entries;
use super::read::{LayerLimits, open_archive};
use super::write::Layer;
use crate::error::Error;
use crate::store::Store;

/// What is called with the names of a file, its size, and its content.
pub type Picked<'v, E> = dyn FnMut(&BTreeSet<Vec<u8>>, u64, &mut dyn Read) -> std::result::Result<(), E> + 'v;

/// The names that are wanted, by the name in the archive that has their content.
type Wanted = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

/// Calls `visit` for each file of a layer that has one of the `wanted` names.
///
/// # Errors
/// When the layer is not in the store or does not match its digests; those of `visit`. Nothing that `visit` was given
/// can be trusted then.
pub fn pick<E: From<Error>>(
    store: &Store,
    layer: &Layer,
    wanted: &BTreeSet<Vec<u8>>,
    visit: &mut Picked<'_, E>,
) -> std::result::Result<(), E> {
    let by_name = wanted.iter().map(|name| (name.clone(), BTreeSet::from([name.clone()]))).collect();
    let links = pass(store, layer, &by_name, visit)?;
    // A hard link has no content, and comes after the name that has it.
    pass(store, layer, &links, visit).map(drop)
}

/// Returns the wanted names that are hard links.
fn pass<E: From<Error>>(
    store: &Store,
    layer: &Layer,
    wanted: &Wanted,
    visit: &mut Picked<'_, E>,
) -> std::result::Result<Wanted, E> {
    let mut links = Wanted::new();
    if wanted.is_empty() {
        return Ok(links);
    }
    let archive = open_archive(store, &layer.descriptor, Some(&layer.diff_id), LayerLimits::default())?;
    let mut entries = Entries::new(archive.reader(), format!("layer {}", layer.diff_id));
    while let Some(entry) = entries.next()? {
        let Some(names) = wanted.get(&entry.path) else { continue };
        match (entry.kind, entry.link) {
            (EntryType::Regular | EntryType::Continuous, _) => {
                visit(names, entry.size, &mut entries.content())?;
            }
            (EntryType::Link, Some(holder)) => links.entry(holder).or_default().extend(names.clone()),
            _ => {}
        }
    }
    archive.finish()?;
    Ok(links)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layer::{Compression, Normaliser, from_upper};

    #[test]
    fn files_are_read_by_any_of_their_names() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path().join("store")).unwrap();
        let upper = place.path().join("upper");
        std::fs::create_dir(&upper).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(upper.join(name), name).unwrap();
        }
        std::fs::hard_link(upper.join("a"), upper.join("z")).unwrap();
        std::os::unix::fs::symlink("a", upper.join("s")).unwrap();
        let layer = from_upper(&store, &upper, &[], 0, Compression::Gzip, Normaliser::default());
        let layer = layer.unwrap().layer.unwrap().layer().unwrap();
        let wanted = ["b", "s", "z", "none"].map(|name| name.as_bytes().to_vec()).into();
        let mut found = Vec::new();
        let mut visit = |names: &BTreeSet<Vec<u8>>, size, content: &mut dyn Read| {
            let mut text = String::new();
            content.read_to_string(&mut text).unwrap();
            let names = names.iter().map(|name| String::from_utf8_lossy(name).into_owned());
            found.push((names.collect::<Vec<_>>().join(" "), size, text));
            Ok::<_, Error>(())
        };
        pick(&store, &layer, &wanted, &mut visit).unwrap();
        assert_eq!(found, [("b".to_owned(), 1, "b".to_owned()), ("z".to_owned(), 1, "a".to_owned())]);
    }
}
