//! ADD of URLs and of git repositories: fetched through the recorder, held against their checksums, and repeated with the
//! network cut.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use attestations::Digest;
use attestations::provenance::ResourceDescriptor;
use attestations::{Bundle, Predicate};
use testing::{Bench, Repository, Said, Site, SiteRequest, need, run};

fn said(status: u16, location: &str, body: &[u8]) -> Said {
    let headers = match location {
        "" => Vec::new(),
        to => vec![("Location".to_owned(), to.to_owned())],
    };
    (status, headers, body.to_vec())
}

/// An archive with one file.
fn archive() -> Vec<u8> {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("inner"), "inner").unwrap();
    let (top, out) = (folder.path().to_str().unwrap(), folder.path().join("a.tar.gz"));
    run("tar", ["-C", top, "-czf", out.to_str().unwrap(), "inner"]).expect(0);
    std::fs::read(out).unwrap()
}

fn files() -> Site {
    let archive = archive();
    Site::answering(move |asked: &SiteRequest| match asked.path.as_str() {
        "/data/one.txt" => said(200, "", b"one"),
        "/moved" => said(302, "http://other.example/tool?v=1", b"it has moved"),
        "/tool?v=1" => said(200, "", format!("a tool of {}", asked.host).as_bytes()),
        "/a.tar.gz" => said(200, "", &archive),
        "/count" => said(200, "", asked.number.to_string().as_bytes()),
        "/circle" => said(301, "/circle", b""),
        "/to-address" => said(307, "http://169.254.169.254/latest", b""),
        "/to-file" => said(308, "file:///etc/passwd", b""),
        "/nowhere" => said(302, "", b""),
        "/" => said(200, "", b"an index"),
        _ => said(404, "", b"nothing here"),
    })
}

const FILES: &str = r#"FROM base:1
ARG HOST=files.example
ARG SUM
ADD --checksum=sha256:$SUM http://${HOST}/data/one.txt#top /in/
ADD --chmod=0755 --chown=7:8 --link http://files.example/moved /in/tool
ADD --unpack http://files.example/a.tar.gz /unpacked
ADD http://files.example/a.tar.gz local.txt http://files.example/count /mixed/
RUN test "$(stat -c '%a %u %g' /in/one.txt)" = "600 0 0" && test "$(cat /in/one.txt)" = one
RUN test "$(stat -c '%a %u %g' /in/tool)" = "755 7 8" && test "$(cat /in/tool)" = "a tool of other.example"
RUN test "$(cat /unpacked/inner)" = inner && test "$(ls /mixed | tr '\n' ' ')" = "a.tar.gz count local.txt "
"#;

#[test]
fn urls_are_added_recorded_and_repeated_with_the_network_cut() {
    need!("runc", "unshare", "tar");
    let (site, bench) = (files(), Bench::new());
    bench.source.write("local.txt", "local");
    let commit = bench.dockerfile(FILES);
    let sum = format!("SUM={}", Digest::of(b"one").hex());
    let built = bench.build(&site.proxy(), &commit, &["--build-arg", &sum]).expect(0).json();
    assert_eq!(built["exchanges"], 6, "a redirect is one of its own: {built}");
    drop(site);

    // What the server would say another time is no matter.
    let again = bench.rebuild_cut_off(&[]).expect(0).json();
    assert_eq!((&again["identical"], &again["exchanges"]), (&true.into(), &6.into()), "{again}");
    let provenance = provenance(&bench);
    let kinds = |kind| provenance.iter().filter(|it| it.is(kind)).cloned().collect::<Vec<_>>();
    let steps: Vec<_> =
        kinds(ResourceDescriptor::EXCHANGE).iter().map(|it| it.annotations["step"].clone()).collect();
    assert_eq!(steps, ["0#1", "0#2", "0#2", "0#3", "0#4", "0#4"]);
    let package = &kinds(ResourceDescriptor::PACKAGE)[0];
    assert!(package.uri.as_deref().unwrap().starts_with("pkg:generic/a.tar.gz"), "{package:?}");

    // Another commit asks for what was not recorded.
    let other = bench.dockerfile(&FILES.replace("data/one.txt", "data/two.txt"));
    let digest = built["digest"].as_str().unwrap();
    let refused = bench.replay(&other, digest, &["--build-arg", &sum]).expect(5);
    let text = refused.text();
    assert!(text.contains("line 4") && text.contains("not in the record"), "{text}");
    assert!(text.contains("GET http://files.example/data/one.txt"), "the nearest is told: {text}");
}

/// The dependencies that the provenance names.
fn provenance(bench: &Bench) -> Vec<ResourceDescriptor> {
    let bundle = Bundle::parse(&std::fs::read(bench.path("bundle.json")).unwrap()).unwrap();
    match bundle.statement_unverified().unwrap().into_value().predicate {
        Predicate::Provenance(provenance) => provenance.build_definition.resolved_dependencies,
        _ => panic!("no provenance"),
    }
}

#[test]
fn what_cannot_be_added_is_refused_with_the_reason() {
    need!("runc");
    let (site, bench) = (files(), Bench::new());
    let wrong = format!("--checksum=sha256:{}", "0".repeat(64));
    let found = format!("found  sha256:{}", Digest::of(b"one").hex());
    let table: [(String, i32, &[&str]); 10] = [
        (
            format!("ADD {wrong} http://a.example/data/one.txt /"),
            3,
            &["line 2", "/data/one.txt is not what", &found],
        ),
        ("ADD http://a.example/missing /x".into(), 6, &["line 2", "http://a.example/missing", "404"]),
        ("ADD http://a.example/circle /x".into(), 6, &["/circle redirects once more"]),
        ("ADD http://a.example/to-address /x".into(), 3, &["169.254.169.254", "is an IP address"]),
        ("ADD http://a.example/to-file /x".into(), 6, &["to file, which is not recorded"]),
        ("ADD http://a.example/nowhere /x".into(), 6, &["redirects to nowhere"]),
        ("ADD http://127.0.0.1/x /x".into(), 3, &["is an IP address"]),
        ("ADD http://a.example:8080/x /x".into(), 3, &["port 8080 is not captured"]),
        ("ADD http://a.example/ /x/".into(), 3, &["no name for a file in /x/"]),
        ("ADD http://a.example/ /bin".into(), 3, &["/bin is a folder"]),
    ];
    for (line, code, words) in table {
        let commit = bench.dockerfile(&format!("FROM base:1\n{line}\n"));
        let text = bench.build(&site.proxy(), &commit, &[]).expect(code).text();
        assert!(words.iter().all(|word| text.contains(word)), "{line}: {text}");
    }
}

/// A repository with a branch that moves, a tag on its first commit, and what an image cannot hold in another branch.
fn repository(folder: &Path) -> (Repository, String, String) {
    let upstream = Repository::new();
    upstream.write("top.txt", "first");
    upstream.write("sub/tool", "a tool");
    let executable: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(upstream.path().join("sub/tool"), executable).unwrap();
    let first = upstream.commit("first");
    upstream.git(&["tag", "--annotate", "--message", "one", "v1"]);
    upstream.write("top.txt", "second");
    let second = upstream.commit("second");
    upstream.git(&["checkout", "--quiet", "-b", "nested"]);
    upstream.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{first},nested")]);
    upstream.git(&["commit", "--quiet", "--message", "a submodule"]);
    upstream.git(&["checkout", "--quiet", "main"]);
    publish(&upstream, folder, "x.git");
    (upstream, first, second)
}

fn publish(upstream: &Repository, folder: &Path, name: &str) {
    let (from, to) = (upstream.path(), folder.join(name));
    let _ = std::fs::remove_dir_all(&to);
    run("git", ["clone", "--quiet", "--bare", from.to_str().unwrap(), to.to_str().unwrap()]).expect(0);
}

#[test]
fn repositories_are_added_by_branch_tag_and_commit_and_repeated_as_they_were() {
    need!("runc", "unshare", "git");
    let (folder, bench) = (tempfile::TempDir::new().unwrap(), Bench::new());
    let (upstream, first, second) = repository(folder.path());
    let site = Site::of(folder.path());
    let commit = bench.dockerfile(&format!(
        r#"FROM base:1
ADD http://git.example/x.git /head
ADD --chown=7:8 http://git.example/x.git#v1:sub /sub
ADD --checksum={second} http://git.example/x.git#main /main/
ADD http://git.example/x.git#{first} /id
RUN test "$(cat /head/top.txt /main/top.txt /id/top.txt)" = secondsecondfirst && test ! -e /head/.git
RUN test "$(stat -c '%a %u %g' /sub/tool)" = "755 7 8" && test "$(stat -c '%a %u %g' /head/top.txt)" = "644 0 0"
"#
    ));
    let built = bench.build(&site.proxy(), &commit, &[]).expect(0).json();
    let taken: Vec<_> = provenance(&bench)
        .into_iter()
        .filter(|it| it.is(ResourceDescriptor::GIT))
        .map(|it| (it.uri.unwrap(), it.digest["gitCommit"].clone(), it.annotations["step"].clone()))
        .collect();
    let of = |commit: &str, number: u8| {
        ("git+http://git.example/x.git".to_owned(), commit.to_owned(), format!("0#{number}").into())
    };
    assert_eq!(taken, [of(&second, 1), of(&first, 2), of(&second, 3), of(&first, 4)]);

    // The branch moves on: a replay does not, a build does, and one that says what it wants notices.
    upstream.write("top.txt", "third");
    let third = upstream.commit("third");
    publish(&upstream, folder.path(), "x.git");
    let moved = bench.build(&site.proxy(), &commit, &["--no-keep"]).expect(3).text();
    assert!(moved.contains("line 4") && moved.contains(&format!("found  {third}")), "{moved}");
    drop(site);
    let digest = built["digest"].as_str().unwrap();
    assert_eq!(bench.replay(&commit, digest, &[]).expect(0).json()["digest"], built["digest"]);
    let again = bench.rebuild_cut_off(&[]).expect(0).json();
    assert_eq!(again["identical"], true, "{again}");
    let other = bench.dockerfile("FROM base:1\nADD http://git.example/x.git#nested /x\n");
    let refused = bench.replay(&other, digest, &[]).expect(5).text();
    assert!(refused.contains("not in the record"), "{refused}");
}

/// Commits submodules, each with its path, its URL and its commit, without having them.
fn with_submodules(outer: &Repository, all: &[(&str, &str, &str)]) -> String {
    let mut list = String::new();
    for (path, url, commit) in all {
        list.push_str(&format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"));
        outer.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    }
    outer.write(".gitmodules", &list);
    outer.git(&["add", ".gitmodules"]);
    outer.git(&["commit", "--quiet", "--message", "submodules"]);
    outer.git(&["rev-parse", "HEAD"]).trim().to_owned()
}

#[test]
fn submodules_come_with_their_repository_and_are_repeated() {
    need!("runc", "unshare", "git");
    let (folder, bench) = (tempfile::TempDir::new().unwrap(), Bench::new());
    let [deep, inner, outer] = [(); 3].map(|()| Repository::new());
    deep.write("file", "deep");
    let deep_commit = deep.commit("deep");
    // What is asked for is the commit, wherever the branch is by now.
    deep.write("file", "later");
    deep.commit("later");
    inner.write("file", "inner");
    inner.commit("inner");
    let inner_commit = with_submodules(&inner, &[("in/deep", "http://git.example/deep.git", &deep_commit)]);
    outer.write("file", "outer");
    outer.commit("outer");
    let nobody = "0123456789012345678901234567890123456789";
    let ssh = ("by/ssh", "git@git.example:deep.git", deep_commit.as_str());
    let gone = ("by/id", "../deep.git", nobody);
    let outer_commit = with_submodules(&outer, &[("vendor/inner", "../inner.git", &inner_commit), ssh, gone]);
    for (repository, name) in [(&deep, "deep.git"), (&inner, "inner.git"), (&outer, "outer.git")] {
        publish(repository, folder.path(), name);
    }
    let site = Site::of(folder.path());
    let commit = bench.dockerfile(
        r#"FROM base:1
ADD http://git.example/outer.git#main:vendor /vendor
ADD http://git.example/outer.git#main:vendor/inner/in /in
RUN test "$(cat /vendor/inner/file /vendor/inner/in/deep/file /in/deep/file)" = innerdeepdeep
RUN test "$(ls -A /vendor/inner | tr '\n' ' ')" = ".gitmodules file in "
"#,
    );
    let built = bench.build(&site.proxy(), &commit, &[]).expect(0).json();
    let taken: Vec<_> = provenance(&bench)
        .into_iter()
        .filter(|it| it.is(ResourceDescriptor::GIT))
        .map(|it| {
            let submodule = it.annotations.get("submodule").and_then(|path| path.as_str());
            (it.uri.unwrap(), it.digest["gitCommit"].clone(), submodule.unwrap_or_default().to_owned())
        })
        .collect();
    let of = |name: &str, commit: &str, path: &str| {
        (format!("git+http://git.example/{name}.git"), commit.to_owned(), path.to_owned())
    };
    let once = [
        of("outer", &outer_commit, ""),
        of("inner", &inner_commit, "vendor/inner"),
        of("deep", &deep_commit, "vendor/inner/in/deep"),
    ];
    assert_eq!(taken, [once.clone(), once].concat());
    for (folder, words) in [
        ("by/ssh", "by/ssh cannot be fetched: git@git.example:deep.git is no URL"),
        ("by/id", "by/id cannot be fetched: http://git.example/deep.git: "),
    ] {
        let refused =
            bench.dockerfile(&format!("FROM base:1\nADD http://git.example/outer.git#main:{folder} /x\n"));
        let text = bench.build(&site.proxy(), &refused, &[]).expect(3).text();
        assert!(text.contains(words) && text.contains("line 2"), "{text}");
    }
    drop(site);
    let digest = built["digest"].as_str().unwrap();
    assert_eq!(bench.replay(&commit, digest, &[]).expect(0).json()["digest"], built["digest"]);
}

#[test]
fn repositories_that_cannot_be_added_are_refused_with_the_reason() {
    need!("runc", "git");
    let (folder, bench) = (tempfile::TempDir::new().unwrap(), Bench::new());
    let (_, first, _) = repository(folder.path());
    let site = Site::of(folder.path());
    let nobody = "0123456789012345678901234567890123456789";
    let table = [
        (
            "http://git.example/x.git#nested /x".to_owned(),
            3,
            "nested cannot be fetched: .gitmodules has no URL",
        ),
        ("http://git.example/x.git#none /x".to_owned(), 6, "neither a branch nor a tag none"),
        (format!("http://git.example/x.git#{nobody} /x"), 6, nobody),
        ("http://git.example/x.git#main:none /x".to_owned(), 3, "has no none"),
        ("http://git.example/x.git#main:top.txt /x".to_owned(), 3, "not a folder"),
        ("http://git.example/missing.git /x".to_owned(), 6, "git says"),
        ("http://127.0.0.1/x.git /x".to_owned(), 6, "git says"),
        (format!("--checksum={first} http://git.example/x.git /x"), 3, "is not at the commit"),
    ];
    for (line, code, words) in table {
        let commit = bench.dockerfile(&format!("FROM base:1\nADD {line}\n"));
        let text = bench.build(&site.proxy(), &commit, &[]).expect(code).text();
        assert!(text.contains(words) && text.contains("line 2"), "{line}: {text}");
    }
}
