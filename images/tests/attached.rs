//! What is attached to images, in real registries, before fronts that behave like those met in the wild, and with lists
//! that somebody made wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;

use attestations::{BUNDLE_MEDIA_TYPE, Digest, Pinned};
use images::descriptor::{EMPTY, INDEX, MANIFEST};
use images::layer::Compression;
use images::registry::{Client, Listed, Passed};
use images::{Descriptor, Image, Manifest, Store};
use serde_json::json;
use testing::{Front, Manner, Registry};

use common::faulty::{Faulty, said};
use common::{image, registry, repository, statement};

/// A bundle that a key signed, as far as its form goes.
fn bundle(number: usize) -> Vec<u8> {
    let envelope = json!({ "payload": "e30=", "payloadType": "t", "signatures": [{ "sig": "AA==", "keyid": number.to_string() }] });
    let material = json!({ "publicKey": { "hint": "" } });
    json!({ "mediaType": BUNDLE_MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope })
        .to_string()
        .into()
}

struct Scene {
    _place: tempfile::TempDir,
    store: Store,
    image: Image,
}

impl Scene {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let image = image(&store, Compression::Gzip);
        Self { _place: place, store, image }
    }

    fn subject(&self, host: &str) -> Pinned {
        repository(host).pin(self.image.digest())
    }

    async fn publish(&self, host: &str, bundles: &[Vec<u8>]) -> images::Result<Option<Listed>> {
        let statements: Vec<_> = bundles.iter().map(|bundle| statement(bundle)).collect();
        let (client, repository) = (Client::new([]), repository(host));
        let published = client.publish(&self.store, &self.image, &repository, Some("v1"), &statements);
        Ok(published.await?.1)
    }

    /// The keys' ids in what is attached, in order: what is in an envelope comes back in another bundle.
    async fn attached(&self, host: &str) -> Vec<String> {
        let found = Client::new([]).attachments(&self.subject(host)).await.unwrap();
        assert!(found.gone.is_empty() && found.unused.is_empty(), "{found:?}");
        let mut ids: Vec<String> = found.bundles.iter().map(|it| key_id(&it.bytes)).collect();
        ids.sort();
        ids
    }
}

fn key_id(bundle: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bundle).unwrap();
    value["dsseEnvelope"]["signatures"][0]["keyid"].as_str().unwrap().to_owned()
}

/// Each real registry, and where it lists what is attached.
#[track_caller]
fn real() -> Vec<(Registry, Listed)> {
    let without = [registry(), Registry::distribution_3()].into_iter().flatten();
    let with = Registry::with_referrers().into_iter();
    without.map(|it| (it, Listed::UnderTag)).chain(with.map(|it| (it, Listed::ByRegistry))).collect()
}

#[tokio::test]
async fn real_registries_keep_what_is_attached() {
    let scene = Scene::new();
    for (registry, where_listed) in real() {
        let host = registry.host();
        let listed = scene.publish(&host, &[bundle(1), bundle(2)]).await.unwrap();
        assert_eq!(listed, Some(where_listed), "{host}");
        assert_eq!(scene.attached(&host).await, ["1", "2"]);
        let third = bundle(3);
        let client = Client::new([]);
        client.attach(&scene.subject(&host), scene.image.manifest(), &[statement(&third)]).await.unwrap();
        assert_eq!(scene.attached(&host).await, ["1", "2", "3"]);
    }
}

/// `cosign copy` puts the image under the tag of the list. That is no list, and one is written over it.
#[tokio::test]
async fn an_image_under_the_tag_of_the_list_is_an_empty_list() {
    let scene = Scene::new();
    for (registry, where_listed) in real() {
        let (host, client) = (registry.host(), Client::new([]));
        let tag = format!("sha256-{}", scene.image.digest().hex());
        client.push(&scene.store, &scene.image, &repository(&host), Some(&tag)).await.unwrap();
        assert!(scene.attached(&host).await.is_empty(), "{where_listed:?}");
        scene.publish(&host, &[bundle(1)]).await.unwrap();
        assert_eq!(scene.attached(&host).await, ["1"], "{where_listed:?}");
    }
}

/// What a writer reported as attached is there, whoever wrote at the same moment; otherwise it ended with an error.
#[tokio::test(flavor = "multi_thread")]
async fn six_writers_at_once_lose_nothing_in_silence() {
    let scene = Scene::new();
    for (registry, _) in real() {
        let host = registry.host();
        scene.publish(&host, &[]).await.unwrap();
        let writers = (0..6).map(|number| {
            let (subject, manifest) = (scene.subject(&host), scene.image.manifest().clone());
            tokio::spawn(async move {
                let bundle = bundle(number);
                let attached = Client::new([]).attach(&subject, &manifest, &[statement(&bundle)]).await;
                attached.map(|_| number.to_string())
            })
        });
        let mut reported = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            match writer.await.unwrap() {
                Ok(number) => reported.push(number),
                Err(error) => eprintln!("{host}: {error}"),
            }
        }
        reported.sort();
        assert_eq!(scene.attached(&host).await, reported);
        assert!(!reported.is_empty(), "nobody got anything attached");
    }
}

const PAGE: &str = "<!doctype html><title>Sign in</title>";

#[tokio::test]
async fn what_answers_for_the_referrers_api_is_not_taken_for_a_list() {
    let Some(registry) = registry() else { return };
    let answers =
        ["400 Bad Request", "403 Forbidden", "405 Method Not Allowed", "406 Not Acceptable", "200 OK"];
    for (number, status) in answers.into_iter().enumerate() {
        let front = Front::before(&registry.host(), Manner::Referrers(status, PAGE));
        let scene = Scene::new();
        let listed = scene.publish(front.host(), &[bundle(number)]).await.unwrap();
        assert_eq!(listed, Some(Listed::UnderTag), "{status}");
        assert!(scene.attached(front.host()).await.contains(&number.to_string()), "{status}");
    }
    // What fails is no answer.
    for status in ["500 Internal Server Error", "401 Unauthorized"] {
        let front = Front::before(&registry.host(), Manner::Referrers(status, PAGE));
        let found = Client::new([]).attachments(&Scene::new().subject(front.host())).await;
        assert!(found.is_err(), "{status}: {found:?}");
    }
}

#[tokio::test]
async fn a_promise_to_list_is_looked_after() {
    let scene = Scene::new();
    if let Some(registry) = registry() {
        let front = Front::before(&registry.host(), Manner::Promises);
        let listed = scene.publish(front.host(), &[bundle(1)]).await.unwrap();
        assert_eq!(listed, Some(Listed::UnderTag));
        assert_eq!(scene.attached(front.host()).await, ["1"]);
    }
    if let Some(registry) = Registry::with_referrers() {
        let front = Front::before(&registry.host(), Manner::LosesOne);
        let listed = scene.publish(front.host(), &[bundle(1), bundle(2)]).await.unwrap();
        assert_eq!(listed, Some(Listed::ByRegistry));
        assert_eq!(scene.attached(front.host()).await, ["1", "2"]);
    }
}

#[tokio::test]
async fn a_registry_that_reads_the_tag_as_a_digest_keeps_statements_as_cosign_2_does() {
    let Some(registry) = registry() else { return };
    let (scene, front) = (Scene::new(), Front::before(&registry.host(), Manner::TagIsDigest));
    let listed = scene.publish(front.host(), &[bundle(1), bundle(2)]).await.unwrap();
    assert_eq!(listed, Some(Listed::Envelopes));
    assert_eq!(scene.attached(front.host()).await, ["1", "2"]);
    let third = bundle(3);
    let client = Client::new([]);
    client.attach(&scene.subject(front.host()), scene.image.manifest(), &[statement(&third)]).await.unwrap();
    assert_eq!(scene.attached(front.host()).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn where_nothing_can_be_attached_the_image_is_not_pushed() {
    let Some(registry) = registry() else { return };
    let (scene, front) = (Scene::new(), Front::before(&registry.host(), Manner::NoSuchTags));
    let error = scene.publish(front.host(), &[bundle(1)]).await.unwrap_err();
    assert!(matches!(error, images::Error::CannotAttach { .. }), "{error}");
    let pushed = Client::new([]).describe(&scene.subject(front.host())).await;
    assert!(matches!(pushed, Err(images::Error::NotFound { .. })), "{pushed:?}");
    // Reading there finds nothing, and does not fail.
    scene.publish(front.host(), &[]).await.unwrap();
    assert!(scene.attached(front.host()).await.is_empty());
}

#[tokio::test]
async fn registries_with_ways_of_their_own_are_used_all_the_same() {
    let Some(registry) = registry() else { return };
    for manner in [Manner::SubjectFirst, Manner::ChoosesByAccept, Manner::NoOpenRanges] {
        let (scene, other) = (Scene::new(), tempfile::tempdir().unwrap());
        let front = Front::before(&registry.host(), manner);
        scene.publish(front.host(), &[bundle(1)]).await.unwrap();
        assert_eq!(scene.attached(front.host()).await, ["1"], "{manner:?}");
        let store = Store::open(other.path()).unwrap();
        let pulled = Client::new([]).pull(&scene.subject(front.host()), &store).await.unwrap();
        assert_eq!(pulled.digest(), scene.image.digest(), "{manner:?}");
    }
}

/// A registry of a few lines that has these manifests and blobs, by digest or by tag, and nothing else.
#[derive(Default)]
struct Kept(BTreeMap<String, (String, Vec<u8>)>);

impl Kept {
    fn add(&mut self, kind: &str, bytes: &[u8]) -> Descriptor {
        self.0.insert(Digest::of(bytes).to_string(), (kind.to_owned(), bytes.to_vec()));
        Descriptor::of(kind, bytes)
    }

    fn tag(&mut self, tag: &str, kind: &str, bytes: Vec<u8>) {
        self.0.insert(tag.to_owned(), (kind.to_owned(), bytes));
    }

    fn attach(&mut self, subject: &Digest, artifact: &str, layers: Vec<Descriptor>) -> Descriptor {
        let manifest = Manifest {
            artifact_type: Some(artifact.to_owned()),
            subject: Some(Descriptor::new(MANIFEST, *subject, 2)),
            ..Manifest::image(Descriptor::of(EMPTY, b"{}"), layers)
        };
        let entry = self.add(MANIFEST, &manifest.to_bytes().unwrap());
        Descriptor { artifact_type: Some(artifact.to_owned()), ..entry }
    }

    fn list(&mut self, subject: &Digest, entries: &[Descriptor]) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.tag(&format!("sha256-{}", subject.hex()), INDEX, index.to_string().into());
    }

    fn serve(self) -> Faulty {
        Faulty::new(move |asked| match self.0.get(asked.path.rsplit('/').next().unwrap()) {
            Some((kind, bytes)) => said("200 OK", &[("Content-Type", kind)], bytes),
            None => said("404 Not Found", &[], b""),
        })
    }
}

#[tokio::test]
async fn what_is_attached_is_counted_by_bundles() {
    for (artifact, count) in
        [("application/spdx+json", 600), (BUNDLE_MEDIA_TYPE, 512), (BUNDLE_MEDIA_TYPE, 513)]
    {
        let (mut kept, subject) = (Kept::default(), Digest::of(b"image"));
        let entries: Vec<_> = (0..count)
            .map(|number| {
                let layer = kept.add(artifact, &bundle(number));
                kept.attach(&subject, artifact, vec![layer])
            })
            .collect();
        kept.list(&subject, &entries);
        let server = kept.serve();
        let found = Client::new([]).attachments(&repository(&server.host).pin(subject)).await;
        match (artifact == BUNDLE_MEDIA_TYPE, count) {
            (false, _) => assert!(found.unwrap().bundles.is_empty()),
            (true, 512) => assert_eq!(found.unwrap().bundles.len(), 512),
            _ => assert!(matches!(found, Err(images::Error::TooMany { count: 513, .. })), "{found:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_listed_and_gone_is_told_and_so_is_what_is_not_used() {
    let (mut kept, subject) = (Kept::default(), Digest::of(b"image"));
    let good = kept.add(BUNDLE_MEDIA_TYPE, &bundle(1));
    let plain = kept.add("application/vnd.oci.image.layer.v1.tar", &bundle(2));
    let lost = Descriptor::of(BUNDLE_MEDIA_TYPE, &bundle(3));
    let entries = [
        kept.attach(&subject, BUNDLE_MEDIA_TYPE, vec![good.clone()]),
        kept.attach(&subject, BUNDLE_MEDIA_TYPE, vec![good.clone(), good.clone()]),
        kept.attach(&subject, BUNDLE_MEDIA_TYPE, vec![plain.clone()]),
        kept.attach(&subject, "application/vnd.cncf.notary.signature", vec![plain.clone()]),
        kept.attach(&subject, "application/spdx+json", vec![plain.clone()]),
        kept.attach(&subject, BUNDLE_MEDIA_TYPE, vec![lost]),
        // A list may name what is attached to something else.
        kept.attach(&Digest::of(b"other"), BUNDLE_MEDIA_TYPE, vec![good]),
        Descriptor { artifact_type: Some("application/x".into()), ..Descriptor::of(MANIFEST, b"gone") },
    ];
    kept.list(&subject, &entries);
    let envelope = br#"{"payload":"e30=","payloadType":"t","signatures":[{"keyid":"4"}]}"#;
    let envelope = kept.add("application/vnd.dsse.envelope.v1+json", envelope);
    let certified = Descriptor {
        annotations: [("dev.sigstore.cosign/certificate".to_owned(), "x".to_owned())].into(),
        ..envelope.clone()
    };
    let config = Descriptor::of(EMPTY, b"{}");
    let attestations = Manifest::image(config.clone(), vec![envelope, certified, plain]);
    kept.tag(&format!("sha256-{}.att", subject.hex()), MANIFEST, attestations.to_bytes().unwrap());
    let simple = kept.add("application/vnd.dev.cosign.simplesigning.v1+json", b"{}");
    let signatures = Manifest::image(config, vec![simple]);
    kept.tag(&format!("sha256-{}.sig", subject.hex()), MANIFEST, signatures.to_bytes().unwrap());

    let server = kept.serve();
    let found = Client::new([]).attachments(&repository(&server.host).pin(subject)).await.unwrap();
    let ids: Vec<String> = found.bundles.iter().map(|it| key_id(&it.bytes)).collect();
    assert_eq!(ids, ["1", "4"]);
    let gone: Vec<&str> = found.gone.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(gone, [BUNDLE_MEDIA_TYPE, "application/x"]);
    let unused: Vec<Passed> = found.unused.iter().map(|it| it.why).collect();
    assert_eq!(
        unused,
        [
            Passed::SeveralLayers,
            Passed::LayerType,
            Passed::Notary,
            Passed::Certificate,
            Passed::NoEnvelope,
            Passed::Signature,
        ]
    );
}

/// An index that is damaged may have named a veto: it does not read as an empty list.
#[tokio::test]
async fn a_damaged_list_is_an_error() {
    let subject = Digest::of(b"image");
    for text in
        ["{", r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}"#, r#"{"manifests":[],"layers":[]}"#]
    {
        let mut kept = Kept::default();
        kept.tag(&format!("sha256-{}", subject.hex()), INDEX, text.into());
        let server = kept.serve();
        let found = Client::new([]).attachments(&repository(&server.host).pin(subject)).await;
        assert!(found.is_err(), "{text}: {found:?}");
    }
}
