//! Files that the Dockerfile itself holds, in here-documents.

use std::fs::File;
use std::io::Write;

use super::{CopyError, Node, NodeKind, Tree};
use crate::build::plan::Inline;

/// A folder of here-documents.
pub struct InlineTree<'a> {
    documents: &'a [Inline],
    epoch: i64,
}

impl<'a> InlineTree<'a> {
    /// Of these documents, dated with the commit.
    pub fn new(documents: &'a [Inline], epoch: i64) -> Self {
        Self { documents, epoch }
    }

    fn find(&self, path: &[u8]) -> Option<&Inline> {
        self.documents.iter().find(|document| document.name.as_bytes() == path)
    }
}

impl Tree for InlineTree<'_> {
    fn name(&self) -> &'static str {
        "the Dockerfile"
    }

    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        let (kind, mode) = match (path, self.find(path)) {
            (b"", _) => (NodeKind::Directory, 0o755),
            (_, Some(_)) => (NodeKind::File, 0o644),
            (_, None) => return Ok(None),
        };
        Ok(Some(Node { kind, mode, owner: (0, 0), mtime: self.epoch, shared: None }))
    }

    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        let mut names: Vec<Vec<u8>> = match path {
            b"" => self.documents.iter().map(|document| document.name.clone().into_bytes()).collect(),
            _ => Vec::new(),
        };
        names.sort();
        Ok(names)
    }

    fn write(&self, path: &[u8], into: &mut File) -> Result<(), CopyError> {
        let document = self.find(path).ok_or_else(|| CopyError::NoSource {
            path: String::from_utf8_lossy(path).into_owned(),
            origin: self.name(),
        })?;
        into.write_all(document.text.as_bytes()).map_err(|cause| CopyError::io("writing", path, cause))
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        Err(CopyError::NoSource { path: String::from_utf8_lossy(path).into_owned(), origin: self.name() })
    }
}
