//! Signed evidence for tests: people, builders, reviews and provenance with real keys.

use std::collections::BTreeMap;

use attestations::provenance::*;
use attestations::review::{Person, Review, Role, Scope, Verdict};
use attestations::{
    Algorithm, Call, Commit, Decision, Digest, Evidence, Policy, Predicate, PublicKey, Question, SignError,
    Signer, Statement, Subject, decide, sign,
};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jiff::Timestamp;

pub(crate) const COMMIT: &str = "1111111111111111111111111111111111111111";
pub(crate) const OTHER_COMMIT: &str = "3333333333333333333333333333333333333333";
pub(crate) const TREE: &str = "2222222222222222222222222222222222222222";
pub(crate) const SOURCE: &str = "git+https://git.example/average";

pub(crate) struct Key {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Key {
    pub(crate) fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = PublicKey::from_raw(Algorithm::Ed25519, pair.public_key().as_ref()).unwrap();
        Self { pair, public }
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.pair.sign(message).as_ref().to_vec())
    }
}

/// Two reviewers, one more person, two builders of two operators, and a third builder of the first one's operator.
pub(crate) struct World {
    pub(crate) alice: Key,
    pub(crate) bob: Key,
    pub(crate) mallory: Key,
    pub(crate) ci: Key,
    pub(crate) auditor: Key,
    pub(crate) twin: Key,
}

pub(crate) fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn image() -> Digest {
    Digest::of(b"manifest")
}

pub(crate) fn base() -> Digest {
    Digest::of(b"base")
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            alice: Key::new(),
            bob: Key::new(),
            mallory: Key::new(),
            ci: Key::new(),
            auditor: Key::new(),
            twin: Key::new(),
        }
    }

    pub(crate) fn policy_text(&self) -> String {
        let person = |name: &str, key: &Key| {
            format!(
                "[people.{name}]\nname = \"{name}\"\nemails = [\"{name}@x.example\"]\nkeys = [\"\"\"{}\"\"\"]\n",
                key.public.to_pem()
            )
        };
        let builder = |name: &str, operator: &str, key: &Key| {
            format!(
                "[builders.{name}]\nid = \"https://{name}.example\"\noperator = \"{operator}\"\nkeys = [\"\"\"{}\"\"\"]\n",
                key.public.to_pem()
            )
        };
        format!(
            "version = 1\nrevoked = []\n{}{}{}{}{}{}[[algorithm]]\nname = \"registry.example/average\"\nsource = [\"https://git.example/average\"]\nbases = [\"{}\"]\nfunctions = [\"partial\"]\ndatabases = [\"default\"]\n[algorithm.reviews]\nthreshold = 2\nfrom = [\"alice\", \"bob\"]\nauthor_may_review = false\n[algorithm.builds]\nthreshold = 2\nfrom = [\"ci\", \"auditor\", \"twin\"]\nfailed_rebuild = \"veto\"\n",
            person("alice", &self.alice),
            person("bob", &self.bob),
            person("mallory", &self.mallory),
            builder("ci", "ci", &self.ci),
            builder("auditor", "auditor", &self.auditor),
            builder("twin", "ci", &self.twin),
            base(),
        )
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy::parse(&self.policy_text()).unwrap()
    }

    /// What is admitted: two reviews and two builds.
    pub(crate) fn enough(&self) -> Vec<Evidence> {
        vec![
            self.review(&self.alice, "alice", |_| {}),
            self.review(&self.bob, "bob", |_| {}),
            self.build(&self.ci, "ci", |_| {}),
            self.build(&self.auditor, "auditor", |_| {}),
        ]
    }

    pub(crate) fn review(&self, key: &Key, who: &str, change: impl FnOnce(&mut Signed<Review>)) -> Evidence {
        let person = |name: &str| Person { name: name.to_owned(), email: format!("{name}@x.example") };
        let review = Review {
            tree: TREE.parse().unwrap(),
            verdict: Verdict::Approved,
            role: Role::code(),
            scope: Scope::Tree,
            reviewer: person(who),
            authors: vec![person("carol")],
            reviewed_on: "2026-05-01T12:00:00Z".parse().unwrap(),
            author_keys: Default::default(),
            expires_on: None,
            parameters: None,
            lock: None,
            note: None,
        };
        let commit: Commit = COMMIT.parse().unwrap();
        let mut signed = Signed { subject: vec![Subject::commit(SOURCE, &commit)], value: review };
        change(&mut signed);
        evidence(
            who,
            key,
            Statement { subject: signed.subject, predicate: Predicate::Review(Box::new(signed.value)) },
        )
    }

    pub(crate) fn build(
        &self,
        key: &Key,
        who: &str,
        change: impl FnOnce(&mut Signed<Provenance>),
    ) -> Evidence {
        let commit: Commit = COMMIT.parse().unwrap();
        let time: Timestamp = "2026-05-02T12:00:00Z".parse().unwrap();
        let provenance = Provenance {
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
                    ports: BTreeMap::new(),
                    git: None,
                    overrides: Default::default(),
                    secrets: Default::default(),
                },
                internal_parameters: InternalParameters {
                    normaliser: NORMALISER.to_owned(),
                    compressor: "gzip".to_owned(),
                    source_date_epoch: 1,
                    authors: vec![Person { name: "Carol".to_owned(), email: "carol@x.example".to_owned() }],
                    committers: Vec::new(),
                    author_keys: Default::default(),
                    config_digest: Digest::of(b"config"),
                    layers: vec![LayerRecord {
                        diff_id: Digest::of(b"l"),
                        digest: Digest::of(b"l"),
                        size: 1,
                        created_by: "base".to_owned(),
                        from_base: true,
                    }],
                    materials: Materials::Complete,
                    responses: Responses::Fetched,
                    normalised: BTreeMap::new(),
                    inventory: Some(attestations::provenance::Inventory::Complete),
                    rebuild_of: None,
                },
                resolved_dependencies: vec![
                    ResourceDescriptor::source(SOURCE, &commit),
                    ResourceDescriptor::tree(SOURCE, &TREE.parse().unwrap()),
                    ResourceDescriptor::base("base:1", &base()),
                ],
            },
            run_details: RunDetails {
                builder: Builder { id: format!("https://{who}.example"), version: BTreeMap::new() },
                metadata: Metadata { invocation_id: "1".to_owned(), started_on: time, finished_on: time },
                byproducts: Vec::new(),
            },
        };
        let mut signed = Signed { subject: vec![Subject::image("average", &image())], value: provenance };
        change(&mut signed);
        evidence(
            who,
            key,
            Statement { subject: signed.subject, predicate: Predicate::Provenance(Box::new(signed.value)) },
        )
    }

    pub(crate) fn decide(&self, evidence: &[Evidence]) -> Decision {
        decide(&self.policy(), &question(), evidence, now())
    }

    /// The codes of what is not met; none when it is admitted.
    pub(crate) fn unmet(&self, evidence: &[Evidence]) -> Vec<&'static str> {
        codes(&self.decide(evidence))
    }
}

pub(crate) struct Signed<T> {
    pub(crate) subject: Vec<Subject>,
    pub(crate) value: T,
}

pub(crate) fn question() -> Question {
    Question {
        asked: "registry.example/average:1".parse().unwrap(),
        digest: image(),
        call: Call { function: Some("partial".to_owned()), ..Call::default() },
    }
}

pub(crate) fn codes(decision: &Decision) -> Vec<&'static str> {
    match decision {
        Decision::Admitted(_) => Vec::new(),
        Decision::Denied(denial) => {
            assert!(!denial.unmet.is_empty(), "a denial without a reason");
            denial.unmet.iter().map(|it| it.code()).collect()
        }
    }
}

pub(crate) fn evidence(origin: &str, key: &Key, statement: Statement) -> Evidence {
    Evidence { origin: origin.to_owned(), bytes: sign(&statement, key).unwrap().to_bytes().to_vec() }
}
