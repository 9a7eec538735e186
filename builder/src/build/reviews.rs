//! The reviews that a build asks for, and why one does not count. The node's policy decides again; this keeps an
//! unreviewed commit from being built at all.

use std::collections::BTreeSet;

use attestations::keys::{KeyId, PublicKey};
use attestations::reviews::{Commits, OwnWork, Rejection, Reviewer, Reviews, Standing, Wanted};
use attestations::{Bundle, Commit, Digest, Foreign, SignedBundle, Statement, Tree, Verified, review};

use crate::error::{Error, Kind, Result};
use crate::source::{Repository, Snapshot};

/// A review as it was handed in.
pub struct HandedIn {
    /// The file's name.
    pub origin: String,
    /// The bundle.
    pub bundle: SignedBundle,
    /// What it says, if one of the reviewers' keys signed it.
    signed: Option<Verified<Statement>>,
}

impl HandedIn {
    /// Reads a bundle, and finds which of `keys` signed it.
    ///
    /// # Errors
    /// When it is no review.
    pub fn parse(origin: &str, bytes: &[u8], keys: &[PublicKey]) -> Result<Self> {
        let refuse = |why: &str| Error::new(Kind::Input, format!("{origin} is not a review: {why}"));
        let bundle = Bundle::parse(bytes).map_err(|cause| refuse("it is no bundle").because(cause))?;
        let no_statement = |cause| refuse("it holds no statement").because(cause);
        let payload = keys.iter().find_map(|key| bundle.verify(key).ok());
        let signed = payload.map(|it| it.statement()).transpose().map_err(no_statement)?;
        let bundle = SignedBundle::read_unverified(bundle).map_err(no_statement)?;
        match bundle.predicate_type() == review::PREDICATE_TYPE {
            true => Ok(Self { origin: origin.to_owned(), bundle, signed }),
            false => Err(refuse("it is a statement of another kind")),
        }
    }

    /// The digest of the bundle.
    pub fn digest(&self) -> Digest {
        self.bundle.digest()
    }
}

/// What is asked of reviews.
#[derive(Debug, Clone)]
pub struct Demand {
    /// How many different reviewers must have approved.
    pub threshold: usize,
    /// Whose signatures count.
    pub keys: Vec<PublicKey>,
    /// What time it is: a review of later does not count.
    pub now: jiff::Timestamp,
}

/// Checks that the commit has the reviews asked for.
///
/// # Errors
/// [`Kind::Refused`] with what is missing, and with why each review handed in does not count.
pub fn check(demand: &Demand, handed_in: &[HandedIn], commit: &Snapshot<'_>) -> Result<()> {
    let people = people(handed_in);
    let mut reviews = Reviews::default();
    let mut ignored = Vec::new();
    for given in handed_in {
        let reason = match given.signed.as_ref().and_then(|it| Some((it, reviewer(it, &people)?))) {
            Some((statement, reviewer)) => {
                reviews.take(&given.origin, reviewer, statement, demand.now).err().map(|it| it.to_string())
            }
            None => Some("it is signed by none of the reviewers' keys".to_owned()),
        };
        ignored.extend(reason.map(|reason| format!("{}: {reason}", Foreign::new(&given.origin))));
    }
    let wanted = Wanted { threshold: demand.threshold, own_work: OwnWork::Ignored };
    let count = reviews.count(commit.id(), wanted, &InRepository(commit.repository()))?;
    if let Some(veto) = count.rejected.first() {
        let text = format!("commit {} was rejected by its reviewer: {}", commit.id(), described(veto));
        return Err(
            Error::new(Kind::Refused, text).hint("build a commit in which what was found is corrected")
        );
    }
    if count.approved_by.len() >= demand.threshold {
        return Ok(());
    }
    let mut text = format!(
        "commit {} has {} of the {} reviews asked for",
        commit.id(),
        count.approved_by.len(),
        demand.threshold
    );
    ignored.extend(count.ignored.iter().map(ToString::to_string));
    for reason in &ignored {
        text.push_str("\n  not counted: ");
        text.push_str(reason);
    }
    Err(Error::new(Kind::Refused, text)
        .hint("have it reviewed with `countersign-builder review sign`, and give the files with --reviews"))
}

fn described(veto: &Rejection) -> String {
    let note = veto.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
    format!("{} ({}){note}", veto.by, veto.origin)
}

/// One reviewer, as the reviews show them: a policy gives people names, the builder only has keys. Keys whose reviews name
/// the same e-mail address are one person's, and so are the addresses that one key's reviews name.
struct Person {
    name: String,
    keys: BTreeSet<KeyId>,
    emails: Vec<String>,
}

fn people(handed_in: &[HandedIn]) -> Vec<Person> {
    let mut groups: Vec<(BTreeSet<KeyId>, BTreeSet<String>)> = Vec::new();
    for statement in handed_in.iter().filter_map(|given| given.signed.as_ref()) {
        let Some(review) = statement.review() else { continue };
        let key = review.signer().id();
        let email = review.value().reviewer.email.trim().to_lowercase();
        let is_same = |(keys, emails): &mut (BTreeSet<KeyId>, BTreeSet<String>)| {
            keys.contains(&key) || emails.contains(&email)
        };
        let (mut keys, mut emails) = (BTreeSet::from([key.clone()]), BTreeSet::from([email.clone()]));
        for (more_keys, more_emails) in groups.extract_if(.., is_same) {
            keys.extend(more_keys);
            emails.extend(more_emails);
        }
        groups.push((keys, emails));
    }
    let person = |(keys, emails): (BTreeSet<KeyId>, BTreeSet<String>)| {
        let emails: Vec<String> = emails.into_iter().collect();
        let names: Vec<String> = emails.iter().map(|email| Foreign::new(email).to_string()).collect();
        Person { name: names.join(", "), keys, emails }
    };
    groups.into_iter().map(person).collect()
}

fn reviewer<'a>(statement: &Verified<Statement>, people: &'a [Person]) -> Option<Reviewer<'a>> {
    let person = people.iter().find(|person| person.keys.contains(&statement.signer().id()))?;
    Some(Reviewer { name: &person.name, emails: &person.emails, standing: Standing::Full })
}

/// What the repository says of commits.
struct InRepository<'a>(&'a Repository);

impl Commits for InRepository<'_> {
    type Error = Error;

    fn tree(&self, commit: &Commit) -> Result<Option<Tree>> {
        Ok(Some(self.0.commit(commit)?.tree()?))
    }

    fn authors(&self, commit: &Commit, since: Option<&Commit>) -> Result<Vec<String>> {
        let commit = self.0.commit(commit)?;
        let mut authors = commit.authors();
        if let Some(since) = since {
            authors.extend(commit.authors_since(&self.0.commit(since)?)?);
        }
        Ok(authors.into_iter().map(|author| author.email).collect())
    }
}

/// Public keys of a file: PEM blocks and OpenSSH lines, one after the other; `#` starts a comment line.
///
/// # Errors
/// When anything else is in it, or nothing.
pub fn keys(text: &str, name: &str) -> Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    let mut block = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let in_block = !block.is_empty();
        if !in_block && line.starts_with('#') {
            continue;
        }
        block.push_str(line);
        block.push('\n');
        if (in_block || line.starts_with("-----BEGIN")) && !line.starts_with("-----END") {
            continue;
        }
        let parsed = PublicKey::parse(&block);
        keys.push(parsed.map_err(|cause| {
            Error::new(Kind::Key, format!("{name} holds no public key here: {line}")).because(cause)
        })?);
        block.clear();
    }
    match keys.is_empty() || !block.is_empty() {
        true => {
            Err(Error::new(Kind::Key, format!("{name} holds no public key, or ends in the middle of one")))
        }
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::path::Path;
    use std::process::Command;

    use attestations::keys::{Algorithm, SignError, Signer};
    use attestations::provenance::{
        BUILD_TYPE, BuildDefinition, Builder, ExternalParameters, InternalParameters, Materials, Metadata,
        NORMALISER, Provenance, ResourceDescriptor, RunDetails,
    };
    use attestations::review::{Person as Named, Review, Scope, Verdict};
    use attestations::{Decision, Evidence, Policy, Predicate, Question, Subject, decide, sign};
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

    /// What a case says of one review; the rest is honest and about the commit that is built.
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

        fn since(mut self, commit: &Commit) -> Self {
            self.review.scope = Scope::Changes { since: commit.clone() };
            self
        }

        fn about(mut self, subjects: &[Subject]) -> Self {
            self.subjects = subjects.to_vec();
            self
        }
    }

    /// Three commits: one before, the one that is built, and one of other words with the same tree.
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
            let repository =
                Repository::open(&state, &Location::parse(work.to_str().unwrap()).unwrap()).unwrap();
            let commits = <[Commit; 3]>::try_from(ids).unwrap().map(|id| {
                let tree = repository.commit(&id).unwrap().tree().unwrap();
                (id, tree)
            });
            let keys = PEOPLE.into_iter().map(|name| (name, Key::new())).collect();
            Self { keys, ci: Key::new(), repository, commits, _folder: folder }
        }

        fn said(&self, who: &'static str) -> Said {
            let (commit, tree) = &self.commits[1];
            let person = |name: &str| Named { name: name.into(), email: format!("{name}@example.org") };
            let review = Review {
                tree: tree.clone(),
                verdict: Verdict::Approved,
                scope: Scope::Tree,
                reviewer: person(who),
                authors: vec![person("carol")],
                reviewed_on: "2026-05-01T12:00:00Z".parse().unwrap(),
                note: None,
            };
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
                    predicate: Predicate::Review(it.review.clone()),
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
            let demand = Demand { threshold: 2, keys, now: NOW.parse().unwrap() };
            check(&demand, &handed_in, &self.repository.commit(&self.commits[1].0).unwrap())
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
                Question { asked: "registry.example/average:1".parse().unwrap(), digest, function: None };
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
                    },
                    internal_parameters: InternalParameters {
                        normaliser: NORMALISER.to_owned(),
                        compressor: "gzip".to_owned(),
                        source_date_epoch: 1,
                        authors: vec![Named { name: "Carol".into(), email: "carol@example.org".into() }],
                        config_digest: Digest::of(b"config"),
                        layers: Vec::new(),
                        materials: Materials::Complete,
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

    /// Each case with whether the commit counts as reviewed: for the builder as for the node.
    #[test]
    fn the_gate_and_the_node_count_reviews_alike() {
        let world = World::new();
        let [(before, first), (commit, built), (again, same)] = &world.commits;
        assert_eq!(built, same);
        let (future, subject) = ("2026-06-01T12:06:00Z", |id: &Commit| Subject::commit(SOURCE, id));
        let odd =
            Subject { name: String::new(), digest: BTreeMap::from([("gitCommit".into(), "odd".into())]) };
        let (alice, bob) = (world.said("alice"), world.said("bob"));
        let (mallory, stranger) = (world.said("mallory"), world.said("stranger"));
        let changed = [alice.clone().since(before), bob.clone().since(before)];
        let [old_alice, old_bob, old_mallory] = ["alice", "bob", "mallory"].map(|who| world.before(who));
        let enough = [alice.clone(), bob.clone()];
        let and = |all: &[Said], more: Said| [all, &[more]].concat();
        let reviewed = [&changed[..], &[old_alice.clone(), old_bob]].concat();
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
            (
                "an approval of another commit",
                vec![alice.clone(), bob.clone().about(&[subject(again)])],
                false,
            ),
            ("an approval by nobody known", vec![alice, stranger.clone()], false),
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
                and(&enough, mallory.clone().no().about(&[odd])),
                false,
            ),
            (
                "a rejection of the commit with another tree",
                and(&enough, mallory.clone().no().tree(first)),
                false,
            ),
            ("a rejection of something else", and(&enough, old_mallory.clone().no()), true),
            ("a rejection by nobody known", and(&enough, stranger.no()), true),
            ("changes since nothing reviewed", changed.to_vec(), false),
            ("changes since what one reviewed", and(&changed, old_alice), false),
            ("changes since what two reviewed", reviewed.clone(), true),
            ("changes since what was rejected", and(&reviewed, old_mallory.clone().no()), false),
            (
                "changes since a tree that was rejected",
                and(&reviewed, old_mallory.no().about(&[subject(again)])),
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
}
