//! Root file systems as tests compare them: the entries of archives, put on each other.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use attestations::Digest;

/// An entry of a root file system, without its time: ours are the commit's or older, Docker's those of the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is, in a word.
    pub kind: String,
    /// Permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u64, u64),
    /// A digest, a link's target, or a device's numbers.
    pub content: String,
    /// Extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
    /// The first of its names, where it has several.
    pub shared: Option<String>,
}

/// Entries by their paths, without a slash in front.
pub type Tree = BTreeMap<String, Entry>;

/// Layers put on each other.
#[derive(Default)]
pub struct Root {
    entries: Tree,
}

impl Root {
    /// Puts a layer on top.
    pub fn apply(&mut self, layer: impl Read) {
        let mut archive = tar::Archive::new(layer);
        let mut fresh: Tree = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = shown(&entry.path_bytes());
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() {
                continue;
            }
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if let Some(gone) = name.strip_prefix(".wh.") {
                let whole = match gone {
                    ".wh..opq" => format!("{parent}/"),
                    _ if parent.is_empty() => gone.to_owned(),
                    _ => format!("{parent}/{gone}"),
                };
                let below = format!("{}/", whole.trim_end_matches('/'));
                self.entries.retain(|path, _| *path != whole && !path.starts_with(&below));
                continue;
            }
            let mut found = read(&mut entry, &path);
            if found.kind == "hard link" {
                let target = found.content.trim_start_matches("./").trim_matches('/').to_owned();
                let first = fresh.get_mut(&target).or_else(|| self.entries.get_mut(&target));
                let first = first.unwrap_or_else(|| panic!("{path} links to {target}, which is not there"));
                let group = first.shared.get_or_insert(target).clone();
                found = Entry { shared: Some(group), ..first.clone() };
            }
            if found.kind != "folder" {
                let below = format!("{path}/");
                self.entries.retain(|known, _| !known.starts_with(&below));
            }
            fresh.insert(path, found);
        }
        self.entries.extend(fresh);
    }

    /// Names of one file are told by the first of them; a file whose other names are gone is like any other.
    pub fn finish(mut self) -> Tree {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, entry) in &self.entries {
            if let Some(group) = &entry.shared {
                groups.entry(group.clone()).or_default().push(path.clone());
            }
        }
        for paths in groups.into_values() {
            let first = (paths.len() > 1).then(|| paths[0].clone());
            for path in paths {
                self.entries.get_mut(&path).unwrap().shared.clone_from(&first);
            }
        }
        self.entries
    }
}

/// The files of an archive, such as `docker save` writes.
pub fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(archive).unwrap());
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        // A layer that stands twice is a link to its first place.
        let bytes = match entry.link_name().unwrap() {
            Some(link) => {
                let name = format!("{}", link.display()).trim_start_matches("../").to_owned();
                files.get(&name).cloned().unwrap_or_default()
            }
            None => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                bytes
            }
        };
        files.insert(path, bytes);
    }
    files
}

fn read(entry: &mut tar::Entry<'_, impl Read>, path: &str) -> Entry {
    use tar::EntryType as T;
    let mut attributes = BTreeMap::new();
    if let Some(extensions) = entry.pax_extensions().unwrap() {
        for extension in extensions.map(|extension| extension.unwrap()) {
            if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                attributes.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
    }
    let header = entry.header();
    let (mode, owner) = (header.mode().unwrap() & 0o7777, (header.uid().unwrap(), header.gid().unwrap()));
    let numbers = format!("{:?}:{:?}", header.device_major().ok(), header.device_minor().ok());
    let link = entry.link_name_bytes().map(|link| shown(&link)).unwrap_or_default();
    let (kind, content) = match entry.header().entry_type() {
        T::Regular | T::Continuous | T::GNUSparse => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            ("file", format!("{} bytes, {}", bytes.len(), Digest::of(&bytes)))
        }
        T::Directory => ("folder", String::new()),
        T::Symlink => ("link", link),
        T::Link => ("hard link", link),
        T::Fifo => ("pipe", String::new()),
        T::Char => ("character device", numbers),
        T::Block => ("block device", numbers),
        other => panic!("{path}: an entry of type {other:?}"),
    };
    // A link has no permissions of its own.
    let mode = if kind == "link" { 0o777 } else { mode };
    Entry { kind: kind.to_owned(), mode, owner, content, attributes, shared: None }
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Runs a fuzz target over its seeds, `fuzz/seeds/TARGET`: one whose name begins with `valid` has to be accepted, and
/// one at least is.
pub fn run_seeds(target: &str, accepts: impl Fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut accepted = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let is_accepted = accepts(&std::fs::read(&path).unwrap());
        let is_valid = path.file_name().unwrap().to_string_lossy().starts_with("valid");
        assert!(is_accepted || !is_valid, "{} is refused", path.display());
        accepted += usize::from(is_accepted);
    }
    assert!(accepted > 0, "no seed of {target} is accepted");
}
