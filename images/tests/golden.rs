//! The canonical form does not move: one small layer, its bytes known by digest. When this fails, either a dependency
//! has changed what it writes or the form was changed on purpose; the latter needs a new version of the normaliser.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use images::Store;
use images::layer::{Compression, Normaliser, from_upper};

const EPOCH: i64 = 1_700_000_000;
const DIFF_ID: &str = "sha256:8f545a2a54e782ddb36061b4078097c667675087c879779e676d00db1a4ba5e8";
const GOLDEN: [(Compression, &str); 3] = [
    (Compression::None, "sha256:8f545a2a54e782ddb36061b4078097c667675087c879779e676d00db1a4ba5e8"),
    (Compression::Gzip, "sha256:7d92835695da406e7f325a80122a82ad54d4815a1a1ead7ad1bd0e91b316dffb"),
    (Compression::Zstd, "sha256:520f9a7bdb95369c8b3476869c4f50e90bdccbde2513b98d4d0a1d53a21db55e"),
];

/// Makes the tree, its siblings in the order that `turn` says.
fn plant(root: &Path, turn: usize) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut makers: Vec<Box<dyn Fn()>> = vec![
        Box::new(|| {
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::write(root.join("etc/motd"), "hello\n").unwrap();
        }),
        Box::new(|| {
            fs::create_dir_all(root.join("usr/bin")).unwrap();
            // More than one member of gzip.
            fs::write(
                root.join("usr/bin/large"),
                (0..3_000_000_u32).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
            )
            .unwrap();
            fs::set_permissions(root.join("usr/bin/large"), fs::Permissions::from_mode(0o4755)).unwrap();
        }),
        Box::new(|| symlink("usr/bin", root.join("bin")).unwrap()),
        Box::new(|| fs::write(root.join(format!("{}-ü", "long".repeat(30))), "x").unwrap()),
        Box::new(|| {
            fs::create_dir_all(root.join("var/log")).unwrap();
            fs::write(root.join("var/log/dpkg.log"), format!("a log of turn {turn}\n")).unwrap();
        }),
    ];
    let count = makers.len();
    makers.rotate_left(turn % count);
    makers.iter().for_each(|make| make());
    drop(makers);
    fs::hard_link(root.join("etc/motd"), root.join("etc/another")).unwrap();
    if chown(root.join("etc/motd"), Some(1000), Some(1000)).is_err() {
        panic!("owners need root");
    }
}

fn layer(place: &Path, turn: usize, compression: Compression) -> images::layer::Layer {
    let upper = tempfile::TempDir::new_in(place).unwrap();
    plant(upper.path(), turn);
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let made = from_upper(&store, upper.path(), &[], EPOCH, compression, Normaliser::Version1).unwrap();
    assert!(made.applied.iter().any(|it| it.rule == "package-manager-logs"), "{:?}", made.applied);
    made.layer.unwrap().layer().unwrap()
}

#[track_caller]
fn skip() -> bool {
    !testing::has_root("owners")
}

#[test]
fn the_bytes_of_a_layer_are_known() {
    if skip() {
        return;
    }
    for (compression, digest) in GOLDEN {
        let made = layer(Path::new("/tmp"), 0, compression);
        assert_eq!(made.diff_id.to_string(), DIFF_ID, "{compression:?}");
        assert_eq!(made.descriptor.digest.to_string(), digest, "{compression:?}");
    }
}

#[test]
fn the_same_tree_in_any_order_on_any_file_system_is_the_same_layer() {
    if skip() {
        return;
    }
    for turn in 0..5 {
        for place in ["/tmp", "/dev/shm"] {
            assert_eq!(
                layer(Path::new(place), turn, Compression::None).diff_id.to_string(),
                DIFF_ID,
                "turn {turn} in {place}"
            );
        }
    }
}
