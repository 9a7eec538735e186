//! `COPY` from the commit's tree or from another stage's root, into the virtual layer of a step or into a folder of
//! this machine.
//!
//! Paths are resolved within their own tree, never on the machine: a link to `/etc` means the image's `/etc`. The
//! semantics are BuildKit's: of a folder its contents are copied; symbolic links given as a source are followed,
//! those inside a folder stay links; existing folders are merged into. `ADD` unpacks archives.

mod context;
mod destination;
mod elsewhere;
mod fetched;
mod git;
mod inline;
mod picked;
mod rehearsal;
mod target;
mod tree;
mod unpack;

pub(crate) use context::ContextTree;
pub(crate) use elsewhere::{Elsewhere, Taken};
pub(crate) use fetched::FetchedFile;
pub(crate) use images::layer::{Node, NodeKind};
pub(crate) use inline::InlineTree;
pub(crate) use target::{Folder, LayerTarget};
pub(crate) use tree::{Content, NodeLookup, RootTree, Tree, Walk, lookup};

use crate::dockerfile::Chmod;
use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::pattern::{Pattern, is_pattern};
use destination::{Destination, From};
use picked::Picked;

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// A source that matches nothing.
    #[error("{path} is not in {origin}")]
    NoSource {
        /// As written in the Dockerfile.
        path: String,
        /// The kind of tree that was searched.
        origin: &'static str,
    },
    /// Several sources, and a destination that is not a folder.
    #[error("several files cannot be put at {0}, which is no folder: end it with /")]
    NoFolder(String),
    /// A pattern that cannot be parsed.
    #[error(transparent)]
    Pattern(#[from] crate::dockerfile::pattern::PatternError),
    /// A cycle of symbolic links.
    #[error("{0} goes through too many links")]
    Loop(String),
    /// A file where a folder is needed, or the reverse.
    #[error("{path} exists and is {is}, so {what} cannot be put there")]
    InTheWay {
        /// In the image.
        path: String,
        /// The kind of the existing entry.
        is: &'static str,
        /// The kind of the new one.
        what: &'static str,
    },
    /// A file from a URL without a file name, into a folder.
    #[error("{0} is a folder, and what is fetched has no name to be put there by")]
    Unnamed(String),
    /// A secret that cannot be a variable.
    #[error("the secret {0} is no text, so no variable can hold it")]
    NoText(String),
    /// An archive that may not be unpacked.
    #[error("the archive {0}")]
    Archive(#[source] images::Error),
    /// Reading the lower layers, or writing the new one, failed.
    #[error(transparent)]
    Layer(#[from] images::Error),
    /// A device or socket.
    #[error("{0} is a device or a socket, which no image may bring")]
    Special(String),
    /// Reading the commit's objects failed.
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    /// The file system failed.
    #[error("{doing} {path}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The path in the image.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl CopyError {
    fn io(doing: &'static str, path: &[u8], source: impl Into<std::io::Error>) -> Self {
        Self::Io { doing, path: show(path), source: source.into() }
    }

    /// Whether the machine is the cause, and not the Dockerfile.
    pub(crate) fn is_machine(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Archive(images::Error::Io { .. }) | Self::Layer(images::Error::Io { .. })
        )
    }
}

/// A copy with all variables expanded.
#[derive(Debug, Clone)]
pub(crate) struct CopyRequest<'a> {
    /// Paths and patterns.
    pub(crate) sources: &'a [String],
    /// Absolute; a slash at the end means a folder.
    pub(crate) destination: &'a str,
    /// The owner of all files; that of the source by default.
    pub(crate) owner: Option<(u32, u32)>,
    /// The permissions of all files.
    pub(crate) mode: Option<&'a Chmod>,
    /// Whether a source that is an archive is unpacked into the destination, which is a folder then.
    pub(crate) archives: bool,
    /// Patterns to leave out: matched against paths within a source that is a folder, and names of other sources.
    pub(crate) excludes: Option<&'a Ignore>,
    /// Whether the folders above each source are created as well; those before `/./` are not.
    pub(crate) parents: bool,
    /// The time of folders that are created on the way, in seconds since 1970.
    pub(crate) epoch: i64,
}

impl<'a> CopyRequest<'a> {
    /// Without any option.
    pub(crate) fn plain(sources: &'a [String], destination: &'a str, epoch: i64) -> Self {
        let (owner, mode, archives, excludes, parents) = (None, None, false, None, false);
        Self { sources, destination, owner, mode, archives, excludes, parents, epoch }
    }
}

/// Copies the sources.
///
/// # Errors
/// See [`CopyError`]. The target may have some of the files then, so the caller must discard it.
pub(crate) fn copy<'t>(
    tree: &'t dyn Tree,
    target: &mut dyn LayerTarget<'t>,
    request: &CopyRequest<'_>,
) -> Result<(), CopyError> {
    if request.parents {
        return with_parents(tree, target, request);
    }
    let mut found = Vec::new();
    for source in request.sources {
        // One pattern among several sources may match nothing.
        found.extend(select(tree, source)?);
    }
    let mut place = Destination::new(target, request);
    let into_folder = request.destination.ends_with('/');
    if !into_folder && found.len() > 1 {
        place.needs_folder()?;
    }
    for (path, name) in found {
        one(tree, &path, &name, &mut place, into_folder)?;
    }
    Ok(())
}

/// Checks that each source that is no pattern is there.
///
/// # Errors
/// [`CopyError::NoSource`] for the first that is not.
pub(crate) fn check<'s>(
    tree: &dyn Tree,
    sources: impl IntoIterator<Item = &'s str>,
) -> Result<(), CopyError> {
    let mut plain = sources.into_iter().filter(|source| !is_pattern(source));
    plain.try_for_each(|source| select(tree, source).map(drop))
}

/// Copies a file fetched from a URL.
///
/// # Errors
/// As [`copy`].
pub(crate) fn copy_fetched<'t>(
    file: &'t FetchedFile,
    target: &mut dyn LayerTarget<'t>,
    request: &CopyRequest<'_>,
) -> Result<(), CopyError> {
    let mut place = Destination::new(target, request);
    one(file, FetchedFile::PATH, file.file_name(), &mut place, request.destination.ends_with('/'))
}

fn one<'t>(
    tree: &'t dyn Tree,
    path: &[u8],
    name: &[u8],
    place: &mut Destination<'_, 't>,
    into_folder: bool,
) -> Result<(), CopyError> {
    let excludes = place.request.excludes.filter(|excludes| !excludes.is_empty());
    let is_folder = is_folder(tree, path)?;
    if !is_folder && excludes.is_some_and(|excludes| excludes.leaves_out(name)) {
        return Ok(());
    }
    if !is_folder && place.request.archives && unpack::unpack(tree, path, place)? {
        return Ok(());
    }
    match excludes {
        Some(excludes) if is_folder => {
            let picked = Picked::of(tree, path, None, excludes)?;
            place.put(From { walk: &picked, tree }, path, name, into_folder)
        }
        _ => place.put(From::all_of(tree), path, name, into_folder),
    }
}

/// Each source's pattern is matched from the root, or from the folder before `/./`.
fn with_parents<'t>(
    tree: &'t dyn Tree,
    target: &mut dyn LayerTarget<'t>,
    request: &CopyRequest<'_>,
) -> Result<(), CopyError> {
    let none = Ignore::default();
    let excludes = request.excludes.unwrap_or(&none);
    let mut place = Destination::new(target, request);
    for source in request.sources {
        let (base, inner) = source.split_once("/./").unwrap_or(("/", source));
        let pattern = Some(clean(inner)).filter(|text| !text.is_empty());
        let missing = || CopyError::NoSource { path: source.clone(), origin: tree.name() };
        for (path, name) in select(tree, base)? {
            match (is_folder(tree, &path)?, is_pattern(base)) {
                (true, _) => {}
                // Other matches of the pattern have no files in them.
                (false, true) => continue,
                (false, false) => return Err(missing()),
            }
            let picked = Picked::of(tree, &path, pattern.as_deref(), excludes)?;
            if !picked.found() && !is_pattern(source) {
                return Err(missing());
            }
            place.put(From { walk: &picked, tree }, &path, &name, true)?;
        }
    }
    Ok(())
}

/// Creates the folder `path` and those above it, as `WORKDIR` does.
///
/// # Errors
/// When a file is in the way, or an existing entry cannot be read.
pub(crate) fn make_folder(
    target: &mut dyn LayerTarget<'_>,
    path: &str,
    owner: (u32, u32),
    epoch: i64,
) -> Result<(), CopyError> {
    let request = CopyRequest { owner: Some(owner), ..CopyRequest::plain(&[], path, epoch) };
    Destination::new(target, &request).folder(path.as_bytes()).map(drop)
}

/// Whether a path without symbolic links is a folder.
///
/// # Errors
/// When nothing is there, or it cannot be read.
pub(crate) fn is_folder(tree: &dyn Tree, path: &[u8]) -> Result<bool, CopyError> {
    Ok(existing(tree, path)?.kind == NodeKind::Directory)
}

/// The entry at a path without symbolic links.
///
/// # Errors
/// When nothing is there, or it cannot be read.
pub(crate) fn existing(tree: &dyn Tree, path: &[u8]) -> Result<Node, CopyError> {
    tree.node(path)?.ok_or_else(|| CopyError::NoSource { path: show(path), origin: tree.name() })
}

/// A path in the tree with symbolic links followed, and its name if copied into a folder.
type Selected = (Vec<u8>, Vec<u8>);

/// The paths that a source stands for.
fn select(tree: &dyn Tree, source: &str) -> Result<Vec<Selected>, CopyError> {
    let clean = clean(source);
    if !is_pattern(source) {
        let path = lookup(tree, clean.as_bytes())?;
        if tree.node(&path)?.is_none() {
            return Err(CopyError::NoSource { path: source.to_owned(), origin: tree.name() });
        }
        return Ok(vec![(path, base_name(clean.as_bytes()))]);
    }
    let mut matched: Vec<Vec<u8>> = vec![Vec::new()];
    for part in clean.split('/') {
        let pattern = Pattern::plain(part)?;
        let mut next = Vec::new();
        for folder in &matched {
            let folder = lookup(tree, folder)?;
            if !matches!(tree.node(&folder)?, Some(Node { kind: NodeKind::Directory, .. })) {
                continue;
            }
            let names = tree.children(&folder)?;
            next.extend(
                names.into_iter().filter(|name| pattern.matches(name)).map(|name| join(&folder, &name)),
            );
        }
        matched = next;
    }
    matched.into_iter().map(|path| Ok((lookup(tree, &path)?, base_name(&path)))).collect()
}

/// A source without leading slash, `.` and doubled slashes. The parent of the root is the root.
fn clean(source: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn base_name(path: &[u8]) -> Vec<u8> {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec()
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn show(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests;
