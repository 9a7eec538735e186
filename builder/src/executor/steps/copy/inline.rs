//! Here-documents of the Dockerfile as a source to copy from.

use super::tree::held;
use super::{Content, CopyError, Node, NodeKind, NodeLookup, Tree, Walk};
use crate::plan::step::Inline;

/// A folder of here-documents.
pub(crate) struct InlineTree<'a> {
    documents: &'a [Inline],
    epoch: i64,
}

impl<'a> InlineTree<'a> {
    /// These documents, with the commit's time.
    pub(crate) fn new(documents: &'a [Inline], epoch: i64) -> Self {
        Self { documents, epoch }
    }

    fn missing(&self, path: &[u8]) -> CopyError {
        CopyError::NoSource { path: String::from_utf8_lossy(path).into_owned(), origin: self.name() }
    }

    fn find(&self, path: &[u8]) -> Option<&Inline> {
        // The last of several with one name counts.
        self.documents.iter().rfind(|document| document.name.as_bytes() == path)
    }
}

impl NodeLookup for InlineTree<'_> {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        let (kind, mode) = match (path, self.find(path)) {
            (b"", _) => (NodeKind::Directory, 0o755),
            (_, Some(_)) => (NodeKind::File, 0o644),
            (_, None) => return Ok(None),
        };
        Ok(Some(Node { kind, mode, owner: (0, 0), mtime: self.epoch, shared: None }))
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        Err(self.missing(path))
    }
}

impl Walk for InlineTree<'_> {
    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        let mut names: Vec<Vec<u8>> = match path {
            b"" => self.documents.iter().map(|document| document.name.clone().into_bytes()).collect(),
            _ => Vec::new(),
        };
        names.sort();
        names.dedup();
        Ok(names)
    }
}

impl Tree for InlineTree<'_> {
    fn name(&self) -> &'static str {
        "the Dockerfile"
    }

    fn content<'t>(&'t self, path: &[u8]) -> Content<'t> {
        let path = path.to_vec();
        Box::new(move || {
            let document = self.find(&path).ok_or_else(|| self.missing(&path))?;
            Ok(held(document.text.clone().into_bytes()))
        })
    }
}
