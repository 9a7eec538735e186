//! A fetched file as a source to copy from.

use std::fs::File;
use std::path::PathBuf;

use super::tree::opened;
use super::{Content, CopyError, Node, NodeKind, NodeLookup, Tree, Walk};

/// One file, owned by root and 0600 as in Docker, with the commit's time. The server's time is not used: it is not
/// part of the content, and mirrors of the same file differ in it.
pub(crate) struct FetchedFile {
    file: PathBuf,
    name: String,
    epoch: i64,
}

impl FetchedFile {
    /// Its path in this tree.
    pub(crate) const PATH: &[u8] = b"file";

    /// The file at a path of this machine, and its name if copied into a folder; empty if it has none.
    pub(crate) fn new(file: PathBuf, name: &str, epoch: i64) -> Self {
        Self { file, name: name.to_owned(), epoch }
    }

    pub(crate) fn file_name(&self) -> &[u8] {
        self.name.as_bytes()
    }
}

impl NodeLookup for FetchedFile {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        let (kind, mode) = match path {
            b"" => (NodeKind::Directory, 0o755),
            Self::PATH => (NodeKind::File, 0o600),
            _ => return Ok(None),
        };
        Ok(Some(Node { kind, mode, owner: (0, 0), mtime: self.epoch, shared: None }))
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        Err(CopyError::NoSource { path: String::from_utf8_lossy(path).into_owned(), origin: self.name() })
    }
}

impl Walk for FetchedFile {
    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        Ok(if path.is_empty() { vec![Self::PATH.to_vec()] } else { Vec::new() })
    }
}

impl Tree for FetchedFile {
    fn name(&self) -> &'static str {
        "what was fetched"
    }

    fn content<'t>(&'t self, path: &[u8]) -> Content<'t> {
        let path = path.to_vec();
        Box::new(move || {
            let file = File::open(&self.file).map_err(|cause| CopyError::io("reading", &path, cause))?;
            opened(file, &path)
        })
    }
}
