//! Base images that need no registry of the world: busybox in an empty tree, for any processor, and Debian with Python.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A base with nothing but Debian's static busybox, as an OCI layout in `folder`. Its applets are links in `/bin`.
pub fn base_image(folder: &Path) -> PathBuf {
    busybox_image(folder, Path::new("/bin/busybox"), None)
}

/// The same for another processor, in Debian's words, which are also Go's for those that tests use.
pub fn foreign_base(folder: &Path, architecture: &str) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    busybox_image(folder, &foreign_busybox(architecture), Some(architecture))
}

/// Debian's static busybox of another processor: fetched at its first use and kept beside the build.
pub fn foreign_busybox(architecture: &str) -> PathBuf {
    kept(&format!("busybox-{architecture}"), |tree| {
        let status = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=extract", "--include=busybox-static"])
            .arg(format!("--architectures={architecture}"))
            .arg("bookworm")
            .arg(tree)
            .status()
            .unwrap();
        assert!(status.success(), "mmdebstrap could not fetch busybox for {architecture}");
        tree.join("bin/busybox")
    })
}

/// A file that is kept beside the build under `name`; `make` says which one of the tree it makes at the first use.
pub(crate) fn kept(name: &str, make: impl FnOnce(&Path) -> PathBuf) -> PathBuf {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bases");
    std::fs::create_dir_all(&kept).unwrap();
    let place = kept.canonicalize().unwrap().join(name);
    if !place.exists() {
        let making = tempfile::TempDir::new_in(&kept).unwrap();
        let made = make(&making.path().join("tree"));
        // Another test may have done the same meanwhile; the file is the same.
        std::fs::rename(made, &place).unwrap();
    }
    place
}

fn busybox_image(folder: &Path, busybox: &Path, architecture: Option<&str>) -> PathBuf {
    let tree = folder.join("tree");
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "echo", "id", "ls", "mkdir", "rm", "sleep", "touch", "true", "false", "wget", "ip",
        "env", "stat", "date", "dd", "chmod", "grep",
    ] {
        let _ = std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet));
    }
    std::fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )
    .unwrap();
    std::fs::write(tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    let archive = folder.join("base.tar");
    let arguments =
        ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@1700000000", "-cf"];
    let status =
        Command::new("tar").args(arguments).arg(&archive).arg("-C").arg(&tree).arg(".").status().unwrap();
    assert!(status.success());
    layout(&archive, &folder.join("base"), architecture)
}

/// The demo's base, Debian with Python: made by `mmdebstrap` at its first use and kept beside the build.
pub fn python_base() -> PathBuf {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bases");
    std::fs::create_dir_all(&kept).unwrap();
    let output = Command::new(script("python-base")).arg(&kept).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn layout(archive: &Path, layout: &Path, architecture: Option<&str>) -> PathBuf {
    let mut command = Command::new(script("oci-layout"));
    let status = command.arg(archive).arg(layout).args(architecture).status().unwrap();
    assert!(status.success());
    layout.to_path_buf()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name)
}
