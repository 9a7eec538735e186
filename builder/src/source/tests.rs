#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use super::*;

struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        made.git(&["init", "-q", "-b", "main"]);
        made
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.folder.path())
            .args([
                "-c",
                "user.name=Carol",
                "-c",
                "user.email=carol@example.org",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z")
            .env("GIT_COMMITTER_DATE", "2026-01-02T03:04:06Z")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let file = self.folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    fn commit(&self, message: &str) -> Commit {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        Commit::from_str(&self.git(&["rev-parse", "HEAD"])).unwrap()
    }

    fn location(&self) -> Location {
        Location::parse(self.folder.path().to_str().unwrap()).unwrap()
    }

    fn open(&self, state: &Path) -> Repository {
        Repository::open(state, &self.location()).unwrap()
    }
}

fn all(_: &[u8]) -> bool {
    true
}

#[test]
fn a_commit_that_is_no_tip_is_fetched_by_its_id() {
    let made = Made::new();
    made.write("a.txt", b"one");
    let first = made.commit("first");
    made.write("a.txt", b"two");
    made.commit("second");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let snapshot = repository.commit(&first).unwrap();
    assert_eq!(snapshot.file("a.txt", 10).unwrap().unwrap(), b"one");
    assert_eq!(snapshot.committed_at(), 1_767_323_046);
    assert_eq!(snapshot.tree().unwrap().to_string(), made.git(&["rev-parse", &format!("{first}^{{tree}}")]));
}

#[test]
fn a_cached_commit_needs_no_repository() {
    let made = Made::new();
    let commit = made.commit("only");
    let state = tempfile::tempdir().unwrap();
    let location = made.location();
    made.open(state.path()).commit(&commit).unwrap();
    drop(made);
    assert!(Repository::open(state.path(), &location).unwrap().commit(&commit).is_ok());
}

#[test]
fn an_unknown_commit_names_the_repository_and_the_way_out() {
    let made = Made::new();
    made.commit("only");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let unknown = Commit::from_str(&"a".repeat(40)).unwrap();
    let error = repository.commit(&unknown).err().unwrap();
    assert!(matches!(error, SourceError::UnknownCommit { .. }), "{error}");
    let error = crate::error::Error::from(error);
    assert_eq!(error.kind().exit_code(), 4);
    assert!(error.to_string().contains(repository.location().uri()));
    assert!(error.hint_text().unwrap().contains("push the commit"));
}

#[test]
fn a_repository_that_is_gone_is_a_network_error() {
    let state = tempfile::tempdir().unwrap();
    let location = Location::parse("http://127.0.0.1:9/nothing").unwrap();
    let repository = Repository::open(state.path(), &location).unwrap();
    let error = repository.commit(&Commit::from_str(&"a".repeat(40)).unwrap()).err().unwrap();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
}

#[test]
fn the_id_of_a_tree_is_not_a_commit() {
    let made = Made::new();
    made.write("a", b"a");
    let commit = made.commit("only");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let tree = repository.commit(&commit).unwrap().tree().unwrap();
    let error = repository.commit(&Commit::from_str(&tree.to_string()).unwrap()).err().unwrap();
    assert!(matches!(error, SourceError::NotACommit { .. }), "{error}");
}

#[test]
fn everyone_in_the_trailers_is_an_author() {
    let made = Made::new();
    let first =
        made.commit("first\n\nCo-authored-by: Dave <dave@example.org>\nco-AUTHORED-by:Eve<eve@example.org>");
    let second = made.commit("second\n\nCo-authored-by: Mallory <mallory@example.org>");
    let third = made.commit("third");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let emails = |it: Writers| it.authors.into_iter().map(|author| author.email).collect::<Vec<_>>();
    let one = repository.commit(&first).unwrap();
    assert_eq!(emails(one.writers()), ["carol@example.org", "dave@example.org", "eve@example.org"]);
    let three = repository.commit(&third).unwrap();
    assert_eq!(emails(three.writers()), ["carol@example.org"]);
    assert_eq!(emails(three.writers_since(&one).unwrap()), ["carol@example.org", "mallory@example.org"]);
    assert!(repository.commit(&second).is_ok());
}

#[test]
fn a_walk_knows_modes_and_links_and_odd_names() {
    use std::os::unix::fs::PermissionsExt;
    let made = Made::new();
    made.write("src/run.sh", b"#!/bin/sh\n");
    made.write("src/\u{e9}\ttab", b"x");
    std::fs::set_permissions(made.folder.path().join("src/run.sh"), PermissionsExt::from_mode(0o755))
        .unwrap();
    std::os::unix::fs::symlink("run.sh", made.folder.path().join("src/link")).unwrap();
    let commit = made.commit("only");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let snapshot = repository.commit(&commit).unwrap();
    let found = snapshot.walk("src", &all).unwrap();
    let seen: Vec<_> =
        found.iter().map(|entry| (String::from_utf8_lossy(&entry.path).into_owned(), entry.kind)).collect();
    assert_eq!(
        seen,
        [
            ("link".to_owned(), EntryKind::Link),
            ("run.sh".to_owned(), EntryKind::File { executable: true }),
            ("\u{e9}\ttab".to_owned(), EntryKind::File { executable: false }),
        ]
    );
    assert_eq!(snapshot.blobs().unwrap().read(found[0].id, &found[0].form).unwrap(), b"run.sh");
    assert!(matches!(snapshot.walk("nowhere", &all), Err(SourceError::NoSuchPath { .. })));
    assert!(matches!(snapshot.file("src/run.sh", 3), Err(SourceError::TooLarge { size: 10, limit: 3, .. })));
    assert!(matches!(snapshot.file("src", 3), Err(SourceError::Unsupported { .. })));
}

#[test]
fn a_walk_names_submodules_and_lfs_pointers() {
    let made = Made::new();
    made.write("model.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n");
    let other = Made::new();
    other.commit("other");
    let target = other.folder.path().to_str().unwrap().to_owned();
    made.git(&["submodule", "--quiet", "add", &target, "vendor"]);
    let both = made.commit("submodule");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let snapshot = repository.commit(&both).unwrap();
    let found = snapshot.walk("", &all).unwrap();
    let kind = |path: &[u8]| found.iter().find(|entry| entry.path == path).unwrap().kind;
    assert_eq!(
        (kind(b"model.bin"), kind(b"vendor")),
        (EntryKind::LfsPointer { executable: false }, EntryKind::Submodule)
    );
}

#[test]
fn a_file_is_found_through_links_of_its_own_tree() {
    use std::os::unix::fs::symlink;
    let made = Made::new();
    made.write("docker/a.Dockerfile", b"FROM a");
    let link = |target: &str, path: &str| symlink(target, made.folder.path().join(path)).unwrap();
    link("docker/a.Dockerfile", "Dockerfile");
    link("docker", "folder");
    link("../Dockerfile", "docker/up");
    link("./folder/./up", "long");
    link("/etc/passwd", "absolute");
    link("../outside", "out");
    link("folder/../../x", "far");
    link("circle", "circle");
    link("nowhere", "dangling");
    let commit = made.commit("links");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let snapshot = repository.commit(&commit).unwrap();
    for path in ["Dockerfile", "folder/a.Dockerfile", "docker/up", "folder/up", "long", "./docker//up"] {
        assert_eq!(snapshot.file(path, 10).unwrap().unwrap(), b"FROM a", "{path}");
    }
    for (path, words) in [
        ("absolute", "leads out of the repository"),
        ("out", "leads out of the repository"),
        ("far", "leads out of the repository"),
        ("circle", "in a circle"),
        ("dangling", "a link to nothing"),
        ("folder", "not a plain file"),
    ] {
        let error = snapshot.file(path, 10).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(words), "{error}");
    }
    assert_eq!(snapshot.file("docker/none", 10).unwrap(), None);
    assert_eq!(snapshot.file("Dockerfile/x", 10).unwrap_or(None), None);
}

#[test]
fn files_have_the_form_of_a_checkout() {
    let made = Made::new();
    let utf16: Vec<u8> = "code\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    made.write(
        ".gitattributes",
        b"*.csv text working-tree-encoding=UTF-16LE\n*.cmd text eol=crlf\n*.id ident\n[attr]win text eol=crlf\n",
    );
    made.write("deep/.gitattributes", b"plain.cmd -text\nmacro.txt win\nany.txt eol=lf\n");
    made.write("codes.csv", &utf16);
    for path in ["run.cmd", "deep/plain.cmd", "deep/macro.txt", "deep/any.txt"] {
        made.write(path, b"one\r\ntwo\r\n");
    }
    made.write("a.id", b"$Id$\n");
    let commit = made.commit("attributes");
    made.git(&["rm", "-q", "-r", "--cached", "."]);
    made.git(&["reset", "-q", "--hard", commit.as_str()]);
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let snapshot = repository.commit(&commit).unwrap();
    let blobs = snapshot.blobs().unwrap();
    for folder in ["", "deep"] {
        for entry in snapshot.walk(folder, &all).unwrap() {
            let path = made.folder.path().join(folder).join(String::from_utf8(entry.path).unwrap());
            if path.is_file() {
                let (ours, theirs) =
                    (blobs.read(entry.id, &entry.form).unwrap(), std::fs::read(&path).unwrap());
                assert_eq!(ours, theirs, "{}", path.display());
            }
        }
    }
    let read = |path: &str| std::fs::read(made.folder.path().join(path)).unwrap();
    assert_eq!(read("codes.csv"), utf16);
    assert!(read("deep/macro.txt").ends_with(b"two\r\n") && read("deep/any.txt").ends_with(b"two\n"));
}

#[test]
fn an_odd_old_commit_does_not_matter() {
    let made = Made::new();
    made.write("a.txt", b"one");
    made.git(&["add", "-A"]);
    let tree = made.git(&["write-tree"]);
    let (person, day) = ("O <o@example.org>", 1_287_367_363);
    let text = format!("tree {tree}\nauthor {person} {day} +0000\ncommitter {person} {day} -700\n\nold\n");
    made.write("../odd-commit", text.as_bytes());
    let file = made.folder.path().join("../odd-commit");
    let old = made.git(&["hash-object", "-t", "commit", "-w", "--literally", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
    made.git(&["update-ref", "refs/heads/main", &old]);
    made.git(&["reset", "-q", "--hard"]);
    let new = made.commit("new");
    let state = tempfile::tempdir().unwrap();
    let repository = made.open(state.path());
    let snapshot = repository.commit(&new).unwrap();
    assert!(!has(&repository.git, object_id(&old).unwrap()), "the history was fetched unasked");
    let since = repository.commit(&old.parse().unwrap()).unwrap();
    assert_eq!(snapshot.writers_since(&since).unwrap().authors.len(), 1);
    assert!(snapshot.history().unwrap().find_commit(object_id(&old).unwrap()).is_ok());
}

#[test]
fn clones_of_every_kind_are_read() {
    let made = Made::new();
    made.write("a.txt", b"one");
    let first = made.commit("first");
    made.write("a.txt", b"two");
    let second = made.commit("second");
    let place = tempfile::tempdir().unwrap();
    let from = format!("file://{}", made.folder.path().display());
    let own = made.folder.path().to_str().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    made.git(&["config", "uploadpack.allowFilter", "true"]);
    made.git(&["clone", "-q", "--depth=1", &from, &at("shallow")]);
    made.git(&["clone", "-q", "--filter=blob:none", &from, &at("partial")]);
    made.git(&["clone", "-q", "--shared", own, &at("alternates")]);
    made.git(&["clone", "-q", "--bare", own, &at("bare")]);
    made.git(&["worktree", "add", "-q", "--detach", &at("worktree"), second.as_str()]);
    for name in ["shallow", "partial", "alternates", "bare", "worktree"] {
        let state = tempfile::tempdir().unwrap();
        let repository = Repository::open(state.path(), &Location::parse(&at(name)).unwrap()).unwrap();
        let snapshot = repository.commit(&second).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(snapshot.file("a.txt", 10).unwrap().unwrap(), b"two", "{name}");
        match (name, snapshot.history()) {
            ("shallow", Err(SourceError::NoHistory { .. })) => {}
            ("shallow", history) => panic!("{name}: {:?}", history.err()),
            (_, history) => {
                let found = history.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(found.find_commit(object_id(first.as_str()).unwrap()).is_ok(), "{name}");
            }
        }
    }
}

#[test]
fn a_malformed_tree_is_refused() {
    let made = Made::new();
    made.write("a", b"a");
    made.git(&["add", "-A"]);
    let blob = made.git(&["hash-object", "-w", "a"]);
    let raw: Vec<u8> =
        (0..40).step_by(2).map(|at| u8::from_str_radix(&blob[at..at + 2], 16).unwrap()).collect();
    let mut tree = b"100644 ..\0".to_vec();
    tree.extend_from_slice(&raw);
    made.write("evil-tree", &tree);
    let tree = made.git(&["hash-object", "-t", "tree", "-w", "--literally", "evil-tree"]);
    let commit = made.git(&["commit-tree", "-m", "evil", &tree]);
    made.git(&["update-ref", "refs/heads/main", &commit]);
    let state = tempfile::tempdir().unwrap();
    let error = made.open(state.path()).commit(&Commit::from_str(&commit).unwrap()).err().unwrap();
    assert!(matches!(error, SourceError::Malformed { .. }), "{error}");
}
