//! Witnesses: what they cosign and what they refuse, and whose cosignatures are enough.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use attestations::{Algorithm, Signer};
use tlog::policy::Standing;
use tlog::witness::{AddCheckpoint, Refusal};
use tlog::{Checkpoint, Log, Policy, Purpose, VerifierKey, cosignature};

fn new_signer() -> Arc<dyn Signer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    signers::generate(&path, Algorithm::Ed25519, &signers::Protection::Unprotected).unwrap();
    Arc::from(signers::load(&path, &mut || panic!("no password")).unwrap())
}

struct Scene {
    _folder: tempfile::TempDir,
    log: Log,
}

impl Scene {
    fn with(entries: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(&folder.path().join("log"), "log.example", new_signer()).unwrap();
        (0..entries).for_each(|index| drop(log.append(&[index]).unwrap()));
        Self { _folder: folder, log }
    }

    fn checkpoint(&self) -> Checkpoint {
        self.log.reader().unwrap().checkpoint().clone()
    }

    /// The request of now, from a state that a witness has seen; over the wire.
    fn request(&self, old: u64) -> AddCheckpoint {
        let reader = self.log.reader().unwrap();
        let proof = reader.prove_since(old).unwrap();
        let request = AddCheckpoint { old, proof, checkpoint: reader.signed().clone() };
        AddCheckpoint::parse(request.to_string().as_bytes()).unwrap()
    }

    fn grow(&mut self) {
        self.log.append(b"more").unwrap();
    }
}

#[test]
fn a_log_that_goes_on_is_cosigned_and_every_other_is_refused_by_its_status() {
    let (mut scene, other) = (Scene::with(3), Scene::with(5));
    let keys = [scene.log.key().clone()];
    let first = scene.request(0).judge(&keys, None).unwrap();
    assert_eq!(first, scene.checkpoint());
    scene.grow();
    assert_eq!(scene.request(3).judge(&keys, Some(&first)).unwrap().size, 4);
    let refused = |request: &AddCheckpoint, latest: Option<&Checkpoint>| {
        let refusal = request.judge(&keys, latest).unwrap_err();
        (refusal, refusal.status())
    };
    assert_eq!(refused(&scene.request(2), Some(&first)), (Refusal::Conflict { size: 3 }, 409));
    assert_eq!(refused(&scene.request(0), Some(&first)), (Refusal::Conflict { size: 3 }, 409));
    assert_eq!(scene.request(0).judge(&[], None).unwrap_err().status(), 404);
    // The same name and another key: a fork, signed by somebody else.
    assert_eq!(refused(&other.request(3), Some(&first)), (Refusal::Unsigned, 403));
    let mut cut = scene.request(3);
    cut.proof.pop();
    assert_eq!(refused(&cut, Some(&first)), (Refusal::Inconsistent, 422));
    let forked = Checkpoint { root: other.checkpoint().root, ..first.clone() };
    assert_eq!(refused(&scene.request(3), Some(&forked)), (Refusal::Inconsistent, 422));
    let mut ahead = scene.request(0);
    ahead.old = 99;
    assert_eq!(refused(&ahead, None), (Refusal::Malformed, 400));
    // The same size again is cosigned again, with nothing to prove.
    let now = scene.checkpoint();
    assert_eq!(scene.request(4).judge(&keys, Some(&now)).unwrap(), now);
}

#[test]
fn requests_of_another_form_are_refused() {
    let text = Scene::with(3).request(2).to_string();
    for (from, to) in [("old 2", "old 02"), ("old 2", "older"), ("old 2\n", "old 2\n\n"), ("\n\n", "\n")] {
        AddCheckpoint::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err();
    }
    let many = text.replacen("old 2\n", &format!("old 2\n{}", "A".repeat(43) + "=\n").repeat(64), 1);
    AddCheckpoint::parse(many.as_bytes()).unwrap_err();
}

#[test]
fn a_quorum_is_what_the_policy_says() {
    let scene = Scene::with(3);
    let signers: Vec<_> = (0..4).map(|_| new_signer()).collect();
    let keys: Vec<_> = signers
        .iter()
        .enumerate()
        .map(|(at, signer)| {
            VerifierKey::new(&format!("w{at}.example"), Purpose::Witness, signer.public_key()).unwrap()
        })
        .collect();
    let text = format!(
        "# hospitals\nlog {}\nwitness w0 {} https://w0.example\n\twitness w1 {}\nwitness w2 {}\nwitness w3 {}\n\
         group west 2 w0 w1 w2\ngroup both all west w3\nquorum both\n",
        scene.log.key(),
        keys[0],
        keys[1],
        keys[2],
        keys[3]
    );
    let policy = Policy::parse(text.as_bytes()).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses()[0].url.as_deref()), (1, Some("https://w0.example")));
    let mut signed = scene.log.reader().unwrap().signed().clone();
    let mut standing = |at: usize| {
        signed.add(vec![cosignature::sign(&signed, &keys[at], &*signers[at], 7).unwrap()]);
        policy.cosigned(&signed).unwrap()
    };
    assert_eq!(standing(0).standing, Standing::TooFew);
    assert_eq!(standing(0).by, [("w0".to_owned(), 7)], "twice the same is once");
    assert_eq!(standing(3).standing, Standing::TooFew);
    assert_eq!(standing(2).standing, Standing::Quorum);
    // A cosignature that names a witness and is not its own makes the checkpoint worthless.
    let forged = cosignature::sign(&signed, &keys[1], &*signers[0], 7).unwrap();
    signed.add(vec![forged]);
    policy.cosigned(&signed).unwrap_err();

    for (from, to) in [
        ("quorum both\n", ""),
        ("quorum both", "quorum other"),
        ("quorum both", "quorum both\nquorum both"),
        ("group west 2", "group west 4"),
        ("group west 2", "group west 0"),
        ("all west w3", "all west w2"),
        ("group west", "group none"),
        ("group west", "group w0"),
        ("witness w3", "witness w2"),
        ("witness w3", "wittness w3"),
    ] {
        Policy::parse(text.replace(from, to).as_bytes()).unwrap_err();
    }
    let twice = text.replace(&keys[3].to_string(), &keys[2].to_string());
    Policy::parse(twice.as_bytes()).unwrap_err();
    let swapped = text.replace(&format!("log {}", scene.log.key()), &format!("log {}", keys[0]));
    Policy::parse(swapped.as_bytes()).unwrap_err();
    let none = Policy::parse(b"quorum none\n").unwrap();
    assert_eq!(
        none.cosigned(&scene.log.reader().unwrap().signed().clone()).unwrap().standing,
        Standing::Quorum
    );
}
