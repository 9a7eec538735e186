//! A virtual layer that is built without a look at what lies below, and put over it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use images::Store;
use images::layer::{
    Compression, LayerLimits, LayerStack, NewNode, NodeAttributes, NodeKind, Normaliser, StackedLayer,
    VirtualLayerBuilder, unpack,
};

#[test]
fn what_is_drawn_apart_takes_the_place_of_all_but_folders() {
    if !testing::has_root("owners") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let base = place.path().join("base");
    for folder in ["t", "y/deep", "w/z"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    for file in ["f", "y/z", "y/deep/x"] {
        fs::write(base.join(file), "").unwrap();
    }
    symlink("t", base.join("u")).unwrap();
    fs::set_permissions(base.join("y"), fs::Permissions::from_mode(0o700)).unwrap();

    let below = LayerStack::new(vec![StackedLayer::Folder(base.clone())]);
    let mut builder = VirtualLayerBuilder::apart(&below, 7);
    for folder in ["u", "y", "y/deep", "f", "new"] {
        assert_eq!(builder.node(folder.as_bytes()).unwrap(), None, "{folder}");
        builder.put(folder.as_bytes(), NewNode::Directory, NodeAttributes::default()).unwrap();
    }
    for file in ["u/a", "y/b", "w", "f/c"] {
        builder.put(file.as_bytes(), NewNode::File(b"1".to_vec()), NodeAttributes::default()).unwrap();
    }
    let store = Store::open(place.path().join("store")).unwrap();
    let mut open = |content: Vec<u8>| -> Result<(u64, Box<dyn Read>), images::Error> {
        Ok((content.len() as u64, Box::new(Cursor::new(content))))
    };
    let (written, virtual_layer) =
        builder.write(&store, Compression::Gzip, Normaliser::default(), &mut open).unwrap();
    let layer = written.layer.unwrap().layer().unwrap();
    let upper = place.path().join("upper");
    fs::create_dir(&upper).unwrap();
    unpack(&store, &layer.descriptor, &layer.diff_id, &upper, LayerLimits::default()).unwrap();

    for above in [StackedLayer::Virtual(Arc::new(virtual_layer)), StackedLayer::Folder(upper)] {
        let layer_stack = LayerStack::new(vec![above, StackedLayer::Folder(base.clone())]);
        let kind = |path: &str| layer_stack.find(path.as_bytes()).unwrap().map(|found| found.node.kind);
        let table = [
            ("u", Some(NodeKind::Directory)),
            ("u/a", Some(NodeKind::File)),
            ("t/a", None),
            ("y/b", Some(NodeKind::File)),
            ("y/z", Some(NodeKind::File)),
            ("y/deep/x", Some(NodeKind::File)),
            ("w", Some(NodeKind::File)),
            ("w/z", None),
            ("f/c", Some(NodeKind::File)),
            ("new", Some(NodeKind::Directory)),
        ];
        for (path, expected) in table {
            assert_eq!(kind(path), expected, "{path}");
        }
        assert_eq!(layer_stack.find(b"y").unwrap().unwrap().node.mode, 0o755);
    }
}
