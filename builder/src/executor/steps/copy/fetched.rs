//! A file that was fetched, on its way into the image.

use std::fs::File;
use std::path::PathBuf;

use super::tree::opened;
use super::{Content, CopyError, Node, NodeKind, NodeLookup, Tree, Walk};

/// One file of root's, 0600 as in Docker, dated with the commit: what a server says of its time is no part of what was asked
/// for, and differs between mirrors of the same file.
pub(crate) struct FetchedFile {
    file: PathBuf,
    name: String,
    epoch: i64,
}

impl FetchedFile {
    /// Where it is in this tree.
    pub(crate) const PATH: &[u8] = b"file";

    /// The file at a path of this machine, with the name it gets in a folder, which may be none.
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
