#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use images::layer::{LayerStack, StackedLayer, VirtualLayerBuilder};

use super::*;

struct Roots {
    folder: tempfile::TempDir,
}

impl Roots {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("from")).unwrap();
        fs::create_dir(folder.path().join("to")).unwrap();
        Self { folder }
    }

    fn from(&self) -> PathBuf {
        self.folder.path().join("from")
    }

    fn to(&self) -> PathBuf {
        self.folder.path().join("to")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn copy(&self, sources: &[&str], destination: &str) -> Result<(), CopyError> {
        self.copy_with(sources, destination, None)
    }

    fn copy_with(&self, sources: &[&str], destination: &str, mode: Option<&str>) -> Result<(), CopyError> {
        let mode = mode.map(|text| Chmod::parse(text).unwrap());
        let sources = owned(sources);
        self.ask(&CopyRequest { mode: mode.as_ref(), ..CopyRequest::plain(&sources, destination, 1_000_000) })
    }

    fn pick(
        &self,
        sources: &[&str],
        destination: &str,
        excludes: &[&str],
        parents: bool,
    ) -> Result<(), CopyError> {
        let (sources, excludes) = (owned(sources), Ignore::of(&owned(excludes)).unwrap());
        let request = CopyRequest::plain(&sources, destination, 1_000_000);
        self.ask(&CopyRequest { excludes: Some(&excludes), parents, ..request })
    }

    /// Copies into the folder and into a virtual layer over its previous state, and checks that both results are the
    /// same.
    fn ask(&self, request: &CopyRequest<'_>) -> Result<(), CopyError> {
        let before = self.folder.path().join("before");
        let copied = std::process::Command::new("cp").arg("-a").arg(self.to()).arg(&before).status().unwrap();
        assert!(copied.success());
        let tree = RootTree::open(&self.from()).unwrap();
        let below = LayerStack::new(vec![StackedLayer::Folder(before.clone())]);
        let mut layer_builder = VirtualLayerBuilder::over(&below, 1_000_000);
        let virtually = copy(&tree, &mut layer_builder, request);
        let made = copy(&tree, &mut Folder::open(&self.to()).unwrap(), request);
        assert_eq!(virtually.as_ref().map_err(reports), made.as_ref().map_err(reports));
        if made.is_ok() {
            let folder = RootTree::open(&self.to()).unwrap();
            let mut left = vec![Vec::new()];
            while let Some(path) = left.pop() {
                let said = |names: &dyn NodeLookup| {
                    let Node { kind, mode, owner, .. } = names.node(&path).unwrap()?;
                    let mode = if kind == NodeKind::Link { 0o777 } else { mode };
                    let target = (kind == NodeKind::Link).then(|| names.target(&path).unwrap());
                    Some((kind, mode, owner, target))
                };
                let of_folder = said(&folder);
                if !path.is_empty() {
                    assert_eq!(said(&layer_builder), of_folder, "{}", path.escape_ascii());
                }
                if of_folder.is_some_and(|it| it.0 == NodeKind::Directory) {
                    left.extend(folder.children(&path).unwrap().iter().map(|name| join(&path, name)));
                }
            }
        }
        fs::remove_dir_all(before).unwrap();
        made
    }

    /// Every path in a folder of the target, sorted.
    fn paths(&self, folder: &str) -> Vec<String> {
        let top = self.to().join(folder);
        let mut open = vec![top.clone()];
        let mut paths = Vec::new();
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
                paths.push(entry.path().strip_prefix(&top).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                }
            }
        }
        paths.sort();
        paths
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.to().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

fn reports(error: &CopyError) -> String {
    error.to_string()
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_file_to_a_name_a_folder_and_an_existing_folder() {
    let roots = Roots::new();
    roots.write("from/a", "A");
    roots.write("to/there/x", "X");
    roots.copy(&["a"], "/new/name").unwrap();
    roots.copy(&["/a"], "/new/folder/").unwrap();
    roots.copy(&["a"], "/there").unwrap();
    assert_eq!(
        (roots.read("new/name"), roots.read("new/folder/a"), roots.read("there/a")),
        ("A".into(), "A".into(), "A".into())
    );
    let made = fs::metadata(roots.to().join("new/folder")).unwrap();
    assert_eq!(made.mode() & 0o7777, 0o755);
}

#[test]
fn the_contents_of_a_folder_are_merged_in() {
    let roots = Roots::new();
    roots.write("from/d/a", "A");
    roots.write("from/d/sub/b", "B");
    roots.write("to/app/a", "old");
    roots.write("to/app/keep", "K");
    fs::set_permissions(roots.to().join("app"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(roots.from().join("d/sub"), PermissionsExt::from_mode(0o2750)).unwrap();
    roots.copy(&["d"], "/app").unwrap();
    assert_eq!(
        (roots.read("app/a"), roots.read("app/keep"), roots.read("app/sub/b")),
        ("A".into(), "K".into(), "B".into())
    );
    let mode = |path: &str| fs::metadata(roots.to().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("app"), mode("app/sub")), (0o700, 0o2750));
}

#[test]
fn patterns_and_several_sources() {
    let roots = Roots::new();
    for name in ["a.py", "b.py", "c.txt"] {
        roots.write(&format!("from/src/{name}"), name);
    }
    roots.copy(&["src/*.py", "none*"], "/app/").unwrap();
    assert!(roots.to().join("app/b.py").exists() && !roots.to().join("app/c.txt").exists());
    roots.copy(&["none*"], "/app/").unwrap();
    assert!(matches!(roots.copy(&["none"], "/app/"), Err(CopyError::NoSource { .. })));
    assert!(matches!(roots.copy(&["../x"], "/app/"), Err(CopyError::NoSource { .. })));
    assert!(matches!(roots.copy(&["[x"], "/app/"), Err(CopyError::Pattern(_))));
}

#[test]
fn links_stay_links_inside_and_are_followed_as_sources() {
    let roots = Roots::new();
    roots.write("from/d/real", "R");
    symlink("real", roots.from().join("d/link")).unwrap();
    symlink("/d", roots.from().join("dir")).unwrap();
    roots.copy(&["dir/link"], "/single").unwrap();
    roots.copy(&["dir"], "/whole").unwrap();
    assert!(fs::symlink_metadata(roots.to().join("single")).unwrap().is_file());
    assert_eq!(fs::read_link(roots.to().join("whole/link")).unwrap().to_str(), Some("real"));
    assert_eq!(
        fs::symlink_metadata(roots.to().join("whole/link")).unwrap().mtime(),
        fs::symlink_metadata(roots.from().join("d/link")).unwrap().mtime()
    );
}

#[test]
fn a_link_in_the_image_leads_within_the_image() {
    let roots = Roots::new();
    let outside = roots.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    roots.write("from/a", "A");
    roots.write("from/tree/evil/a", "A");
    symlink(&outside, roots.to().join("abs")).unwrap();
    symlink("../../outside", roots.to().join("rel")).unwrap();
    symlink("usr/lib", roots.to().join("lib")).unwrap();
    symlink("/outside/file", roots.to().join("file")).unwrap();
    roots.copy(&["a"], "/lib/x/").unwrap();
    roots.copy(&["a"], "/abs/y").unwrap();
    roots.copy(&["a"], "/rel/z").unwrap();
    roots.copy(&["a"], "/file").unwrap();
    assert_eq!(
        (roots.read("usr/lib/x/a"), roots.read("outside/z"), roots.read("outside/file")),
        ("A".into(), "A".into(), "A".into())
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    symlink(&outside, roots.to().join("evil")).unwrap();
    assert!(matches!(roots.copy(&["tree"], "/"), Err(CopyError::InTheWay { .. })));
    symlink("loop", roots.to().join("loop")).unwrap();
    assert!(matches!(roots.copy(&["a"], "/loop/x"), Err(CopyError::Loop(_))));
}

#[test]
fn files_and_folders_do_not_replace_each_other() {
    let roots = Roots::new();
    roots.write("from/d/x/y", "Y");
    roots.write("from/e/x", "X");
    roots.copy(&["d"], "/a").unwrap();
    assert!(matches!(roots.copy(&["e"], "/a"), Err(CopyError::InTheWay { .. })));
    roots.copy(&["e"], "/b").unwrap();
    assert!(matches!(roots.copy(&["d"], "/b"), Err(CopyError::InTheWay { .. })));
    assert!(matches!(roots.copy(&["e/x"], "/b/x/y"), Err(CopyError::InTheWay { .. })));
}

#[test]
fn modes_hard_links_and_odd_names() {
    let roots = Roots::new();
    roots.write("from/d/one", "1");
    fs::set_permissions(roots.from().join("d/one"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::hard_link(roots.from().join("d/one"), roots.from().join("d/two")).unwrap();
    roots.write(&format!("from/d/{}", "l".repeat(255)), "long");
    fs::write(roots.from().join("d").join(OsStr::from_bytes(b"\xff\n")), "odd").unwrap();
    roots.copy(&["d"], "/a").unwrap();
    let stat = |path: &str| fs::metadata(roots.to().join(path)).unwrap();
    assert_eq!(stat("a/one").ino(), stat("a/two").ino());
    assert_eq!(stat("a/one").mode() & 0o7777, 0o4755);
    assert_eq!(fs::read_dir(roots.to().join("a")).unwrap().count(), 4);
    roots.copy_with(&["d/one"], "/m", Some("0640")).unwrap();
    assert_eq!(stat("m").mode() & 0o7777, 0o640);
}

#[test]
fn sockets_are_refused_and_pipes_copied() {
    let roots = Roots::new();
    let _socket = std::os::unix::net::UnixListener::bind(roots.from().join("socket")).unwrap();
    assert!(matches!(roots.copy(&["socket"], "/x"), Err(CopyError::Special(_))));
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, roots.from().join("pipe"), rustix::fs::FileType::Fifo, mode, 0)
        .unwrap();
    roots.copy(&["pipe"], "/y").unwrap();
    let made = fs::symlink_metadata(roots.to().join("y")).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&made.file_type()) && made.mode() & 0o7777 == 0o640);
}

#[test]
fn attributes_of_files_and_folders_come_along() {
    let roots = Roots::new();
    roots.write("from/d/sub/f", "F");
    let set = |path: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(roots.from().join(path), "user.note", value, flags).unwrap();
    };
    set("d/sub", b"folder");
    set("d/sub/f", b"file");
    roots.copy(&["d"], "/x").unwrap();
    let read = |path: &str| {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(roots.to().join(path), "user.note", &mut value).unwrap();
        value[..length].to_vec()
    };
    assert_eq!((read("x/sub"), read("x/sub/f")), (b"folder".to_vec(), b"file".to_vec()));
}

#[test]
fn a_working_folder_keeps_what_exists() {
    let roots = Roots::new();
    let here = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let make = |path| make_folder(&mut Folder::open(&roots.to()).unwrap(), path, here, 5);
    make("/a/b/c").unwrap();
    assert_eq!(fs::metadata(roots.to().join("a/b/c")).unwrap().mtime(), 5);
    roots.write("to/file", "F");
    assert!(matches!(make("/file/x"), Err(CopyError::InTheWay { .. })));
}

#[test]
fn a_new_folder_takes_contents_and_not_the_form_of_their_folder() {
    let roots = Roots::new();
    roots.write("from/d/a", "A");
    fs::set_permissions(roots.from().join("d"), PermissionsExt::from_mode(0o1700)).unwrap();
    roots.copy(&["d"], "/new").unwrap();
    assert_eq!(fs::metadata(roots.to().join("new")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn what_is_excluded_is_not_copied() {
    let roots = Roots::new();
    for path in [
        "d/a.py",
        "d/a.txt",
        "d/sub/b.txt",
        "d/sub/deep/c.txt",
        "d/logs/keep",
        "d/logs/x",
        "home.txt",
        "home.md",
    ] {
        roots.write(&format!("from/{path}"), path);
    }
    let table: [(&[&str], &[&str], &[&str]); 7] = [
        (
            &["d"],
            &["*.txt"],
            &["a.py", "logs", "logs/keep", "logs/x", "sub", "sub/b.txt", "sub/deep", "sub/deep/c.txt"],
        ),
        (&["d"], &["**/*.txt", "logs"], &["a.py", "sub", "sub/deep"]),
        (&["d"], &["logs", "!logs/keep", "sub", "a*"], &["logs", "logs/keep"]),
        (&["d"], &["*", "!sub/deep/c.txt"], &["sub", "sub/deep", "sub/deep/c.txt"]),
        (&["d"], &["*"], &[]),
        (&["home*"], &["*.txt"], &["home.md"]),
        (&["home.txt", "d/logs"], &["/home.txt", "x"], &["keep"]),
    ];
    for (at, (sources, excludes, left)) in table.into_iter().enumerate() {
        roots.pick(sources, &format!("/{at}/"), excludes, false).unwrap();
        assert_eq!(roots.paths(&at.to_string()), left, "{sources:?} without {excludes:?}");
    }
}

#[test]
fn parents_are_made_from_the_pivot_on() {
    let roots = Roots::new();
    for path in ["x/y/a.txt", "x/y/b.txt", "x/y/z/c.txt", "x/w/a.txt", "top"] {
        roots.write(&format!("from/{path}"), path);
    }
    let table: [(&[&str], &[&str], &[&str]); 12] = [
        (&["x/y/a.txt", "top"], &[], &["top", "x", "x/y", "x/y/a.txt"]),
        (&["./x/./y/*.txt"], &[], &["y", "y/a.txt", "y/b.txt"]),
        (&["/x/y/./z"], &[], &["z", "z/c.txt"]),
        (&["x/y/z/."], &[], &["x", "x/y", "x/y/z", "x/y/z/c.txt"]),
        (&["x/**/c.txt"], &[], &["x", "x/y", "x/y/z", "x/y/z/c.txt"]),
        (&["x/*/./a.txt"], &[], &["a.txt"]),
        (&["x/*/a.txt"], &[], &["x", "x/w", "x/w/a.txt", "x/y", "x/y/a.txt"]),
        (&["x/y"], &["**/*.txt", "!**/b.txt"], &["x", "x/y", "x/y/b.txt", "x/y/z"]),
        (&["."], &["x"], &["top"]),
        (&["x/./y/./z"], &[], &["y", "y/z", "y/z/c.txt"]),
        (&["none*"], &[], &[]),
        (&["x/./none*"], &[], &[]),
    ];
    for (at, (sources, excludes, made)) in table.into_iter().enumerate() {
        roots.pick(sources, &format!("/{at}"), excludes, true).unwrap();
        assert_eq!(roots.paths(&at.to_string()), made, "{sources:?} without {excludes:?}");
    }
    for source in ["none", "x/none", "x/./none", "top/./x", "none/./x"] {
        assert!(
            matches!(roots.pick(&[source], "/n", &[], true), Err(CopyError::NoSource { .. })),
            "{source}"
        );
    }
}

#[test]
fn a_parent_that_exists_keeps_its_owner_and_a_new_one_is_like_its_source() {
    let roots = Roots::new();
    roots.write("from/usr/share/app/f", "F");
    roots.write("to/usr/kept", "K");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    fs::set_permissions(roots.from().join("usr/share"), PermissionsExt::from_mode(0o2750)).unwrap();
    fs::set_permissions(roots.to().join("usr"), PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(roots.to().join("usr"), Some(7), Some(8)).unwrap();
    let sources = owned(&["usr/share/app"]);
    let request = CopyRequest::plain(&sources, "/", 1_000_000);
    roots.ask(&CopyRequest { owner: Some((5, 6)), parents: true, ..request }).unwrap();
    let stat = |path: &str| fs::metadata(roots.to().join(path)).unwrap();
    assert_eq!((stat("usr").uid(), stat("usr/share").uid(), stat("usr/share/app/f").gid()), (7, 5, 6));
    assert_eq!((mode(roots.to().join("usr")), mode(roots.to().join("usr/share"))), (0o755, 0o2750));
    assert_eq!(roots.read("usr/kept"), "K");
}

#[test]
fn permissions_by_changes_see_what_each_file_had() {
    let roots = Roots::new();
    roots.write("from/d/run", "R");
    roots.write("from/d/sub/read", "r");
    fs::set_permissions(roots.from().join("d/run"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(roots.from().join("d/sub"), PermissionsExt::from_mode(0o700)).unwrap();
    roots.copy_with(&["d"], "/new/app", Some("u=rwX,go=rX")).unwrap();
    roots.copy_with(&["d/run"], "/other/", Some("0711")).unwrap();
    let mode = |path: &str| fs::metadata(roots.to().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("new"), mode("new/app")), (0o755, 0o755));
    assert_eq!((mode("new/app/run"), mode("new/app/sub"), mode("new/app/sub/read")), (0o755, 0o755, 0o644));
    assert_eq!((mode("other"), mode("other/run")), (0o711, 0o711));
}
