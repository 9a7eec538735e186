//! Bundles of a Sigstore instance of the tests' own, and the attacks on them: each is refused with its own reason.

use attestations::sigstore::{
    self, Artifact, Expected, Instance as Public, Proven, SigstoreError, TrustedRoot,
};
use attestations::{Digest, Signer as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};

use crate::common::{Key, World};
use crate::sigstore_world::{FILE, Instance, PROVIDER, SIGNED, WORKFLOW, Wish};

const EXPECTED: Expected<'static> = Expected::Certificate { identity: WORKFLOW, issuer: PROVIDER };

fn file() -> Artifact<'static> {
    Artifact { digest: Digest::of(FILE), bytes: Some(FILE) }
}

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn verify(bundle: &Value, root: &TrustedRoot) -> Result<Proven, SigstoreError> {
    sigstore::verify(bundle.to_string().as_bytes(), &file(), &EXPECTED, root, now())
}

/// The reason why an honest bundle, changed like this, is refused.
#[track_caller]
fn refusal(change: impl FnOnce(&mut Value)) -> SigstoreError {
    let instance = Instance::new();
    let mut bundle = instance.sign(&Wish::default());
    change(&mut bundle);
    verify(&bundle, &instance.trusted()).unwrap_err()
}

fn entries(bundle: &mut Value) -> &mut Vec<Value> {
    bundle["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap()
}

#[test]
fn a_workflows_signature_verifies_by_the_file_and_by_its_digest() {
    let instance = Instance::new();
    let bundle = instance.sign(&Wish::default()).to_string();
    for artifact in [file(), Artifact { digest: Digest::of(FILE), bytes: None }] {
        let proven = sigstore::verify(bundle.as_bytes(), &artifact, &EXPECTED, &instance.trusted(), now());
        assert_eq!(proven.unwrap().times, [SIGNED.parse().unwrap()]);
    }
}

#[test]
fn an_identity_is_compared_as_a_whole() {
    let instance = Instance::new();
    let (bundle, root) = (instance.sign(&Wish::default()).to_string(), instance.trusted());
    let with = |identity: &str, issuer: &str| {
        let expected = Expected::Certificate { identity, issuer };
        sigstore::verify(bundle.as_bytes(), &file(), &expected, &root, now()).unwrap_err()
    };
    let longer = format!("{WORKFLOW}-evil");
    for other in ["", "https://ci.example/lab/", &longer, &WORKFLOW.to_uppercase(), ".*", "*"] {
        assert!(matches!(with(other, PROVIDER), SigstoreError::OtherIdentity { .. }), "{other}");
    }
    for other in ["", "https://tokens.ci.example/", "https://tokens.ci", "tokens.ci.example"] {
        assert!(matches!(with(WORKFLOW, other), SigstoreError::OtherIssuer { .. }), "{other}");
    }
}

#[test]
fn an_authority_that_had_expired_vouches_for_nobody() {
    // Its own certificate ended on the day before: an anchor of a trusted root is not looked at by the crate.
    let instance = Instance::until((2026, 5, 31));
    assert_eq!(
        verify(&instance.sign(&Wish::default()), &instance.trusted()),
        Err(SigstoreError::ExpiredAuthority)
    );
    // One that ended since then was valid when it was signed.
    let instance = Instance::until((2026, 6, 3));
    verify(&instance.sign(&Wish::default()), &instance.trusted()).unwrap();
}

#[test]
fn a_certificate_of_several_or_of_nobody_is_nobodys() {
    let instance = Instance::new();
    for names in [&[WORKFLOW, "https://ci.example/evil"][..], &["https://ci.example/evil", WORKFLOW], &[]] {
        let found = verify(&instance.sign(&Wish { names, ..Wish::default() }), &instance.trusted());
        assert_eq!(found, Err(SigstoreError::Names { count: names.len() }));
    }
}

#[test]
fn a_signature_outside_the_certificates_time_or_purpose_does_not_count() {
    let instance = Instance::new();
    for at in ["2026-05-31T23:59:59Z", "2026-06-02T00:00:01Z"] {
        let found = verify(&instance.sign(&Wish { at, ..Wish::default() }), &instance.trusted());
        assert!(matches!(found, Err(SigstoreError::Certificate(_))), "{at}: {found:?}");
    }
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let found = verify(&instance.sign(&Wish { usage, ..Wish::default() }), &instance.trusted());
    assert!(matches!(found, Err(SigstoreError::Certificate(_))), "{found:?}");
}

#[test]
fn a_time_after_now_is_refused_whatever_the_machines_clock_says() {
    let instance = Instance::new();
    let bundle = instance.sign(&Wish::default()).to_string();
    let before = "2026-06-01T11:59:59Z".parse().unwrap();
    let found = sigstore::verify(bundle.as_bytes(), &file(), &EXPECTED, &instance.trusted(), before);
    assert_eq!(found, Err(SigstoreError::Future { time: SIGNED.parse().unwrap() }));
}

#[test]
fn a_valid_entry_about_another_signature_does_not_vouch() {
    let instance = Instance::new();
    let (mut bundle, mut other) = (instance.sign(&Wish::default()), instance.sign(&Wish::default()));
    std::mem::swap(entries(&mut bundle), entries(&mut other));
    let found = verify(&bundle, &instance.trusted());
    assert!(matches!(found, Err(SigstoreError::Log(_))), "{found:?}");
    // Nor beside the right one.
    let mut both = instance.sign(&Wish::default());
    entries(&mut both).push(entries(&mut other)[0].clone());
    let found = verify(&both, &instance.trusted());
    assert!(matches!(found, Err(SigstoreError::Log(_))), "{found:?}");
}

#[test]
fn a_swapped_certificate_or_signature_does_not_verify() {
    let instance = Instance::new();
    let other = instance.sign(&Wish::default());
    for path in ["/verificationMaterial/certificate", "/messageSignature/signature"] {
        let mut bundle = instance.sign(&Wish::default());
        *bundle.pointer_mut(path).unwrap() = other.pointer(path).unwrap().clone();
        let found = verify(&bundle, &instance.trusted());
        assert!(
            matches!(found, Err(SigstoreError::Signature(_) | SigstoreError::Log(_))),
            "{path}: {found:?}"
        );
    }
}

#[test]
fn an_entry_has_to_be_proven_in_every_part() {
    let drop = |fields: &'static [&'static str]| {
        refusal(move |bundle| {
            for field in fields {
                entries(bundle)[0].as_object_mut().unwrap().remove(*field);
            }
        })
    };
    assert_eq!(drop(&["inclusionPromise", "inclusionProof"]), SigstoreError::Unproven { entry: 0 });
    assert!(matches!(drop(&["inclusionPromise"]), SigstoreError::Time(_)));
    assert!(matches!(drop(&["inclusionProof"]), SigstoreError::Bundle(_)));
    let found = refusal(|bundle| {
        let mut bare = entries(bundle)[0].clone();
        bare.as_object_mut().unwrap().retain(|field, _| !field.starts_with("inclusion"));
        entries(bundle).push(bare);
    });
    assert_eq!(found, SigstoreError::Unproven { entry: 1 });
    let wrong = STANDARD.encode([7; 32]);
    let found = refusal(|bundle| entries(bundle)[0]["inclusionProof"]["hashes"] = json!([wrong]));
    assert!(matches!(found, SigstoreError::Log(_)), "{found:?}");
    let found = refusal(|bundle| entries(bundle)[0]["integratedTime"] = json!("1780315201"));
    assert!(matches!(found, SigstoreError::Log(_)), "{found:?}");
    let found = refusal(|bundle| entries(bundle).clear());
    assert!(matches!(found, SigstoreError::Bundle(_) | SigstoreError::Time(_)), "{found:?}");
}

#[test]
fn another_instances_certificate_or_log_is_not_trusted() {
    let (own, other) = (Instance::new(), Instance::new());
    let bundle = own.sign(&Wish::default());
    let mut mixed = own.trusted_root();
    mixed["certificateAuthorities"] = other.trusted_root()["certificateAuthorities"].clone();
    let found = verify(&bundle, &TrustedRoot::parse(mixed.to_string().as_bytes()).unwrap());
    assert!(matches!(found, Err(SigstoreError::Certificate(_))), "{found:?}");
    let mut mixed = own.trusted_root();
    mixed["tlogs"] = other.trusted_root()["tlogs"].clone();
    let found = verify(&bundle, &TrustedRoot::parse(mixed.to_string().as_bytes()).unwrap());
    assert!(matches!(found, Err(SigstoreError::Log(_))), "{found:?}");
}

#[test]
fn a_root_that_ended_before_does_not_vouch_for_what_came_after() {
    let instance = Instance::new();
    let bundle = instance.sign(&Wish::default());
    let last_year = json!({ "start": "2020-01-01T00:00:00Z", "end": "2025-12-31T23:59:59Z" });
    let ended = |path: &str| {
        let mut root = instance.trusted_root();
        *root.pointer_mut(path).unwrap() = last_year.clone();
        verify(&bundle, &TrustedRoot::parse(root.to_string().as_bytes()).unwrap()).unwrap_err()
    };
    assert!(matches!(ended("/certificateAuthorities/0/validFor"), SigstoreError::Certificate(_)));
    assert!(matches!(ended("/tlogs/0/publicKey/validFor"), SigstoreError::Log(_)));
}

#[test]
fn another_file_is_not_what_was_signed() {
    let instance = Instance::new();
    let bundle = instance.sign(&Wish::default()).to_string();
    for bytes in [Some(&b"another file"[..]), None] {
        let artifact = Artifact { digest: Digest::of(b"another file"), bytes };
        let found = sigstore::verify(bundle.as_bytes(), &artifact, &EXPECTED, &instance.trusted(), now());
        assert_eq!(found, Err(SigstoreError::OtherArtifact));
    }
}

#[test]
fn what_is_too_much_is_refused_before_it_is_verified() {
    let found = refusal(|bundle| {
        let one = entries(bundle)[0].clone();
        *entries(bundle) = vec![one; 17];
    });
    assert_eq!(found, SigstoreError::TooMany { what: "log entries", count: 17, limit: 16 });
    let huge = vec![b' '; (16 << 20) + 1];
    let root = TrustedRoot::shipped(Public::PublicGood).unwrap();
    let found = sigstore::verify(&huge, &file(), &EXPECTED, &root, now()).unwrap_err();
    assert!(matches!(found, SigstoreError::TooLarge { .. }));
    assert!(matches!(TrustedRoot::parse(&huge), Err(SigstoreError::TooLarge { .. })));
    assert!(matches!(TrustedRoot::parse(b"{}"), Err(SigstoreError::Root(_))));
}

#[test]
fn the_roots_that_are_shipped_are_those_of_their_date() {
    for (instance, digest) in [
        (Public::PublicGood, "6494e21ea73fa7ee769f85f57d5a3e6a08725eae1e38c755fc3517c9e6bc0b66"),
        (Public::Staging, "44deb991d4bbf2150751ccee235d9810bce4434383c26d8898c1bcadbace6ed8"),
    ] {
        TrustedRoot::shipped(instance).unwrap();
        assert_eq!(
            Digest::of(instance.text().as_bytes()).hex(),
            digest,
            "{instance:?} as of {}",
            Public::AS_OF
        );
    }
}

#[test]
fn a_held_key_needs_no_log_and_is_held_against_the_subjects() {
    let world = World::new();
    let root = TrustedRoot::shipped(Public::PublicGood).unwrap();
    let bundle = world.build(&world.ci, "ci", |_| {}).bytes;
    let verify = |bytes: &[u8], digest: Digest, key: &Key| {
        let expected = Expected::Key(key.public_key());
        sigstore::verify(bytes, &Artifact { digest, bytes: None }, &expected, &root, now())
    };
    let image = crate::common::image();
    assert_eq!(verify(&bundle, image, &world.ci), Ok(Proven { times: Vec::new() }));
    assert_eq!(verify(&bundle, image, &world.alice), Err(SigstoreError::OtherKey));
    assert_eq!(verify(&bundle, crate::common::base(), &world.ci), Err(SigstoreError::OtherArtifact));
    let found = sigstore::verify(&bundle, &file(), &EXPECTED, &root, now());
    assert_eq!(found, Err(SigstoreError::NoCertificate));
    // A log entry that is there has to be right, also where none is needed.
    let mut with: Value = serde_json::from_slice(&bundle).unwrap();
    let entry = entries(&mut Instance::new().sign(&Wish::default()))[0].clone();
    with["verificationMaterial"]["tlogEntries"] = json!([entry]);
    let found = verify(with.to_string().as_bytes(), image, &world.ci);
    assert!(matches!(found, Err(SigstoreError::Log(_))), "{found:?}");
}

#[test]
fn a_held_keys_signature_over_a_file_is_held_against_the_file() {
    let (key, root) = (Key::new(), TrustedRoot::shipped(Public::PublicGood).unwrap());
    let signed = |bytes: &[u8]| {
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": "" } },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": STANDARD.encode(Digest::of(FILE).as_bytes()) },
                "signature": STANDARD.encode(key.sign(bytes).unwrap()),
            },
        })
        .to_string()
    };
    let expected = Expected::Key(key.public_key());
    let verify = |bundle: &str, artifact: &Artifact<'_>| {
        sigstore::verify(bundle.as_bytes(), artifact, &expected, &root, now())
    };
    verify(&signed(FILE), &file()).unwrap();
    assert_eq!(verify(&signed(b"another"), &file()), Err(SigstoreError::OtherKey));
    let digest_alone = Artifact { digest: Digest::of(FILE), bytes: None };
    assert_eq!(verify(&signed(FILE), &digest_alone), Err(SigstoreError::NeedsFile));
    let other = Artifact { digest: Digest::of(b"another"), bytes: Some(b"another") };
    assert_eq!(verify(&signed(b"another"), &other), Err(SigstoreError::OtherArtifact));
    let found = verify(&Instance::new().sign(&Wish::default()).to_string(), &file());
    assert_eq!(found, Err(SigstoreError::NotByKey));
}
