//! What a commit only names, submodules and files in Git LFS: fetched when something copies it, checked, and named.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use attestations::provenance::ResourceDescriptor;
use attestations::{Bundle, Digest};
use serde_json::{Value, json};
use testing::{
    Outcome, Repository, Said, Site, SiteRequest, base_image, builder, git_answer, need, program, run,
};

const CONTENT: &[u8] = b"the weights of a model";

fn pointer(content: &[u8]) -> String {
    let (hex, size) = (Digest::of(content).hex(), content.len());
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{hex}\nsize {size}\n")
}

/// Commits what is there, and submodules at these commits without having them.
fn commit(repository: &Repository, submodules: &[(&str, &str, &str)]) -> String {
    let mut list = String::new();
    for (path, url, _) in submodules {
        list.push_str(&format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"));
    }
    if !list.is_empty() {
        repository.write(".gitmodules", &list);
    }
    repository.git(&["add", "--all"]);
    for (path, _, commit) in submodules {
        repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    }
    repository.git(&["commit", "--quiet", "--message", "a commit"]);
    repository.git(&["rev-parse", "HEAD"]).trim().to_owned()
}

fn publish(repository: &Repository, folder: &Path, name: &str) {
    let (from, to) = (repository.path(), folder.join(name));
    run("git", ["clone", "--quiet", "--bare", from.to_str().unwrap(), to.to_str().unwrap()]).expect(0);
}

/// A builder with a state of its own.
struct Work {
    folder: tempfile::TempDir,
    base: PathBuf,
}

impl Work {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = base_image(folder.path());
        let work = Self { folder, base };
        builder(["keygen", "--no-password", "--out", &work.text("key.pem")]).expect(0);
        work
    }

    fn text(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn call(&self, environment: &[&str], words: &[&str]) -> Outcome {
        let (builder, base) = (program("countersign-builder"), format!("base:1={}", self.base.display()));
        let own = [builder.to_str().unwrap(), "--state-dir", &self.text("state"), "--json"];
        let base = if words[0] == "build" { vec!["--base", &base] } else { Vec::new() };
        run("env", [environment, &own, words, &base].concat())
    }

    fn build(&self, environment: &[&str], repository: &str, commit: &str) -> Outcome {
        let (key, bundle) = (self.text("key.pem"), self.text("bundle.json"));
        let words = ["build", "--repo", repository, "--commit", commit, "--key", &key];
        let more = ["--builder-id", "https://ci.example/", "--bundle-out", &bundle];
        self.call(environment, &[&words[..], &more].concat())
    }

    /// What the last build names of a kind: its path, where it came from and its digest.
    fn named(&self, kind: &str) -> Vec<(String, String, String)> {
        let bundle = Bundle::parse(&std::fs::read(self.text("bundle.json")).unwrap()).unwrap();
        let provenance = bundle.statement_unverified().unwrap().into_provenance().unwrap().into_value();
        let all = provenance.build_definition.resolved_dependencies.into_iter().filter(|it| it.is(kind));
        let one = |it: ResourceDescriptor| {
            let digest = it.digest.values().next().unwrap().clone();
            (it.text("path").unwrap().to_owned(), it.uri.unwrap(), digest)
        };
        all.map(one).collect()
    }
}

/// A server of git repositories and of LFS, and what it was asked.
fn server(folder: &Path, content: &'static [u8]) -> (Site, Arc<Mutex<Vec<String>>>) {
    let (folder, log) = (folder.to_owned(), Arc::new(Mutex::new(Vec::new())));
    let kept = log.clone();
    let json = |status, value: Value| -> Said { (status, Vec::new(), value.to_string().into_bytes()) };
    let site = Site::answering(move |asked: &SiteRequest| {
        kept.lock().unwrap().push(format!("{} {}{}", asked.method, asked.host, asked.path));
        let is_allowed = asked.headers.get("authorization").is_some_and(|it| it == "Basic dTpw");
        match asked.path.as_str() {
            "/team/x.git/info/lfs/objects/batch" if !is_allowed => json(401, json!({ "message": "who?" })),
            path if path.ends_with("/info/lfs/objects/batch") => {
                let wanted: Value = serde_json::from_slice(&asked.body).unwrap();
                let objects = wanted["objects"].as_array().unwrap().iter().map(|object| {
                    let download = json!({ "href": "http://store.example/blob", "header": { "X-Token": "t" } });
                    match object["oid"] == Digest::of(CONTENT).hex() {
                        true => json!({ "oid": object["oid"], "size": object["size"], "actions": { "download": download } }),
                        false => json!({ "oid": object["oid"], "error": { "code": 404, "message": "not here" } }),
                    }
                });
                json(200, json!({ "transfer": "basic", "objects": objects.collect::<Vec<_>>() }))
            }
            "/blob" if asked.headers.contains_key("x-token") => (200, Vec::new(), content.to_vec()),
            _ => git_answer(&folder, asked).unwrap_or((404, Vec::new(), Vec::new())),
        }
    });
    (site, log)
}

/// Credentials as a user's helper has them.
const HELPER: [&str; 3] = [
    "GIT_CONFIG_COUNT=1",
    "GIT_CONFIG_KEY_0=credential.helper",
    "GIT_CONFIG_VALUE_0=!f() { test \"$1\" = get && printf 'username=u\\npassword=p\\n'; }; f",
];

const COPIES: &str = r#"FROM base:1
COPY vendor/inner /inner
COPY --exclude=*.big data /data
RUN --mount=type=bind,source=models,target=/models cp /models/weights /weights
RUN test "$(cat /inner/file /inner/in/deep/file)" = innerdeep && test ! -e /inner/left-out
RUN test "$(cat /weights /inner/model)" = "the weights of a modelthe weights of a model" && test -x /inner/model
"#;

#[test]
fn what_is_copied_is_fetched_at_its_pinned_commit_and_checked() {
    need!("runc", "git");
    let (folder, work) = (tempfile::tempdir().unwrap(), Work::new());
    let [deep, inner, outer] = [(); 3].map(|()| Repository::new());
    deep.write("file", "deep");
    let deep_commit = commit(&deep, &[]);
    deep.write("file", "later");
    commit(&deep, &[]);
    inner.write("file", "inner");
    inner.write("left-out", "x");
    inner.write("model", &pointer(CONTENT));
    let executable: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(inner.path().join("model"), executable).unwrap();
    let inner_commit = commit(&inner, &[("in/deep", "http://git.example/team/deep.git", &deep_commit)]);
    outer.write("Dockerfile", COPIES);
    outer.write(".dockerignore", "vendor/inner/left-out\n");
    outer.write("models/weights", &pointer(CONTENT));
    outer.write("data/small", "1");
    // What nothing takes is nowhere to be had.
    outer.write("data/x.big", &pointer(b"nobody has it"));
    outer.write("paper/figure.png", &pointer(b"nor this"));
    let nowhere = ("docs", "http://gone.example/docs.git", deep_commit.as_str());
    let id = commit(&outer, &[("vendor/inner", "../inner.git", &inner_commit), nowhere]);
    std::fs::create_dir(folder.path().join("team")).unwrap();
    for (repository, name) in [(&deep, "deep"), (&inner, "inner"), (&outer, "x")] {
        publish(repository, folder.path(), &format!("team/{name}.git"));
    }
    let (site, log) = server(folder.path(), CONTENT);
    let proxy = format!("http_proxy={}", site.proxy());
    let environment = [&[proxy.as_str(), "no_proxy=127.0.0.1"], &HELPER[..]].concat();
    let url = "http://git.example/team/x.git";
    let built = work.build(&environment, url, &id).expect(0).json();

    let of = |path: &str, name: &str, digest: &str| {
        (path.to_owned(), format!("git+http://git.example/team/{name}.git"), digest.to_owned())
    };
    let submodules =
        [of("vendor/inner", "inner", &inner_commit), of("vendor/inner/in/deep", "deep", &deep_commit)];
    assert_eq!(work.named(ResourceDescriptor::SUBMODULE), submodules);
    let hex = Digest::of(CONTENT).hex();
    assert_eq!(
        work.named(ResourceDescriptor::LFS),
        [of("models/weights", "x", &hex), of("vendor/inner/model", "inner", &hex)]
    );
    let asked = std::mem::take(&mut *log.lock().unwrap());
    assert!(asked.iter().all(|line| !line.contains("gone.example")), "{asked:#?}");
    let blobs = asked.iter().filter(|line| line.ends_with("/blob")).count();
    assert_eq!(blobs, 1, "one content is fetched once: {asked:#?}");

    // Repeated by somebody who has nothing of it yet.
    let (trusted, bundle, other) = (work.text("key.pem.pub"), work.text("bundle.json"), work.text("other"));
    let base = format!("base:1={}", work.base.display());
    let words = ["rebuild", "--provenance", &bundle, "--builder-keys", &trusted, "--base", &base];
    let materials = work.text("materials.tar");
    let digest = built["digest"].as_str().unwrap();
    work.call(&[], &["materials", "export", digest, "--out", &materials]).expect(0);
    let builder = program("countersign-builder");
    let own = [builder.to_str().unwrap(), "--state-dir", &other, "--json"];
    let more = ["--materials", materials.as_str()];
    let again = run("env", [&environment, &own[..], &words, &more].concat()).expect(0).json();
    assert_eq!(again["identical"], true, "{again}");
}

#[test]
fn what_cannot_be_had_is_refused_before_anything_runs() {
    need!("runc", "git");
    let (folder, work) = (tempfile::tempdir().unwrap(), Work::new());
    let other = Repository::new();
    other.write("file", "x");
    let other_commit = commit(&other, &[]);
    publish(&other, folder.path(), "other.git");
    let mut deepest = other_commit.clone();
    for number in 0..12 {
        let below =
            if number == 0 { "../other.git".to_owned() } else { format!("../deep{}.git", number - 1) };
        let deep = Repository::new();
        deepest = commit(&deep, &[("in", &below, &deepest)]);
        publish(&deep, folder.path(), &format!("deep{number}.git"));
    }
    let (site, _) = server(folder.path(), b"the weights of a modem");
    let proxy = format!("http_proxy={}", site.proxy());
    let environment = [proxy.as_str(), "no_proxy=127.0.0.1"];
    let nobody = "0123456789012345678901234567890123456789";
    let local = format!("file://{}", folder.path().join("other.git").display());
    let malformed = pointer(CONTENT).replace("size ", "size x");
    let table = [
        ("../other.git", nobody, "", 6, "the submodule sub cannot be fetched: commit 0123456789"),
        (&local, other_commit.as_str(), "", 3, "is not fetched by https or ssh"),
        ("ext::sh -c id", other_commit.as_str(), "", 3, "transport helpers run programs"),
        ("../deep11.git", deepest.as_str(), "", 3, "it is more than 10 deep in others"),
        ("../other.git", &other_commit, &pointer(CONTENT), 6, "should have the digest"),
        ("../other.git", &other_commit, &pointer(b"another"), 6, "its server says 404: not here"),
        ("../other.git", &other_commit, &malformed, 3, "file is a Git LFS pointer that is malformed"),
    ];
    for (number, (url, submodule, file, code, words)) in table.into_iter().enumerate() {
        let outer = Repository::new();
        outer.write("Dockerfile", "FROM base:1\nRUN touch /ran\nCOPY . /x\n");
        outer.write("file", file);
        let id = commit(&outer, &[("sub", url, submodule)]);
        let name = format!("x{number}.git");
        publish(&outer, folder.path(), &name);
        let refused = work.build(&environment, &format!("http://git.example/{name}"), &id);
        let text = refused.text();
        assert!(text.contains(words) && text.contains("line 3"), "{url}: {text}");
        assert!(!text.contains("\"event\":\"step\""), "nothing runs before: {text}");
        assert_eq!(refused.code, code, "{text}");
    }
}

#[test]
fn a_clone_on_this_machine_has_what_it_needs_itself() {
    need!("runc", "git");
    let (folder, work) = (tempfile::tempdir().unwrap(), Work::new());
    let (inner, outer) = (Repository::new(), Repository::new());
    inner.write("file", "inner");
    let inner_commit = commit(&inner, &[]);
    outer.write("Dockerfile", "FROM base:1\nCOPY . /x\nRUN test \"$(cat /x/sub/file /x/model)\" = \"innerthe weights of a model\"\n");
    outer.write("model", &pointer(CONTENT));
    let id = commit(&outer, &[("sub", "https://gone.example/inner.git", &inner_commit)]);
    // As `git submodule update` and `git lfs pull` leave them.
    publish(&inner, &outer.path().join(".git"), "modules/sub");
    let hex = Digest::of(CONTENT).hex();
    let objects = outer.path().join(format!(".git/lfs/objects/{}/{}", &hex[..2], &hex[2..4]));
    std::fs::create_dir_all(&objects).unwrap();
    std::fs::write(objects.join(&hex), CONTENT).unwrap();
    let repository = outer.path().display().to_string();
    work.build(&[], &repository, &id).expect(0);
    let submodules = work.named(ResourceDescriptor::SUBMODULE);
    assert_eq!(
        submodules,
        [("sub".to_owned(), "git+https://gone.example/inner.git".to_owned(), inner_commit)]
    );

    // One that was changed there is another file.
    std::fs::write(objects.join(&hex), "the weights of a mad model").unwrap();
    let other = Work { folder, base: work.base.clone() };
    builder(["keygen", "--no-password", "--out", &other.text("key.pem")]).expect(0);
    let refused = other.build(&[], &repository, &id);
    let text = refused.text();
    assert!(refused.code != 0 && text.contains("model is in Git LFS and cannot be fetched"), "{text}");
}
