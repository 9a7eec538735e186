//! Real repositories, honest and hostile ones.

use std::path::Path;
use std::process::Command;

use attestations::keys::Algorithm;
use tempfile::TempDir;

use super::contents::Flag;
use super::request::{Choice, ReviewRequest};
use super::show::{Contents, Shown};
use super::unreviewed::{Criteria, Reviewed, newest_reviewed};
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
        let shown = Subjects::fetch(&repository, commit, since).unwrap().show(&Contents::All).unwrap();
        let text = shown.to_text();
        (shown, text)
    }
}

fn opinion(verdict: Verdict) -> Opinion {
    Opinion {
        verdict,
        role: Role::code(),
        reviewer: Person { name: "Alice".into(), email: "alice@example.org".into() },
        note: Some("read on paper".into()),
        on: "2026-11-23T10:00:00Z".parse().unwrap(),
        expires: None,
        parameters: None,
        lock: None,
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
    let since_tree = place.git(&["rev-parse", &format!("{first}^{{tree}}")]).parse().unwrap();
    assert_eq!(review.scope, Scope::Changes { since: first.parse().unwrap(), since_tree });
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
    assert!(text.contains("\n! a.py:3: BIDIRECTIONAL CONTROL: U+202E\n"), "{text}");
    assert!(text.contains("\n! a.py:4: control character: U+001B\n"), "{text}");
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

#[test]
fn contents_are_shown_by_path_and_the_list_is_always_whole() {
    let place = Place::new();
    place.write("a.py", "print(1)\n");
    place.write("data/big.csv", "1,2,3\n".repeat(200_000));
    place.write("data/small.csv", "4\n");
    place.write("database", "5\n");
    place.write("tool", b"\x7fELF\0");
    let first = place.commit("one");
    let repository = place.open();
    let subjects = Subjects::fetch(&repository, &first, None).unwrap();
    let shown = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        subjects.show(&Contents::Of(paths)).map(|shown| (shown.files.len(), shown.to_text()))
    };
    let (count, text) = shown(&["data/"]).unwrap();
    assert!(count == 5 && text.contains("    1 | 4\n"), "{text}");
    assert!(!text.contains("print(1)") && !text.contains("| 5") && !text.contains("1,2,3"), "{text}");
    assert!(text.contains("! tool: BINARY: program or library (ELF)"), "{text}");
    let (_, text) = shown(&["data/big.csv", "a.py"]).unwrap();
    assert!(text.contains("200000 | 1,2,3\n") && text.contains("print(1)"), "it is not cut");
    let error = shown(&["a.py", "dat"]).unwrap_err();
    assert!(error.kind() == Kind::NotFound && error.to_string().contains("path dat"), "{error}");

    place.write("a.py", "print(2)\n");
    place.write("data/small.csv", "6\u{200B}\n");
    let last = place.commit("two");
    let subjects = Subjects::fetch(&repository, &last, Some(&first)).unwrap();
    let shown = subjects.show(&Contents::Of(vec!["a.py".to_owned()])).unwrap();
    let text = shown.to_text();
    assert!(text.contains("+print(2)") && !text.contains("+6") && text.contains("small.csv"), "{text}");
    assert!(text.contains("! data/small.csv:1: INVISIBLE CHARACTER: U+200B"), "{text}");
    let value = serde_json::to_value(&shown).unwrap();
    assert_eq!(value["findings"][0]["lines"], serde_json::json!([1]));
    assert_eq!(value["findings"][0]["kind"], "invisible");
}

#[test]
fn a_request_is_worked_out_again_before_anybody_signs_it() {
    let place = Place::new();
    place.write("Dockerfile", "FROM scratch AS one\nARG A\nFROM one\n");
    place.write("countersign.toml", "version = 1\n[image.default]\nargs = { A = \"1\" }\n");
    place.write("docker/other", "FROM scratch\n");
    let first = place.commit("one");
    place.write("a", "1");
    let last = place.commit("two");
    let repository = place.open();
    let subjects = |since: Option<&str>| Subjects::fetch(&repository, &last, since).unwrap();
    let choice = || Choice {
        dockerfile: None,
        context: None,
        image: None,
        target: Some("one".to_owned()),
        arguments: [("B".to_owned(), "2".to_owned())].into(),
        roles: [Role::code(), "privacy".parse().unwrap()].into(),
        note: Some("please".to_owned()),
    };
    for since in [None, Some(first.as_str())] {
        let request = ReviewRequest::new(&subjects(since), choice()).unwrap();
        let text = request.to_text().unwrap();
        let read = |text: &str| ReviewRequest::parse("a.json", text.as_bytes());
        let request = read(&text).unwrap();
        assert_eq!(request.to_text().unwrap(), text);
        let found = request.subjects(&repository).unwrap();
        assert_eq!((found.commit().id().as_str(), &found.scope().unwrap()), (last.as_str(), &request.scope));
        let lines = request.lines(&found).unwrap().join("\n");
        assert!(
            lines.contains("for         code, privacy") && lines.contains("target      one  [NOT"),
            "{lines}"
        );
        assert!(lines.contains("build-arg   A=1\n") && lines.contains("build-arg   B=2  [NOT"), "{lines}");
        let tree = place.git(&["rev-parse", "HEAD^{tree}"]);
        let blob = place.git(&["rev-parse", "HEAD:a"]);
        let other = "1".repeat(40);
        for (from, to, what) in [
            (tree.as_str(), other.as_str(), "tree"),
            (&blob, &other, "list of files"),
            ("\"A\": \"1\",", "", "way to build it"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            let error = read(&changed).unwrap().subjects(&repository).err().unwrap();
            assert!(error.kind() == Kind::Refused && error.to_string().contains(what), "{error}");
        }
        // Another Dockerfile can be asked for, if there is one, and is not passed off as the commit's choice.
        let elsewhere = |path: &str| {
            let (from, to) = ("\"dockerfile\": \"Dockerfile\"", format!("\"dockerfile\": \"{path}\""));
            read(&text.replace(from, &to)).unwrap()
        };
        assert_eq!(elsewhere("other").subjects(&repository).err().unwrap().kind(), Kind::NotFound);
        let other = elsewhere("docker/other");
        let lines = other.lines(&other.subjects(&repository).unwrap()).unwrap().join("\n");
        assert!(lines.contains("dockerfile  docker/other  [NOT FROM THE COMMIT]"), "{lines}");
        for (from, to) in [("\"version\": 1", "\"version\": 2"), ("\"roles\"", "\"more\": 1, \"roles\"")] {
            assert_eq!(read(&text.replace(from, to)).unwrap_err().kind(), Kind::Input);
        }
    }
}

/// A history of four commits: what is unreviewed begins after the newest one that has enough reviews.
#[test]
fn what_is_unreviewed_begins_after_the_newest_reviewed_commit() {
    let place = Place::new();
    let commits: Vec<String> = ["1", "2", "3", "4"]
        .map(|content| {
            place.write("a", content);
            place.commit(content)
        })
        .to_vec();
    let repository = place.open();
    let (alice, bob, carol) = (place.key("alice"), place.key("bob"), place.key("carol"));
    let keys = [&alice, &bob, &carol].map(|key| key.public_key().clone());
    let sign =
        |key: &dyn Signer, who: &str, commit: usize, since: Option<usize>, change: &dyn Fn(&mut Opinion)| {
            let since = since.map(|at| commits[at].as_str());
            let mut opinion = opinion(Verdict::Approved);
            opinion.reviewer.email = format!("{who}@example.org");
            change(&mut opinion);
            let subjects = Subjects::fetch(&repository, &commits[commit], since).unwrap();
            gate::HandedIn::parse("a.json", subjects.sign(opinion, key).unwrap().to_bytes(), &keys).unwrap()
        };
    let nothing = |_: &mut Opinion| {};
    let newest = |reviews: &[gate::HandedIn], role: &str, threshold| {
        let commit = repository.commit(&commits[3].parse().unwrap()).unwrap();
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let asked = Criteria { role: role.parse().unwrap(), threshold, now };
        newest_reviewed(&commit, reviews, &asked).unwrap()
    };
    let at = |found: Option<Reviewed>| {
        found.map(|it| commits.iter().position(|id| *id == it.commit.to_string()).unwrap())
    };
    assert_eq!(newest(&[], "code", 1), None);
    // Carol wrote all of it.
    assert_eq!(newest(&[sign(&*carol, "carol", 1, None, &nothing)], "code", 1), None);
    let reviews = vec![
        sign(&*alice, "alice", 0, None, &nothing),
        sign(&*bob, "bob", 0, None, &nothing),
        sign(&*alice, "alice", 1, Some(0), &nothing),
        sign(&*bob, "bob", 2, Some(1), &nothing),
    ];
    let found = newest(&reviews, "code", 1).unwrap();
    assert_eq!((found.commit.as_str(), found.by.len()), (commits[2].as_str(), 1), "a chain of changes");
    assert_eq!(at(newest(&reviews, "code", 2)), Some(0), "alice and bob read only that one both");
    assert_eq!(at(newest(&reviews, "privacy", 1)), None);
    // Changes since a commit that lacks reviews are no chain; a rejected or expired one breaks it.
    assert_eq!(at(newest(&reviews[3..], "code", 1)), None);
    let no = |it: &mut Opinion| it.verdict = Verdict::Rejected;
    let mut rejected = reviews;
    rejected.push(sign(&*bob, "bob", 1, None, &no));
    assert_eq!(at(newest(&rejected, "code", 1)), Some(0));
    let over = |it: &mut Opinion| it.expires = Some("2026-11-24T00:00:00Z".parse().unwrap());
    assert_eq!(at(newest(&[sign(&*alice, "alice", 3, None, &over)], "code", 1)), None);
    assert_eq!(at(newest(&[sign(&*alice, "alice", 3, None, &nothing)], "code", 1)), Some(3));
}
