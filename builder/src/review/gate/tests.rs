//! The gate compared with the node's policy.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use attestations::keys::{Algorithm, SignError, Signer};
use attestations::provenance::{
    BUILD_TYPE, BuildDefinition, Builder, ExternalParameters, InternalParameters, Materials, Metadata,
    NORMALISER, Provenance, ResourceDescriptor, RunDetails,
};
use attestations::review::{Person as Named, Review, Role, Scope, Verdict};
use attestations::{Call, Decision, Evidence, Policy, Predicate, Question, Subject, decide, sign};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::source::Location;

const SOURCE: &str = "https://git.example/average";
const NOW: &str = "2026-06-01T12:00:00Z";
const PEOPLE: [&str; 5] = ["alice", "bob", "carol", "mallory", "stranger"];

struct Key(Ed25519KeyPair, PublicKey);

impl Key {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = PublicKey::from_raw(Algorithm::Ed25519, pair.public_key().as_ref()).unwrap();
        Self(pair, public)
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        &self.1
    }

    fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignError> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

/// A test review: the given facts, and otherwise a valid one of the commit to build.
#[derive(Clone)]
struct Said {
    who: &'static str,
    subjects: Vec<Subject>,
    review: Review,
}

impl Said {
    fn on(mut self, when: &str) -> Self {
        self.review.reviewed_on = when.parse().unwrap();
        self
    }

    fn no(mut self) -> Self {
        self.review.verdict = Verdict::Rejected;
        self
    }

    fn tree(mut self, tree: &Tree) -> Self {
        self.review.tree = tree.clone();
        self
    }

    fn since(mut self, (commit, tree): &(Commit, Tree)) -> Self {
        self.review.scope = Scope::Changes { since: commit.clone(), since_tree: tree.clone() };
        self
    }

    fn until(mut self, end: &str) -> Self {
        self.review.expires_on = Some(end.parse().unwrap());
        self
    }

    fn role(mut self, role: &str) -> Self {
        self.review.role = role.parse().unwrap();
        self
    }

    fn dockerfile(mut self, path: &str) -> Self {
        self.review.parameters = Some(Parameters { dockerfile: path.to_owned(), ..parameters() });
        self
    }

    fn about(mut self, subjects: &[Subject]) -> Self {
        self.subjects = subjects.to_vec();
        self
    }
}

fn person(name: &str) -> Named {
    Named { name: name.into(), email: format!("{name}@example.org") }
}

/// How the commit is built.
fn parameters() -> Parameters {
    Parameters {
        dockerfile: "Dockerfile".to_owned(),
        context: ".".to_owned(),
        target: None,
        build_args: BTreeMap::new(),
        bases: None,
    }
}

/// Three commits: an earlier one, the one to build, and one with another message but the same tree.
struct World {
    keys: BTreeMap<&'static str, Key>,
    ci: Key,
    repository: Repository,
    commits: [(Commit, Tree); 3],
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (work, state) = (folder.path().join("work"), folder.path().join("state"));
        std::fs::create_dir(&work).unwrap();
        git(&work, &["init", "-q", "-b", "main"]);
        let mut ids = Vec::new();
        for (file, message) in [("one", "one"), ("two", "two"), ("two", "again")] {
            std::fs::write(work.join(file), file).unwrap();
            git(&work, &["add", "-A"]);
            git(&work, &["commit", "-q", "--allow-empty", "-m", message]);
            ids.push(git(&work, &["rev-parse", "HEAD"]).parse::<Commit>().unwrap());
        }
        let repository = Repository::open(&state, &Location::parse(work.to_str().unwrap()).unwrap()).unwrap();
        let commits = <[Commit; 3]>::try_from(ids).unwrap().map(|id| {
            let tree = repository.commit(&id).unwrap().tree().unwrap();
            (id, tree)
        });
        let keys = PEOPLE.into_iter().map(|name| (name, Key::new())).collect();
        Self { keys, ci: Key::new(), repository, commits, _folder: folder }
    }

    /// A review of nothing yet.
    fn blank() -> Review {
        Review {
            tree: "1".repeat(40).parse().unwrap(),
            verdict: Verdict::Approved,
            role: Role::code(),
            scope: Scope::Tree,
            reviewer: person("nobody"),
            authors: vec![person("carol")],
            reviewed_on: "2026-05-01T12:00:00Z".parse().unwrap(),
            author_keys: Default::default(),
            expires_on: None,
            parameters: None,
            lock: None,
            note: None,
        }
    }

    fn said(&self, who: &'static str) -> Said {
        let (commit, tree) = &self.commits[1];
        let review = Review { tree: tree.clone(), reviewer: person(who), ..Self::blank() };
        Said { who, subjects: vec![Subject::commit(SOURCE, commit)], review }
    }

    /// A review of the commit before.
    fn before(&self, who: &'static str) -> Said {
        let (commit, tree) = &self.commits[0];
        self.said(who).about(&[Subject::commit(SOURCE, commit)]).tree(tree)
    }

    fn signed(&self, said: &[Said]) -> Vec<Vec<u8>> {
        let one = |it: &Said| {
            let statement = Statement {
                subject: it.subjects.clone(),
                predicate: Predicate::Review(Box::new(it.review.clone())),
            };
            sign(&statement, &self.keys[it.who]).unwrap().to_bytes().to_vec()
        };
        said.iter().map(one).collect()
    }

    /// Whether the builder's gate lets the commit be built.
    fn gate(&self, bundles: &[Vec<u8>]) -> Result<()> {
        let known = self.keys.iter().filter(|(name, _)| **name != "stranger");
        let keys: Vec<PublicKey> = known.map(|(_, key)| key.1.clone()).collect();
        let handed_in: Vec<HandedIn> =
            bundles.iter().map(|bytes| HandedIn::parse("a.json", bytes, &keys).unwrap()).collect();
        let demand = Demand { roles: BTreeMap::from([(Role::code(), 2)]), now: NOW.parse().unwrap() };
        let commit = self.repository.commit(&self.commits[1].0).unwrap();
        check(&demand, &handed_in, &commit, &parameters())
    }

    /// Whether the node admits its image.
    fn node(&self, bundles: &[Vec<u8>]) -> Decision {
        let mut policy = String::from("version = 1\n");
        for name in &PEOPLE[..4] {
            let key = self.keys[name].1.to_pem();
            policy.push_str(&format!(
                "[people.{name}]\nname = '{name}'\nemails = ['{name}@example.org']\nkeys = ['''{key}''']\n"
            ));
        }
        policy.push_str(&format!(
            "[builders.ci]\nid = 'https://ci.example'\noperator = 'ci'\nkeys = ['''{}''']\n\
             [[algorithm]]\nname = 'registry.example/average'\nsource = 'any'\nbases = []\nfunctions = 'any'\n\
             reviews = {{ threshold = 2, from = ['alice', 'bob', 'carol', 'mallory'] }}\n\
             builds = {{ threshold = 1, from = ['ci'], failed_rebuild = 'veto' }}\n",
            self.ci.1.to_pem()
        ));
        let digest = Digest::of(b"image");
        let question =
            Question { asked: "registry.example/average:1".parse().unwrap(), digest, call: Call::default() };
        let build = Statement {
            subject: vec![Subject::image("average", &digest)],
            predicate: Predicate::Provenance(Box::new(self.provenance())),
        };
        let build = sign(&build, &self.ci).unwrap().to_bytes().to_vec();
        let evidence: Vec<Evidence> = bundles
            .iter()
            .cloned()
            .chain([build])
            .map(|bytes| Evidence { origin: "a.json".to_owned(), bytes })
            .collect();
        decide(&Policy::parse(&policy).unwrap(), &question, &evidence, NOW.parse().unwrap())
    }

    fn provenance(&self) -> Provenance {
        let (commit, tree) = &self.commits[1];
        let time = "2026-05-02T12:00:00Z".parse().unwrap();
        Provenance {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: ExternalParameters {
                    source: SOURCE.to_owned(),
                    commit: commit.clone(),
                    image: "default".to_owned(),
                    dockerfile: "Dockerfile".to_owned(),
                    context: ".".to_owned(),
                    target: None,
                    build_args: BTreeMap::new(),
                    labels: BTreeMap::new(),
                    platform: "linux/amd64".to_owned(),
                    secrets: BTreeSet::new(),
                    ports: BTreeMap::new(),
                    git: None,
                    overrides: BTreeSet::new(),
                },
                internal_parameters: InternalParameters {
                    normaliser: NORMALISER.to_owned(),
                    compressor: "gzip".to_owned(),
                    source_date_epoch: 1,
                    authors: vec![Named { name: "Carol".into(), email: "carol@example.org".into() }],
                    committers: Vec::new(),
                    author_keys: Default::default(),
                    config_digest: Digest::of(b"config"),
                    layers: Vec::new(),
                    materials: Materials::Complete,
                    responses: attestations::provenance::Responses::Fetched,
                    inventory: None,
                    normalised: BTreeMap::new(),
                    rebuild_of: None,
                },
                resolved_dependencies: vec![
                    ResourceDescriptor::source(SOURCE, commit),
                    ResourceDescriptor::tree(SOURCE, tree),
                ],
            },
            run_details: RunDetails {
                builder: Builder { id: "https://ci.example".to_owned(), version: BTreeMap::new() },
                metadata: Metadata { invocation_id: "1".to_owned(), started_on: time, finished_on: time },
                byproducts: Vec::new(),
            },
        }
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Carol", "-c", "user.email=carol@example.org"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Each case with whether the commit counts as reviewed, for the builder and for the node.
#[test]
fn the_gate_and_the_node_count_reviews_alike() {
    let world = World::new();
    let [(before, first), (commit, built), (again, same)] = &world.commits;
    assert_eq!(built, same);
    let (future, subject) = ("2026-06-01T12:06:00Z", |id: &Commit| Subject::commit(SOURCE, id));
    let odd = Subject { name: String::new(), digest: BTreeMap::from([("gitCommit".into(), "odd".into())]) };
    let (alice, bob) = (world.said("alice"), world.said("bob"));
    let (mallory, stranger) = (world.said("mallory"), world.said("stranger"));
    let start = &world.commits[0];
    let changed = [alice.clone().since(start), bob.clone().since(start)];
    let elsewhere = &(before.clone(), built.clone());
    let [old_alice, old_bob, old_mallory] = ["alice", "bob", "mallory"].map(|who| world.before(who));
    let enough = [alice.clone(), bob.clone()];
    let and = |all: &[Said], more: Said| [all, &[more]].concat();
    let reviewed = [&changed[..], &[old_alice.clone(), old_bob.clone()]].concat();
    let odd = || odd.clone();
    let cases: Vec<(&str, Vec<Said>, bool)> = vec![
        ("two approvals", enough.to_vec(), true),
        ("one approval", vec![alice.clone()], false),
        ("one person twice", vec![alice.clone(), alice.clone().on("2026-05-02T12:00:00Z")], false),
        ("an approval of later than now", vec![alice.clone(), bob.clone().on(future)], false),
        ("an approval by the author", vec![alice.clone(), world.said("carol")], false),
        ("an approval of another tree", vec![alice.clone(), bob.clone().tree(first)], false),
        (
            "an approval of two commits",
            vec![alice.clone(), bob.clone().about(&[subject(commit), subject(again)])],
            false,
        ),
        ("an approval of another commit", vec![alice.clone(), bob.clone().about(&[subject(again)])], false),
        ("an approval by nobody known", vec![alice.clone(), stranger.clone()], false),
        ("a rejection", and(&enough, mallory.clone().no()), false),
        ("a rejection of later than now", and(&enough, mallory.clone().no().on(future)), false),
        (
            "a rejection among others",
            and(&enough, mallory.clone().no().about(&[subject(before), subject(commit)])),
            false,
        ),
        (
            "a rejection of the tree in another commit",
            and(&enough, mallory.clone().no().about(&[subject(again)])),
            false,
        ),
        (
            "a rejection of the tree without a commit",
            and(&enough, mallory.clone().no().about(&[odd()])),
            false,
        ),
        (
            "a rejection of the commit with another tree",
            and(&enough, mallory.clone().no().tree(first)),
            false,
        ),
        ("a rejection of something else", and(&enough, old_mallory.clone().no()), true),
        ("an approval for another role", vec![alice.clone(), bob.clone().role("privacy")], false),
        ("a rejection for another role", and(&enough, mallory.clone().no().role("privacy")), false),
        ("an approval that has ended", vec![alice.clone(), bob.clone().until(NOW)], false),
        ("an approval that ends later", vec![alice.clone(), bob.clone().until("2026-06-02T00:00:00Z")], true),
        ("an approval for this build", vec![alice.clone(), bob.clone().dockerfile("Dockerfile")], true),
        ("an approval for another build", vec![alice.clone(), bob.clone().dockerfile("b")], false),
        ("a rejection by nobody known", and(&enough, stranger.no()), true),
        ("changes since nothing reviewed", changed.to_vec(), false),
        ("changes since what one reviewed", and(&changed, old_alice.clone()), false),
        ("changes since what two reviewed", reviewed.clone(), true),
        ("changes since what was rejected", and(&reviewed, old_mallory.clone().no()), false),
        (
            "changes since a tree that was rejected",
            and(&reviewed, old_mallory.clone().no().about(&[subject(again)])),
            false,
        ),
        (
            "changes since a tree that was rejected without a commit",
            and(&reviewed, old_mallory.no().about(&[odd()])),
            false,
        ),
        (
            "changes since another tree than what two reviewed",
            vec![
                world.said("alice").since(elsewhere),
                world.said("bob").since(elsewhere),
                old_alice.clone(),
                old_bob.clone(),
            ],
            false,
        ),
    ];
    for (name, said, counts) in cases {
        let bundles = world.signed(&said);
        let (gate, node) = (world.gate(&bundles), world.node(&bundles));
        assert_eq!(gate.is_ok(), counts, "the gate: {name}: {gate:?}");
        assert_eq!(matches!(node, Decision::Admitted(_)), counts, "the node: {name}: {node:?}");
    }
}

#[test]
fn keys_and_addresses_of_one_person_count_once() {
    let world = World::new();
    let named = |who: &'static str, email: &str| {
        let mut said = world.said(who);
        said.review.reviewer.email = email.to_owned();
        said
    };
    let all =
        [named("alice", "a@example.org"), named("bob", "A@example.org "), named("bob", "b@example.org")];
    for at in 0..all.len() {
        let mut all = all.clone();
        all.rotate_left(at);
        let refused = world.gate(&world.signed(&all)).unwrap_err().to_string();
        assert!(refused.contains("has 1 of the 2 reviews"), "{refused}");
    }
}

#[test]
fn what_a_rejection_says_cannot_steer_a_terminal() {
    let world = World::new();
    let mut no = world.said("mallory").no();
    no.review.note = Some(format!("bad\u{1b}[2J\n{}", "x".repeat(1 << 16)));
    let refused = world.gate(&world.signed(&[no])).unwrap_err().to_string();
    assert!(refused.contains(r"mallory@example.org (a.json) bad\u{1b}[2J\nxxx"), "{refused}");
    assert!(!refused.contains(['\u{1b}', '\n']) && refused.len() < 500, "{refused}");
}

/// A commit that Mallory committed for Carol, and one that is signed with Bob's SSH key under Carol's name.
#[test]
fn who_committed_or_signed_it_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let (work, state) = (folder.path().join("work"), folder.path().join("state"));
    std::fs::create_dir(&work).unwrap();
    git(&work, &["init", "-q", "-b", "main"]);
    let bob = folder.path().join("bob");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", bob.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(made.success());
    let key = PublicKey::parse(&std::fs::read_to_string(bob.with_extension("pub")).unwrap()).unwrap();
    let id = |more: &[&str]| {
        git(&work, &[more, &["commit", "-q", "--allow-empty", "-m", "one"]].concat());
        git(&work, &["rev-parse", "HEAD"]).parse::<Commit>().unwrap()
    };
    let plain = id(&[]);
    let author = "--author=Carol <carol@example.org>";
    git(
        &work,
        &[
            "-c",
            "user.name=Mallory",
            "-c",
            "user.email=mallory@example.org",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "two",
            author,
        ],
    );
    let committed = git(&work, &["rev-parse", "HEAD"]).parse::<Commit>().unwrap();
    let signing = format!("user.signingkey={}", bob.display());
    let signed = id(&["-c", "gpg.format=ssh", "-c", &signing, "-c", "commit.gpgsign=true"]);
    let repository = Repository::open(&state, &Location::parse(work.to_str().unwrap()).unwrap()).unwrap();

    let writers = |id: &Commit| repository.commit(id).unwrap().writers();
    assert_eq!(writers(&plain).keys, BTreeSet::new());
    assert_eq!(writers(&committed).committers[0].email, "mallory@example.org");
    assert_eq!(writers(&signed).keys, BTreeSet::from([key.id()]));
    assert_eq!(writers(&signed).people().len(), 1, "it says that Carol alone made it");

    let keys = [key];
    let signer = signers::load(&bob, &mut || panic!("no password is needed")).unwrap();
    let verdict = |id: &Commit, email: &str| {
        let commit = repository.commit(id).unwrap();
        let review = Review {
            tree: commit.tree().unwrap(),
            reviewer: Named { name: "Bob".into(), email: email.into() },
            ..World::blank()
        };
        let statement = Statement {
            subject: vec![Subject::commit(SOURCE, id)],
            predicate: Predicate::Review(Box::new(review)),
        };
        let bundle = sign(&statement, &*signer).unwrap();
        let handed_in = [HandedIn::parse("a.json", bundle.to_bytes(), &keys).unwrap()];
        let demand = Demand { roles: BTreeMap::from([(Role::code(), 1)]), now: NOW.parse().unwrap() };
        check(&demand, &handed_in, &commit, &parameters()).map_err(|error| error.to_string())
    };
    assert_eq!(verdict(&plain, "bob@example.org"), Ok(()));
    assert_eq!(verdict(&committed, "bob@example.org"), Ok(()));
    let refused = verdict(&committed, "mallory@example.org").unwrap_err();
    assert!(refused.contains("is an author or committer"), "{refused}");
    let refused = verdict(&signed, "bob@example.org").unwrap_err();
    assert!(refused.contains("is an author or committer"), "{refused}");
}
