//! The table of Dockerfiles: each case is built by us and by the Docker engine with its own BuildKit, and compared entry by
//! entry. Where a newer BuildKit is installed, each is built by that as well. See `tests/dockerfiles/README.md`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use attestations::Digest;
use images::layer::{LayerLimits, open_archive};
use images::{Image, Store};
use serde::Deserialize;
use serde_json::Value;
use testing::files::{Root, Tree, unpacked};
use testing::{BuildKit, Engine, Repository, base_image, builder, need, run};

/// Fields of the configuration that are compared. Not among them: what Docker leaves of its own (`Image`, `Hostname`,
/// `AttachStdin` and so on), which says nothing of the image.
const FIELDS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
];

/// What a case asks beside its Dockerfile.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseSettings {
    arguments: BTreeMap<String, String>,
    target: Option<String>,
    refused: Option<String>,
    /// Paths and fields that differ on purpose, each with the reason.
    differs: BTreeMap<String, String>,
    /// The same, from the engine's older BuildKit alone.
    differs_docker: BTreeMap<String, String>,
    /// The same, from BuildKit of today alone.
    differs_buildkit: BTreeMap<String, String>,
}

/// Who builds a case beside us.
#[derive(Clone, Copy)]
enum Peer<'a> {
    /// The engine that every test machine has. Its BuildKit is of 2021: what it lacks a `Dockerfile.docker` says otherwise.
    Docker(&'a Engine),
    /// BuildKit of today, where it is installed.
    BuildKit(&'a BuildKit),
}

struct Built {
    tree: Tree,
    config: Value,
    author: Value,
    /// What each entry of the history did, and whether it made a layer.
    history: Vec<(String, bool)>,
}

/// One half of the cases, with a repository and a state of its own.
struct Bench<'a> {
    peers: &'a [Peer<'a>],
    folder: tempfile::TempDir,
    base: &'a Path,
    repository: Repository,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dockerfiles")
}

fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("Dockerfile").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_dockerfile_means_here_what_it_means_to_docker() {
    need!("runc", "skopeo", "dockerd", "docker", "git", "tar");
    let mut cases = cases();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    if let Ok(text) = std::env::var("CASES") {
        cases.retain(|name| name.contains(&text));
    }
    let place = tempfile::TempDir::new().unwrap();
    let base = base_image(place.path());
    let engine = Engine::start();
    engine.load(&base, "base:1");
    let newest = BuildKit::start(&base, "base:1");
    if newest.is_none() {
        eprintln!("*** BuildKit of today is not asked: `buildkitd` and `buildctl` are not on the PATH ***");
    }
    let peers: Vec<Peer<'_>> =
        std::iter::once(Peer::Docker(&engine)).chain(newest.as_ref().map(Peer::BuildKit)).collect();
    let (even, odd): (Vec<_>, Vec<_>) = cases.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let halves = [even, odd].map(|half| {
            let (peers, base) = (peers.as_slice(), base.as_path());
            scope.spawn(move || {
                let bench = Bench {
                    peers,
                    folder: tempfile::TempDir::new().unwrap(),
                    base,
                    repository: Repository::new(),
                };
                half.into_iter().filter_map(|(_, name)| bench.check(name).err()).collect::<Vec<_>>()
            })
        });
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

impl Bench<'_> {
    fn check(&self, name: &str) -> Result<(), String> {
        let case = folder().join(name);
        let asked: CaseSettings = match std::fs::read_to_string(case.join("case.toml")) {
            Ok(text) => toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")),
            Err(_) => CaseSettings::default(),
        };
        let commit = self.commit(&case);
        let ours = self.ours(&commit, &asked);
        if let Some(words) = &asked.refused {
            return match ours {
                Err((code, text)) if matches!(code, 3..=5) && text.contains(words) => Ok(()),
                Err((code, text)) => Err(format!("{name}: code {code}, and not `{words}`: {text}")),
                Ok(_) => Err(format!("{name}: built, and should be refused")),
            };
        }
        let ours = ours.map_err(|(code, text)| format!("{name}: not built here, code {code}: {text}"))?;
        let told: Vec<String> = self
            .peers
            .iter()
            .filter_map(|peer| self.beside(*peer, name, &case, &asked, &ours).err())
            .collect();
        if told.is_empty() { Ok(()) } else { Err(told.join("\n")) }
    }

    /// Compares what we built with what a peer makes of the same.
    fn beside(
        &self,
        peer: Peer<'_>,
        name: &str,
        case: &Path,
        asked: &CaseSettings,
        ours: &Built,
    ) -> Result<(), String> {
        let (who, theirs, own) = match peer {
            Peer::Docker(it) => ("Docker", self.by_docker(it, name, case, asked), &asked.differs_docker),
            Peer::BuildKit(it) => ("BuildKit", self.by_buildkit(it, asked), &asked.differs_buildkit),
        };
        let theirs = theirs.map_err(|text| format!("{name}: not built by {who}: {text}"))?;
        let mut differences = compare(ours, &theirs);
        if matches!(peer, Peer::Docker(_)) && case.join("Dockerfile.docker").is_file() {
            differences.remove("history");
        }
        for (path, reason) in asked.differs.iter().chain(own) {
            assert!(!reason.is_empty(), "{name}: {path} differs without a reason");
            if differences.remove(path).is_none() {
                differences.insert(path.clone(), "does not differ any more\n".to_owned());
            }
        }
        let told: String = differences.iter().map(|(what, how)| format!("  {what}\n{how}")).collect();
        if told.is_empty() { Ok(()) } else { Err(format!("{name}, beside {who}:\n{told}")) }
    }

    fn commit(&self, case: &Path) -> String {
        let root = self.repository.path();
        for entry in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_name() == ".git" {
                continue;
            }
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            }
            .unwrap();
        }
        let own = case.join("context");
        let context = if own.is_dir() { own } else { folder().join("_context") };
        let copied = Command::new("cp").arg("-a").arg(context.join(".")).arg(&root).status().unwrap();
        assert!(copied.success());
        std::fs::copy(case.join("Dockerfile"), root.join("Dockerfile")).unwrap();
        let script = case.join("context.sh");
        if script.is_file() {
            let mut making = Command::new("sh");
            let made = making.arg("-eu").arg(&script).current_dir(&root).output().unwrap();
            assert!(made.status.success(), "{}: {made:?}", script.display());
        }
        leave_out_git(&root);
        self.repository.commit("case")
    }

    fn ours(&self, commit: &str, asked: &CaseSettings) -> Result<Built, (i32, String)> {
        let layout = self.folder.path().join("layout");
        let _ = std::fs::remove_dir_all(&layout);
        let (state, repository) = (self.folder.path().join("state"), self.repository.path());
        let base = format!("base:1={}", self.base.display());
        let mut arguments = vec!["--state-dir", state.to_str().unwrap(), "build", "--json", "--repo"];
        arguments.extend([repository.to_str().unwrap(), "--commit", commit, "--base", &base, "--oci"]);
        arguments.push(layout.to_str().unwrap());
        let pairs: Vec<String> =
            asked.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        arguments.extend(pairs.iter().flat_map(|pair| ["--build-arg", pair]));
        arguments.extend(asked.target.iter().flat_map(|target| ["--target", target.as_str()]));
        let outcome = builder(arguments);
        if outcome.code != 0 {
            return Err((outcome.code, outcome.text()));
        }
        let store = Store::open_existing(&layout).unwrap();
        let digest: Digest = outcome.json()["digest"].as_str().unwrap().parse().unwrap();
        let image = Image::load(&store, &digest).unwrap();
        let mut root = Root::default();
        for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()) {
            root.apply(open_archive(&store, layer, Some(diff_id), LayerLimits::default()).unwrap().reader());
        }
        Ok(built(root, &serde_json::to_value(image.config()).unwrap()))
    }

    /// The very tree of the commit, with the modes that git knows, and times of its own: BuildKit takes a file of the same
    /// name, size and time for the one that it was sent before.
    fn context(&self) -> PathBuf {
        let context = self.folder.path().join("context");
        let _ = std::fs::remove_dir_all(&context);
        std::fs::create_dir(&context).unwrap();
        let tree = self.folder.path().join("tree.tar");
        self.repository.git(&["-c", "tar.umask=022", "archive", "--output", tree.to_str().unwrap(), "HEAD"]);
        run("tar", ["-xmf", tree.to_str().unwrap(), "-C", context.to_str().unwrap()]).expect(0);
        context
    }

    fn by_docker(
        &self,
        engine: &Engine,
        name: &str,
        case: &Path,
        asked: &CaseSettings,
    ) -> Result<Built, String> {
        let context = self.context();
        let other = case.join("Dockerfile.docker");
        if other.is_file() {
            std::fs::copy(other, context.join("Dockerfile")).unwrap();
        }
        let tag = format!("case:{name}");
        let mut arguments = vec!["--network=none".to_owned(), "--tag".to_owned(), tag.clone()];
        for (name, value) in &asked.arguments {
            arguments.extend(["--build-arg".to_owned(), format!("{name}={value}")]);
        }
        if let Some(target) = &asked.target {
            arguments.extend(["--target".to_owned(), target.clone()]);
        }
        arguments.push(context.to_str().unwrap().to_owned());
        let outcome = engine.build(&arguments);
        if outcome.code != 0 {
            return Err(outcome.text());
        }
        let archive = self.folder.path().join("theirs.tar");
        engine.docker(["save", "--output", archive.to_str().unwrap(), &tag]).expect(0);
        Ok(of_archive(&archive))
    }

    fn by_buildkit(&self, buildkit: &BuildKit, asked: &CaseSettings) -> Result<Built, String> {
        let context = self.context();
        let arguments = asked.arguments.iter().map(|(name, value)| format!("--opt=build-arg:{name}={value}"));
        let target = asked.target.iter().map(|target| format!("--opt=target={target}"));
        let archive = self.folder.path().join("theirs.tar");
        let output =
            format!("type=docker,dest={},compression=uncompressed,force-compression=true", archive.display());
        let outcome = buildkit.build(&context, "none", &output, &arguments.chain(target).collect::<Vec<_>>());
        if outcome.code != 0 {
            return Err(outcome.text());
        }
        Ok(of_archive(&archive))
    }
}

/// Leaves `.git` out of the context, as it is for the peers, who are sent the files alone.
fn leave_out_git(root: &Path) {
    for name in ["Dockerfile.dockerignore", ".dockerignore"] {
        let file = root.join(name);
        if name == ".dockerignore" || file.is_file() {
            let mut text = std::fs::read(&file).unwrap_or_default();
            text.extend_from_slice(b"\n.git\n");
            std::fs::write(file, text).unwrap();
        }
    }
}

/// An image in the form that `docker load` reads.
fn of_archive(archive: &Path) -> Built {
    let files = unpacked(archive);
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let config: Value = serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
    let mut root = Root::default();
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        root.apply(files[layer.as_str().unwrap()].as_slice());
    }
    built(root, &config)
}

fn built(root: Root, config: &Value) -> Built {
    let history = config["history"].as_array().unwrap().iter().map(history).collect();
    Built { tree: root.finish(), config: config["config"].clone(), author: config["author"].clone(), history }
}

/// An entry of the history in BuildKit's form without its mark, which is ours too.
fn history(entry: &Value) -> (String, bool) {
    let text = entry["created_by"].as_str().unwrap_or_default();
    let text = text.strip_suffix(" # buildkit").unwrap_or(text).to_owned();
    let copies = ["COPY", "ADD"].into_iter().find(|keyword| text.starts_with(keyword));
    (copies.map_or(text.clone(), str::to_owned), entry["empty_layer"].as_bool() == Some(true))
}

/// What differs, and how.
fn compare(ours: &Built, theirs: &Built) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let paths: BTreeSet<&String> = ours.tree.keys().chain(theirs.tree.keys()).collect();
    for path in paths {
        let (a, b) = (ours.tree.get(path), theirs.tree.get(path));
        if a != b {
            found.insert(format!("/{path}"), format!("    ours:   {a:?}\n    theirs: {b:?}\n"));
        }
    }
    let fields =
        FIELDS.iter().map(|field| (format!("config.{field}"), &ours.config[field], &theirs.config[field]));
    for (field, a, b) in fields.chain([("author".to_owned(), &ours.author, &theirs.author)]) {
        if plain(a) != plain(b) {
            found.insert(field, format!("    ours:   {a}\n    theirs: {b}\n"));
        }
    }
    if ours.history != theirs.history {
        let told = format!("    ours:   {:#?}\n    theirs: {:#?}\n", ours.history, theirs.history);
        found.insert("history".to_owned(), told);
    }
    found
}

/// An empty value is none; so is the root as a working directory.
fn plain(value: &Value) -> Value {
    let empty = match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty() || text == "/",
        _ => false,
    };
    if empty { Value::Null } else { value.clone() }
}
