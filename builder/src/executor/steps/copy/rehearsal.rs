//! A copy to nowhere, which shows what a copy takes before anything is run.

use images::layer::{NewNode, Node, NodeAttributes, NodeKind};

use super::target::LayerTarget;
use super::{Content, CopyError, NodeLookup};

/// A target that is empty and stays so.
pub(super) struct Rehearsal;

impl NodeLookup for Rehearsal {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        let root = Node { kind: NodeKind::Directory, mode: 0o755, owner: (0, 0), mtime: 0, shared: None };
        Ok(path.is_empty().then_some(root))
    }

    fn target(&self, _path: &[u8]) -> Result<Vec<u8>, CopyError> {
        Ok(Vec::new())
    }
}

impl<'t> LayerTarget<'t> for Rehearsal {
    fn put(
        &mut self,
        _path: &[u8],
        _new: NewNode<Content<'t>>,
        _dress: NodeAttributes,
    ) -> Result<(), CopyError> {
        Ok(())
    }

    fn link(&mut self, _path: &[u8], _to: &[u8]) -> Result<(), CopyError> {
        Ok(())
    }

    fn dress(&mut self, _path: &[u8], _dress: NodeAttributes) -> Result<(), CopyError> {
        Ok(())
    }
}
