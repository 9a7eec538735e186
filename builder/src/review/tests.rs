//! Real repositories, honest and hostile ones.

use std::path::Path;
use std::process::Command;

use attestations::keys::Algorithm;
use tempfile::TempDir;

use super::contents::Flag;
use super::show::Shown;
use super::*;
use crate::source::Location;
use signers::{Protection, generate, load};

/// A repository with a work tree and a state directory.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { dir: TempDir::new().unwrap() };
        std::fs::create_dir(place.repo()).unwrap();
        place.git(&["init", "-q", "-b", "main"]);
        place
    }

    fn repo(&self) -> std::path::PathBuf {
        self.dir.path().join("repo")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Carol",
                "-c",
                "user.email=carol@example.org",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(self.repo())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.repo().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn open(&self) -> Repository {
        let location = Location::parse(self.repo().to_str().unwrap()).unwrap();
        Repository::open(&self.dir.path().join("state"), &location).unwrap()
    }

    fn key(&self, name: &str) -> Box<dyn Signer> {
        let path = self.dir.path().join(name);
        generate(&path, Algorithm::Ed25519, &Protection::Unprotected).unwrap();
        load(&path, &mut || panic!("no password is needed")).unwrap()
    }

    fn shown(&self, commit: &str, since: Option<&str>) -> (Shown, String) {
        let repository = self.open();
        let shown = Subjects::fetch(&repository, commit, since).unwrap().show(false).unwrap();
        let text = shown.to_text();
        (shown, text)
    }
}

fn opinion(verdict: Verdict) -> Opinion {
    Opinion {
        verdict,
        reviewer: Person { name: "Alice".into(), email: "alice@example.org".into() },
        note: Some("read on paper".into()),
        on: "2026-11-23T10:00:00Z".parse().unwrap(),
    }
}

#[test]
fn a_signed_review_says_what_was_read() {
    let place = Place::new();
    place.write("Dockerfile", "FROM scratch\n");
    let commit = place.commit("one\n\nCo-authored-by: Dave <dave@example.org>");
    let repository = place.open();
    let key = place.key("alice");
    let subjects = Subjects::fetch(&repository, &commit, None).unwrap();
    let bundle = subjects.sign(opinion(Verdict::Approved), &*key).unwrap();
    let verified = verify(bundle.to_bytes(), key.public_key()).unwrap();
    let statement = verified.value();
    assert_eq!(statement.subject.len(), 1);
    assert_eq!(statement.subject[0].digest["gitCommit"], commit);
    assert!(statement.subject[0].name.starts_with("file:///"));
    let Predicate::Review(review) = &statement.predicate else { panic!("{statement:?}") };
    assert_eq!(review.tree.to_string(), place.git(&["rev-parse", "HEAD^{tree}"]));
    assert_eq!((review.verdict, &review.scope), (Verdict::Approved, &Scope::Tree));
    let authors: Vec<_> = review.authors.iter().map(|author| author.email.as_str()).collect();
    assert_eq!(authors, ["carol@example.org", "dave@example.org"]);
    assert_eq!(review.note.as_deref(), Some("read on paper"));

    let mallory = place.key("mallory");
    let error = verify(bundle.to_bytes(), mallory.public_key()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(verify(b"{}", key.public_key()).unwrap_err().kind(), Kind::Input);
}

#[test]
fn a_review_of_changes_names_every_author_since() {
    let place = Place::new();
    place.write("a", "1");
    let first = place.commit("one");
    place.write("a", "2");
    place.git(&["add", "-A"]);
    place.git(&["commit", "-q", "-m", "two", "--author", "Erin <erin@example.org>"]);
    place.write("a", "3");
    let last = place.commit("three");
    let repository = place.open();
    let key = place.key("alice");
    let subjects = Subjects::fetch(&repository, &last, Some(&first)).unwrap();
    let bundle = subjects.sign(opinion(Verdict::Rejected), &*key).unwrap();
    let verified = verify(bundle.to_bytes(), key.public_key()).unwrap();
    let Predicate::Review(review) = &verified.value().predicate else { panic!("no review") };
    assert_eq!(review.scope, Scope::Changes { since: first.parse().unwrap() });
    assert!(review.authors.iter().any(|author| author.email == "erin@example.org"));
    let backwards = Subjects::fetch(&repository, &first, Some(&last)).err().unwrap();
    assert_eq!(backwards.kind(), Kind::Input);
    let short = Subjects::fetch(&repository, &last[..12], None).err().unwrap();
    assert_eq!(short.kind(), Kind::Usage);
    let unknown = Subjects::fetch(&repository, &"1".repeat(40), None).err().unwrap();
    assert_eq!(unknown.kind(), Kind::NotFound);
}

#[test]
fn everything_is_listed_and_what_decides_comes_first() {
    let place = Place::new();
    place.write("a.py", "print(1)\n");
    place.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    place.write("countersign.toml", "version = 1\n");
    place.write("model.bin", [0u8, 1, 2]);
    place.write("big.csv", "1,2,3\n".repeat(200_000));
    place.write("weights", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    std::os::unix::fs::symlink("../../etc/passwd", place.repo().join("out")).unwrap();
    place.git(&["add", "-A"]);
    place.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        "160000,1111111111111111111111111111111111111111,sub",
    ]);
    place.git(&["update-index", "--chmod=+x", "a.py"]);
    place.git(&["commit", "-q", "-m", "one"]);
    let commit = place.git(&["rev-parse", "HEAD"]);
    let (shown, text) = place.shown(&commit, None);
    let paths: Vec<_> = shown.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths[..2], ["countersign.toml", "Dockerfile"]);
    let flags = |name: &str| shown.files.iter().find(|file| file.path == name).unwrap().flags.clone();
    assert_eq!(flags("model.bin"), [Flag::Binary]);
    assert_eq!(flags("big.csv"), [Flag::Oversized]);
    assert_eq!(flags("out"), [Flag::Link, Flag::LeadsOut]);
    assert_eq!(flags("sub"), [Flag::Submodule]);
    assert_eq!(flags("weights"), [Flag::LfsPointer]);
    assert_eq!(flags("a.py"), [Flag::Executable]);
    assert_eq!(shown.files.len(), 9 - 1);
    assert!(text.contains(&format!("tree        {}", place.git(&["rev-parse", "HEAD^{tree}"]))));
    assert!(text.contains("100755         9 a.py  [executable]"), "{text}");
    assert!(text.contains("120000        16 out -> ../../etc/passwd"), "{text}");
    assert!(text.contains("    2 | COPY . /\n") && text.contains("    1 | print(1)\n"), "{text}");
    assert!(text.contains("! 1 × SUBMODULE") && !text.contains("1,2,3"), "{text}");
    let dockerfile = text.find("\n=== 100644        22 Dockerfile").unwrap();
    assert!(dockerfile < text.find("\n=== 100755         9 a.py").unwrap());
}

/// Trojan Source (CVE-2021-42574), escape sequences in names, messages and files, and an imitated file header.
#[test]
fn a_hostile_source_cannot_fool_the_terminal() {
    let place = Place::new();
    place.write(
        "a.py",
        "ok\n=== 100644 1 innocent.py\naccess = '\u{202E}\u{2066}user'\n\u{1b}[2J\u{1b}]0;x\u{7}",
    );
    place.write("\u{1b}[31mred\n.py", "x\n");
    place.write("zero\u{200B}width", "x\n");
    let commit = place.commit("innocent\u{1b}[2A\r\n\u{202E}tnecsed");
    let (_, text) = place.shown(&commit, None);
    let allowed = |c: char| c == '\n' || c == '\t' || !visible::is_deceptive(c);
    assert!(text.chars().all(allowed), "{text:?}");
    assert!(text.contains("⟨U+202E⟩⟨U+2066⟩user") && text.contains("⟨U+001B⟩[31mred⟨U+000A⟩.py"), "{text}");
    assert!(text.contains("    2 | === 100644 1 innocent.py"), "{text}");
    assert!(!text.contains("\n=== 100644 1 innocent.py"), "a file imitated a header: {text}");
}

#[test]
fn attributes_do_not_hide_changes() {
    let place = Place::new();
    place.write("a.py", "one\n");
    place.write("gone", "x\n");
    let first = place.commit("one");
    place.write(".gitattributes", "* -diff -text binary linguist-generated\n*.py diff=nothing\n");
    place.write("a.py", "one\nevil\u{202E}()\n");
    place.write("model.bin", [0u8, 9]);
    std::fs::remove_file(place.repo().join("gone")).unwrap();
    place.git(&["add", "-A"]);
    place.git(&["update-index", "--chmod=+x", "a.py"]);
    place.git(&["commit", "-q", "-m", "two"]);
    let last = place.git(&["rev-parse", "HEAD"]);
    let (shown, text) = place.shown(&last, Some(&first));
    assert!(text.contains("\n+evil⟨U+202E⟩()\n"), "{text}");
    assert!(text.contains("\n-x\n") && text.contains("deleted\n            100644         2 gone"), "{text}");
    assert!(text.contains("before  100644         4 a.py") && text.contains("after   100755"), "{text}");
    assert!(text.contains("! 1 × BINARY"), "{text}");
    let kinds: Vec<_> = shown.changes.iter().map(|change| change.what).collect();
    assert_eq!(kinds, ["added", "modified", "deleted", "added"]);
    assert!(!text.contains('\u{202E}'));
}

#[test]
fn the_working_directory_is_never_read() {
    let place = Place::new();
    place.write("a.py", "committed\n");
    let commit = place.commit("one");
    place.write("a.py", "changed\n");
    place.write("new.py", "new\n");
    let (shown, text) = place.shown(&commit, None);
    assert_eq!(shown.files.len(), 1);
    assert!(text.contains("committed") && !text.contains("changed"));
    assert!(Path::new(&place.repo()).join("new.py").exists());
}
