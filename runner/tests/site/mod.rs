//! A site of its own for a test: a store with one image, keys, evidence, a policy and a configuration. No registry, no
//! network. The image runs the script that a test gives it as the database `script`.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use admission::{Question, Sources};
use attestations::provenance::{
    BUILD_TYPE, BuildDefinition, Builder, ExternalParameters, InternalParameters, Materials, Metadata,
    NORMALISER, Provenance, ResourceDescriptor, RunDetails,
};
use attestations::review::{Person, Review, Role, Scope, Verdict};
use attestations::{
    Admitted, Call, Caller, Commit, Decision, Digest, Predicate, PublicKey, SignError, Signer, Statement,
    Subject,
};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use images::image::{Config as ImageConfig, RootFs};
use images::layer::{Compression, Entry, Kind, LayerWriter};
use images::{Image, Platform, Store};
use runner::Result;
use runner::config::{Config, Database, EngineKind};
use runner::egress;
use runner::node::{Node, Outcome, Remembering, RunRequest};
use runner::record::{Ending, Entries, RecordedTask, RunReport, TaskOutput};
use runner::vantage6::Input;
use sandbox::Canceller;
use serde_json::json;

pub const NAME: &str = "registry.example/average";
/// What the image runs: whatever the test says.
pub const SCRIPT: &str = "/mnt/countersign/data/script/script.sh";

pub struct Site {
    pub folder: tempfile::TempDir,
    pub image: Image,
    pub store: Store,
    pub config: Config,
    runtime: tokio::runtime::Runtime,
    builder: Key,
}

/// An Ed25519 key of somebody, made anew.
pub struct Key {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Key {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public =
            PublicKey::from_raw(attestations::Algorithm::Ed25519, pair.public_key().as_ref()).unwrap();
        Self { pair, public }
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignError> {
        Ok(self.pair.sign(message).as_ref().to_vec())
    }
}

/// Whether containers cannot be run here, recorded as a skip; the caller then has tested nothing.
#[track_caller]
pub fn cannot_run() -> bool {
    !testing::can_run(&["runc", "busybox"])
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|path| path.exists())
}

impl Site {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A site whose image's config is changed before anything is signed.
    pub fn with(change: impl FnOnce(&mut ImageConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let store = Store::open(state.join("images")).unwrap();
        let image = image(&store, change);
        let (alice, builder) = (Key::new(), Key::new());
        let policy = folder.path().join("policy.toml");
        std::fs::write(&policy, policy_text(&alice, &builder)).unwrap();
        let mut config = Config::without_file(policy);
        config.state_dir = state;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let site = Self { folder, image, store, config, runtime: runtime.unwrap(), builder };
        std::fs::create_dir(site.evidence()).unwrap();
        site.sign("review.json", &review(), &alice);
        site.sign_build(site.image.config_descriptor().digest);
        site
    }

    /// The proof that the site's image may run.
    pub fn admitted(&self) -> Admitted {
        match self.runtime().block_on(self.node().verify(&self.question())).unwrap() {
            Decision::Admitted(admitted) => admitted,
            Decision::Denied(denial) => panic!("{denial}"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file of its policy.
    pub fn policy(&self) -> &Path {
        self.config.policy.as_deref().unwrap()
    }

    pub fn evidence(&self) -> PathBuf {
        self.path("evidence")
    }

    /// The builder's word for the image: that its config has this digest.
    pub fn sign_build(&self, config: Digest) {
        self.sign("build.json", &build(&self.image, config), &self.builder);
    }

    fn sign(&self, name: &str, statement: &Statement, key: &Key) {
        let bundle = attestations::sign(statement, key).unwrap();
        std::fs::write(self.evidence().join(name), bundle.to_bytes()).unwrap();
    }

    /// `registry.example/average@sha256:…`, of the image or another.
    pub fn reference(&self) -> String {
        format!("{NAME}@{}", self.image.digest())
    }

    pub fn question(&self) -> Question {
        Question {
            reference: self.reference().parse().unwrap(),
            call: Call::default(),
            evidence: vec![self.evidence()],
            sources: Sources::Offline,
            at: None,
            older: attestations::Older::Denied,
        }
    }

    pub fn node(&self) -> Node {
        self.try_node().unwrap()
    }

    fn try_node(&self) -> Result<Node> {
        Node::new(self.config.clone(), self.runtime.handle().clone(), Remembering::Always)
    }

    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// The databases of a run: the script, which is what the image runs.
    pub fn script(&self, script: &str) -> BTreeMap<String, Database> {
        let path = self.path("script.sh");
        std::fs::write(&path, script).unwrap();
        BTreeMap::from([("script".to_owned(), Database { path, kind: "csv".to_owned() })])
    }

    pub fn run_with(
        &self,
        engine: EngineKind,
        extra: BTreeMap<String, Database>,
        canceller: Canceller,
    ) -> Result<Outcome> {
        let input = Input::parse(br#"{"method":"average"}"#).unwrap();
        let (databases, caller) = (Vec::new(), Caller::default());
        let (question, place) = (self.question(), RecordedTask::new().unwrap());
        let run =
            RunRequest { question, input, databases, extra, caller, token: None, engine, canceller, place };
        self.try_node()?.run(run)
    }

    /// Runs a script in the image.
    pub fn run(&self, engine: EngineKind, script: &str) -> Result<Box<RunReport>> {
        match self.run_with(engine, self.script(script), Canceller::new())? {
            Outcome::Ran(report) => Ok(report),
            Outcome::Denied(denial) => panic!("denied: {denial}"),
        }
    }
}

/// What is known of a run with this result and output, which nothing ran for.
pub fn report(ending: Ending, result: Option<&[u8]>, printed: &[u8]) -> Box<RunReport> {
    static ADMITTED: OnceLock<Admitted> = OnceLock::new();
    // On a thread of its own: a test may have a runtime around it.
    let made = || std::thread::spawn(|| Site::new().admitted()).join().unwrap();
    let mut log = TaskOutput::new(8 << 20);
    log.push(printed);
    Box::new(RunReport {
        admitted: ADMITTED.get_or_init(made).clone(),
        revoked: None,
        unusable: None,
        ending,
        result: result.map(<[u8]>::to_vec),
        egress: egress::EgressLog { refused: 1, ..egress::EgressLog::default() },
        log,
        took: Duration::from_secs(1),
        entries: Entries { start: 0, end: 1 },
    })
}

/// An image of busybox alone, in `store`.
pub fn image(store: &Store, change: impl FnOnce(&mut ImageConfig)) -> Image {
    let mut layer = LayerWriter::new(store, Compression::Gzip).unwrap();
    let mut add = |path: &str, kind: Kind, mode: u32, content: &[u8]| {
        let path = path.as_bytes().to_vec();
        let entry = Entry { path, kind, mode, uid: 0, gid: 0, mtime: 1, xattrs: BTreeMap::new() };
        layer.add(&entry, &mut &content[..]).unwrap();
    };
    let binary = busybox().map(|path| std::fs::read(path).unwrap()).unwrap_or_default();
    let file = |content: &[u8]| Kind::File { size: content.len() as u64 };
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
    let group = b"root:x:0:\nnogroup:x:65534:\n";
    add("bin", Kind::Directory, 0o755, b"");
    add("bin/busybox", file(&binary), 0o755, &binary);
    let applets =
        ["cat", "dd", "grep", "head", "id", "ls", "nc", "sed", "sh", "sleep", "touch", "tr", "wget"];
    for applet in applets {
        add(&format!("bin/{applet}"), Kind::Symlink(b"busybox".to_vec()), 0o777, b"");
    }
    add("data", Kind::Directory, 0o755, b"");
    add("data/kept", file(b"of the image\n"), 0o644, b"of the image\n");
    add("etc", Kind::Directory, 0o755, b"");
    add("etc/group", file(group), 0o644, group);
    add("etc/passwd", file(passwd), 0o644, passwd);
    add("tmp", Kind::Directory, 0o1777, b"");
    let layer = layer.finish().unwrap();
    let platform = Platform::here();
    let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id] };
    let mut config = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        rootfs,
        ..ImageConfig::default()
    };
    config.config.entrypoint = Some(vec!["sh".to_owned()]);
    config.config.cmd = Some(vec![SCRIPT.to_owned()]);
    change(&mut config);
    Image::assemble(store, &config, vec![layer.descriptor]).unwrap()
}

fn policy_text(alice: &Key, builder: &Key) -> String {
    format!(
        r#"version = 1
[people.alice]
name = "Alice"
emails = ["alice@hospital.example"]
keys = ['''{}''']
[builders.ci]
id = "https://builder.example/ci"
operator = "university"
keys = ['''{}''']
[[algorithm]]
name = "{NAME}"
source = ["https://git.example/average"]
bases = "any"
functions = ["average"]
databases = "any"
[algorithm.reviews]
threshold = 1
from = ["alice"]
author_may_review = false
[algorithm.builds]
threshold = 1
from = ["ci"]
failed_rebuild = "veto"
"#,
        alice.public.to_pem(),
        builder.public.to_pem()
    )
}

fn commit() -> Commit {
    "1".repeat(40).parse().unwrap()
}

fn carol() -> Person {
    Person { name: "Carol".into(), email: "carol@developers.example".into() }
}

fn review() -> Statement {
    let review = Review {
        tree: "2".repeat(40).parse().unwrap(),
        verdict: Verdict::Approved,
        role: Role::code(),
        scope: Scope::Tree,
        reviewer: Person { name: "Alice".into(), email: "alice@hospital.example".into() },
        authors: vec![carol()],
        reviewed_on: "2026-01-02T03:04:05Z".parse().unwrap(),
        author_keys: Default::default(),
        expires_on: None,
        parameters: None,
        lock: None,
        note: None,
    };
    let subject = vec![Subject::commit("https://git.example/average", &commit())];
    Statement { subject, predicate: Predicate::Review(Box::new(review)) }
}

fn build(image: &Image, config_digest: Digest) -> Statement {
    let source = "git+https://git.example/average";
    let external_parameters = ExternalParameters {
        source: source.into(),
        commit: commit(),
        image: "default".into(),
        dockerfile: "Dockerfile".into(),
        context: ".".into(),
        target: None,
        build_args: BTreeMap::new(),
        labels: BTreeMap::new(),
        platform: Platform::here().to_string(),
        ports: BTreeMap::new(),
        secrets: Default::default(),
        git: None,
        overrides: Default::default(),
    };
    let internal_parameters = InternalParameters {
        normaliser: NORMALISER.into(),
        compressor: images::layer::COMPRESSOR.into(),
        source_date_epoch: 0,
        authors: vec![carol()],
        committers: Vec::new(),
        author_keys: Default::default(),
        config_digest,
        layers: Vec::new(),
        materials: Materials::Complete,
        responses: attestations::provenance::Responses::Fetched,
        normalised: BTreeMap::new(),
        inventory: Some(attestations::provenance::Inventory::Complete),
        rebuild_of: None,
    };
    let built = "2026-01-02T03:04:05Z".parse().unwrap();
    let provenance = Provenance {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE.into(),
            external_parameters,
            internal_parameters,
            resolved_dependencies: vec![
                ResourceDescriptor::source(source, &commit()),
                ResourceDescriptor::tree(source, &"2".repeat(40).parse().unwrap()),
                ResourceDescriptor::base(format!("{NAME}-base"), &Digest::of(b"base")),
            ],
        },
        run_details: RunDetails {
            builder: Builder { id: "https://builder.example/ci".into(), version: BTreeMap::new() },
            metadata: Metadata { invocation_id: "1".into(), started_on: built, finished_on: built },
            byproducts: Vec::new(),
        },
    };
    let subject = vec![Subject::image(NAME, &image.digest())];
    Statement { subject, predicate: Predicate::Provenance(Box::new(provenance)) }
}

/// The input of a run, as a file.
pub fn input_file(site: &Site, method: &str) -> PathBuf {
    let path = site.path("input.json");
    std::fs::write(&path, json!({ "method": method }).to_string()).unwrap();
    path
}
