//! Signed statements in the forms that other programs write, and those written here before.

use attestations::bundle::split;
use attestations::{Bundle, Decision, Evidence, Signer as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{Key, World};

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// An envelope around any bytes, in a bundle of this version.
fn bundle_of(key: &Key, media_type: &str, payload_type: &str, payload: &[u8]) -> Value {
    let message =
        [format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).as_bytes(), payload]
            .concat();
    json!({
        "mediaType": media_type,
        "verificationMaterial": { "publicKey": { "hint": key.public_key().id().as_str() } },
        "dsseEnvelope": {
            "payloadType": payload_type,
            "payload": STANDARD.encode(payload),
            "signatures": [{ "sig": STANDARD.encode(key.sign(&message).unwrap()) }],
        },
    })
}

fn attached(bundle: &Value) -> Evidence {
    Evidence { origin: "foreign".to_owned(), bytes: serde_json::to_vec(bundle).unwrap() }
}

fn payload(bundle: &Evidence) -> Value {
    let bundle: Value = serde_json::from_slice(&bundle.bytes).unwrap();
    let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

const V0_3: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[test]
fn the_hint_alone_names_the_key_of_what_is_signed_here() {
    let world = World::new();
    let bundle: Value = serde_json::from_slice(&world.build(&world.ci, "ci", |_| {}).bytes).unwrap();
    let signature = bundle["dsseEnvelope"]["signatures"][0].as_object().unwrap();
    assert_eq!(signature.keys().collect::<Vec<_>>(), ["sig"]);
    assert_eq!(bundle["mediaType"], V0_3);
    let bundle = Bundle::parse(&serde_json::to_vec(&bundle).unwrap()).unwrap();
    assert_eq!(bundle.hint(), Some(world.ci.public_key().id().as_str()));
}

#[test]
fn bundles_of_before_name_the_key_in_the_envelope_and_still_count() {
    let world = World::new();
    let mut evidence = world.enough();
    for one in &mut evidence {
        let mut bundle: Value = serde_json::from_slice(&one.bytes).unwrap();
        let hint = bundle["verificationMaterial"]["publicKey"]["hint"].take();
        bundle["dsseEnvelope"]["signatures"][0]["keyid"] = hint.clone();
        bundle["verificationMaterial"] = json!({ "publicKey": {} });
        one.bytes = serde_json::to_vec(&bundle).unwrap();
        assert_eq!(Bundle::parse(&one.bytes).unwrap().hint(), hint.as_str());
    }
    assert!(world.unmet(&evidence).is_empty());
}

#[test]
fn bundles_of_every_version_and_statements_of_both_count() {
    let world = World::new();
    for version in ["+json;version=0.1", "+json;version=0.2", "+json;version=0.3", ".v0.3+json"] {
        for statement in ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"] {
            let mut evidence = world.enough();
            let mut said = payload(&evidence[2]);
            said["_type"] = json!(statement);
            let media_type = format!("application/vnd.dev.sigstore.bundle{version}");
            let said = serde_json::to_vec(&said).unwrap();
            evidence[2] = attached(&bundle_of(&world.ci, &media_type, IN_TOTO, &said));
            assert!(world.unmet(&evidence).is_empty(), "{media_type} {statement}");
        }
    }
}

#[test]
fn a_no_in_the_older_form_of_a_statement_is_a_no() {
    let world = World::new();
    let no = world.review(&world.bob, "bob", |it| {
        it.value.verdict = attestations::review::Verdict::Rejected;
    });
    let mut said = payload(&no);
    said["_type"] = json!("https://in-toto.io/Statement/v0.1");
    let mut evidence = world.enough();
    evidence.push(attached(&bundle_of(&world.bob, V0_3, IN_TOTO, &serde_json::to_vec(&said).unwrap())));
    assert!(world.unmet(&evidence).contains(&"rejected"), "{:?}", world.unmet(&evidence));
}

#[test]
fn what_a_trusted_key_says_of_other_things_denies_nothing_in_whatever_form() {
    let world = World::new();
    let subject = json!([{ "name": "x", "digest": { "sha256": crate::common::image().hex() } }]);
    let sbom = |kind: &str| {
        json!({ "_type": kind, "subject": subject, "predicateType": "https://spdx.dev/Document",
        "predicate": { "spdxVersion": "SPDX-2.3" } })
    };
    let said = [
        (IN_TOTO, sbom("https://in-toto.io/Statement/v0.1").to_string()),
        (IN_TOTO, sbom("https://in-toto.io/Statement/v7").to_string()),
        (IN_TOTO, json!({ "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://spdx.dev/Document" }).to_string()),
        ("application/octet-stream", "no JSON at all".to_owned()),
        ("text/plain", sbom("https://in-toto.io/Statement/v1").to_string()),
    ];
    for (payload_type, text) in said {
        for key in [&world.ci, &world.alice] {
            let mut evidence = world.enough();
            evidence.push(attached(&bundle_of(key, V0_3, payload_type, text.as_bytes())));
            let Decision::Admitted(admitted) = world.decide(&evidence) else { panic!("{text}: denied") };
            assert!(admitted.ignored().iter().any(|it| it.origin.as_str() == "foreign"), "{text}: untold");
        }
    }
}

#[test]
fn what_may_be_a_no_in_disguise_still_denies() {
    let world = World::new();
    let review = payload(&world.review(&world.alice, "alice", |_| {}));
    let mut later = review.clone();
    later["_type"] = json!("https://in-toto.io/Statement/v7");
    let twice = review.to_string().replacen('{', "{\"predicateType\":\"https://spdx.dev/Document\",", 1);
    for (payload_type, text) in [
        (IN_TOTO, later.to_string()),
        (IN_TOTO, twice),
        (IN_TOTO, "{".to_owned()),
        ("text/plain", review.to_string()),
    ] {
        let mut evidence = world.enough();
        evidence.push(attached(&bundle_of(&world.alice, V0_3, payload_type, text.as_bytes())));
        assert_eq!(world.unmet(&evidence), ["unreadable"], "{text}");
    }
}

#[test]
fn one_file_may_hold_several_bundles() {
    let world = World::new();
    let evidence = world.enough();
    let bundles: Vec<&[u8]> = evidence.iter().map(|one| one.bytes.as_slice()).collect();
    for (between, end) in [(&b"\n"[..], &b"\n"[..]), (b"\r\n\r\n", b""), (b"", b" ")] {
        let file = [bundles.join(between).as_slice(), end].concat();
        assert_eq!(split(&file), bundles);
    }
    let pretty = serde_json::to_vec_pretty(&serde_json::from_slice::<Value>(bundles[0]).unwrap()).unwrap();
    assert_eq!(split(&[pretty.as_slice(), b"\n", bundles[1]].concat()), [pretty.as_slice(), bundles[1]]);
}

#[test]
fn what_is_cut_off_in_a_file_of_bundles_is_not_passed_over() {
    assert_eq!(split(b"{\"a\":1}\n{\"b\":"), [&b"{\"a\":1}"[..], b"{\"b\":"]);
    assert_eq!(split(b"{} ] {}"), [&b"{}"[..], b"] {}"]);
    assert_eq!(split(b" \n"), [b""]);
    assert_eq!(split(&[0xff]), [[0xff]]);
    let deep = vec![b'['; 1 << 20];
    assert_eq!(split(&deep), [deep.as_slice()]);
}

#[test]
fn an_envelope_without_a_bundle_counts_as_evidence_and_is_no_bundle() {
    let world = World::new();
    let mut evidence = world.enough();
    for one in &mut evidence {
        let bundle: Value = serde_json::from_slice(&one.bytes).unwrap();
        one.bytes = bundle["dsseEnvelope"].to_string().into_bytes();
        assert!(Bundle::parse(&one.bytes).is_err());
        assert!(attestations::decision::is_signed(&world.policy(), &one.bytes));
    }
    assert!(world.unmet(&evidence).is_empty());
    // Two signatures in one envelope: it may be a no, and cannot be read as it is meant.
    let mut envelope: Value = serde_json::from_slice(&evidence[0].bytes).unwrap();
    let signature = envelope["signatures"][0].clone();
    envelope["signatures"] = json!([signature, signature]);
    evidence[0].bytes = envelope.to_string().into_bytes();
    assert!(world.unmet(&evidence).contains(&"unreadable"));
}
