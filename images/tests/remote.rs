//! Registries far away: what breaks off goes on, what is busy is asked again, what lies is found, and mirrors stand in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attestations::{Pinned, Reference};
use images::layer::Compression;
use images::registry::{Client, Mirror, Mirrored, Registries};
use images::{Descriptor, Error, Image, Manifest, Store};

use common::faulty::{Faulty, Said, StandInRequest, right, said};
use common::{image, registry, repository};

struct Scene {
    place: tempfile::TempDir,
    store: Store,
    image: Image,
}

impl Scene {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path().join("from")).unwrap();
        let image = image(&store, Compression::None);
        Self { place, store, image }
    }

    fn folder(&self, name: &str) -> Store {
        Store::open(self.place.path().join(name)).unwrap()
    }

    fn layer(&self) -> (String, Vec<u8>) {
        let layer = &self.image.layers()[0];
        (layer.digest.to_string(), std::fs::read(self.store.path_of(&layer.digest)).unwrap())
    }

    fn serving(&self, wrong: impl Fn(&StandInRequest) -> Option<Said> + Send + Sync + 'static) -> Faulty {
        Faulty::serving(&self.store, &self.image, wrong)
    }

    fn pinned(&self, host: &str) -> Pinned {
        repository(host).pin(self.image.digest())
    }

    async fn pull(&self, client: &Client, host: &str, name: &str) -> Result<Image, Error> {
        client.pull(&self.pinned(host), &self.folder(name)).await
    }
}

fn impatient() -> Client {
    Client::with(Registries { patience: Duration::from_millis(300), ..Registries::default() })
}

/// A way to a server that ends each connection after so many bytes from it; the last number is for all further ones.
fn cutting(to: String, budgets: &'static [usize]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let passed = Arc::new(AtomicUsize::new(0));
    let counted = passed.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let client = stream.unwrap();
            let server = TcpStream::connect(&to).unwrap();
            let (mut from, mut up) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut up));
            let (budget, counted) = (*budgets.get(number).or(budgets.last()).unwrap(), counted.clone());
            std::thread::spawn(move || {
                let (mut buffer, mut left) = ([0; 1 << 14], budget);
                while let Ok(count @ 1..) = (&server).read(&mut buffer) {
                    let count = count.min(left);
                    let _ = (&client).write_all(&buffer[..count]);
                    left -= count;
                    counted.fetch_add(count, Ordering::SeqCst);
                    if left == 0 {
                        break;
                    }
                }
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    (host, passed)
}

/// A real registry behind a line that breaks: nothing is sent twice.
#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_stopped() {
    let Some(real) = registry() else { return };
    let scene = Scene::new();
    Client::new([]).push(&scene.store, &scene.image, &repository(&real.host()), Some("v1")).await.unwrap();
    let (host, passed) = cutting(real.host(), &[1_500_000, 400_000, 1_200_000, usize::MAX]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let client = Client::new([]).telling(move |text| log.lock().unwrap().push(text.to_owned()));
    scene.pull(&client, &host, "to").await.unwrap();
    let (size, passed) = (scene.layer().1.len(), passed.load(Ordering::SeqCst));
    assert!(size > 3_000_000 && passed < size + 100_000, "{passed} bytes for {size}");
    assert_eq!(told.lock().unwrap().len(), 3, "{told:?}");
}

/// Only the right part of the blob is taken for the rest of it; for all else, it starts over.
#[tokio::test]
async fn what_a_range_is_answered_with_is_checked() {
    let scene = Scene::new();
    let (digest, bytes) = scene.layer();
    let (half, end) = (bytes.len() / 2, bytes.len() - 1);
    let part = |range: String, body: &[u8]| said("206 Partial Content", &[("Content-Range", &range)], body);
    let cases = [
        ("the rest", part(format!("bytes {half}-{end}/{}", end + 1), &bytes[half..]), 2),
        ("the whole", said("200 OK", &[], &bytes), 2),
        ("another part", part(format!("bytes 0-{end}/{}", end + 1), &bytes), 3),
        ("no range", said("206 Partial Content", &[], &bytes[half..]), 3),
        ("none", said("416 Range Not Satisfiable", &[], b""), 3),
    ];
    for (name, again, requests) in cases {
        let (path, bytes) = (format!("/blobs/{digest}"), bytes.clone());
        let server = scene.serving(move |asked| match (asked.path.ends_with(&path), asked.header("range")) {
            (true, None) if asked.before == 0 => {
                Some(Said { length: bytes.len(), ..said("200 OK", &[], &bytes[..half]) })
            }
            (true, Some(range)) => {
                assert_eq!(range, format!("bytes={half}-{end}"));
                Some(again.clone())
            }
            _ => None,
        });
        scene
            .pull(&Client::new([]), &server.host, name)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(server.asked_for(&digest).len(), requests, "{name}");
    }
    // What goes on with other bytes has another digest in the end.
    let (path, mut other) = (format!("/blobs/{digest}"), bytes.clone());
    other[half + 7] ^= 1;
    let server = scene.serving(move |asked| match (asked.path.ends_with(&path), asked.header("range")) {
        (true, None) => Some(Said { length: end + 1, ..said("200 OK", &[], &other[..half]) }),
        (true, Some(_)) => Some(said(
            "206 Partial Content",
            &[("Content-Range", &format!("bytes {half}-{end}/{}", end + 1))],
            &other[half..],
        )),
        _ => None,
    });
    let error = scene.pull(&Client::new([]), &server.host, "other").await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    assert!(Image::load(&scene.folder("other"), &scene.image.digest()).is_err());
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_and_no_other() {
    let scene = Scene::new();
    for (status, wait, requests, words) in [
        ("429 Too Many Requests", "0", 3, ""),
        ("503 Service Unavailable", "0", 3, ""),
        ("500 Internal Server Error", "0", 4, "after 4 tries"),
        ("503 Service Unavailable", "3600", 1, "3600 s"),
        ("403 Forbidden", "0", 1, "403"),
        ("400 Bad Request", "0", 1, "400"),
        ("404 Not Found", "0", 1, "is not there"),
    ] {
        let fails = if words.is_empty() { 2 } else { usize::MAX };
        let server = scene.serving(move |asked| {
            (asked.before < fails).then(|| said(status, &[("Retry-After", wait)], b"the reason"))
        });
        let reference: Reference = format!("{}:v1", repository(&server.host)).parse().unwrap();
        let found = Client::new([]).resolve(&reference).await;
        match (words.is_empty(), found) {
            (true, found) => assert_eq!(found.unwrap(), scene.image.digest(), "{status}"),
            (false, found) => {
                let error = found.unwrap_err().to_string();
                assert!(error.contains(words), "{status}: {error}");
            }
        }
        assert_eq!(server.asked().len(), requests, "{status} {wait}");
    }
}

#[tokio::test]
async fn each_fault_ends_in_an_error_that_names_it() {
    let scene = Scene::new();
    let (digest, bytes) = scene.layer();
    let whole = bytes.len();
    let stalls =
        |count: usize, body: &[u8]| Said { length: count, stalls: true, ..said("200 OK", &[], body) };
    let mut other = bytes.clone();
    other[whole / 2] ^= 1;
    let cases: Vec<(&str, Said, &str)> = vec![
        ("stalls at once", stalls(whole, b""), "after 4 tries"),
        ("says a short length", said("200 OK", &[], &bytes[..1000]), "should have"),
        ("says a long length", said("200 OK", &[], &[&bytes[..], b"more"].concat()), "should have"),
        ("sends other bytes", said("200 OK", &[], &other), "should have the digest"),
        (
            "leads to itself",
            said("307 Temporary Redirect", &[("Location", "?again")], b""),
            "redirects more than five times",
        ),
        (
            "leads elsewhere",
            said("307 Temporary Redirect", &[("Location", "http://192.0.2.1:9/x")], b""),
            "not named",
        ),
    ];
    for (name, wrong, words) in cases {
        let path = format!("/blobs/{digest}");
        let server = scene.serving(move |asked| asked.path.contains(&path).then(|| wrong.clone()));
        let start = Instant::now();
        let error = scene.pull(&impatient(), &server.host, name).await.unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
        assert!(start.elapsed() < Duration::from_secs(8), "{name} took {:?}", start.elapsed());
        assert!(Image::load(&scene.folder(name), &scene.image.digest()).is_err(), "{name}");
    }
    // The same of a manifest.
    let other = said("200 OK", &[], b"{\"schemaVersion\":2}");
    let cut = Said { length: 5000, ..said("200 OK", &[], b"{\"schemaVersion\":2") };
    for (name, wrong, words) in [
        ("other", other, "should have the digest"),
        ("cut", cut, "after 4 tries"),
        ("stalled", stalls(9, b"{"), "after 4 tries"),
    ] {
        let server = scene.serving(move |asked| asked.path.contains("/manifests/").then(|| wrong.clone()));
        let error = scene.pull(&impatient(), &server.host, name).await.unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

/// Kinds of content that are refused come with their names, whatever was asked for.
#[tokio::test]
async fn schema_1_and_foreign_layers_are_refused_by_name() {
    let scene = Scene::new();
    let old = br#"{"schemaVersion":1,"name":"a","fsLayers":[{"blobSum":"sha256:00"}],"history":[]}"#.to_vec();
    let kind = |rest: &str| format!("application/vnd.docker.distribution.manifest.v1+{rest}");
    for (media_type, body) in [
        (kind("json"), old.clone()),
        (kind("prettyjws; charset=utf-8"), old.clone()),
        (kind("prettyjws"), b"{\"schemaVersion\":2}".to_vec()),
        ("application/json".to_owned(), old),
    ] {
        let sent = (media_type.clone(), body.clone());
        let server = Faulty::new(move |_| said("200 OK", &[("Content-Type", &sent.0)], &sent.1));
        let pinned = repository(&server.host).pin(attestations::Digest::of(&body));
        let error = Client::new([]).pull(&pinned, &scene.folder("old")).await.unwrap_err().to_string();
        assert!(error.contains("schema 1"), "{media_type}: {error}");
    }
    for (media_type, words) in [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "at a URL"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "at a URL"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
        ("application/x-other", "not known"),
    ] {
        let layer = &scene.image.layers()[0];
        let layers = vec![Descriptor::new(media_type, layer.digest, layer.size)];
        let bytes = Manifest::image(scene.image.config_descriptor().clone(), layers).to_bytes().unwrap();
        let sent = bytes.clone();
        let server = Faulty::new(move |_| said("200 OK", &[], &sent));
        let pinned = repository(&server.host).pin(attestations::Digest::of(&bytes));
        let error = Client::new([]).pull(&pinned, &scene.folder("foreign")).await.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(media_type), "{error}");
        assert_eq!(server.asked().len(), 1, "nothing was fetched of it");
    }
}

/// Uploads go where the registry says, with its own credentials to nobody else, and from the beginning each time.
#[tokio::test]
async fn uploads_go_where_the_registry_says() {
    let scene = Scene::new();
    let (digest, bytes) = scene.layer();
    let elsewhere = Arc::new(Faulty::at("127.0.0.2", |_| said("201 Created", &[], b"")));
    let other = elsewhere.host.clone();
    for (name, location) in [
        ("absolute path", "/v2/up/1?state=a%2Fb".to_owned()),
        ("relative", "1?state=a".to_owned()),
        ("another server", format!("http://{other}/up")),
        ("a plain host that was not named", "http://192.0.2.1:9/up".to_owned()),
        ("no URL", "http://[".to_owned()),
    ] {
        let place = location.clone();
        let server = Faulty::new(move |asked| match asked.method.as_str() {
            "HEAD" => said("404 Not Found", &[], b""),
            "POST" => said("202 Accepted", &[("Location", &place)], b""),
            "PUT" if !asked.path.contains("/manifests/") && asked.before == 0 => {
                said("503 Service Unavailable", &[], b"busy")
            }
            _ => said("201 Created", &[], b""),
        });
        let pushed =
            Client::new([]).push(&scene.store, &scene.image, &repository(&server.host), Some("v1")).await;
        if name.starts_with("a plain") || name == "no URL" {
            let error = pushed.unwrap_err().to_string();
            assert!(error.contains("opened an upload"), "{name}: {error}");
            assert!(server.asked_for("/manifests/").is_empty(), "{name}");
            continue;
        }
        pushed.unwrap_or_else(|error| panic!("{name}: {error}"));
        let all: Vec<StandInRequest> = server.asked().into_iter().chain(elsewhere.asked()).collect();
        let sent: Vec<&StandInRequest> = all
            .iter()
            .filter(|asked| asked.method == "PUT" && asked.path.contains(&digest.replace(':', "%3A")))
            .collect();
        assert!(
            !sent.is_empty() && sent.iter().all(|asked| asked.body == bytes),
            "{name}: {} requests",
            sent.len()
        );
        if location.starts_with('/') {
            assert!(sent[0].path.starts_with("/v2/up/1?state=a%2Fb&digest=sha256%3A"), "{}", sent[0].path);
            assert_eq!(sent.len(), 2, "the busy one was sent again, whole");
        }
    }
}

/// A blob of ours that was changed on the disk is found while it is sent; trying again would not mend it.
#[tokio::test]
async fn a_damaged_blob_is_not_sent_again() {
    let Some(real) = registry() else { return };
    let scene = Scene::new();
    let layer = scene.store.path_of(&scene.image.layers()[0].digest);
    let mut bytes = std::fs::read(&layer).unwrap();
    bytes[1000] ^= 1;
    std::fs::remove_file(&layer).unwrap();
    std::fs::write(&layer, bytes).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let client = Client::new([]).telling(move |text| log.lock().unwrap().push(text.to_owned()));
    let error =
        client.push(&scene.store, &scene.image, &repository(&real.host()), Some("v1")).await.unwrap_err();
    assert!(error.to_string().contains("should have the digest"), "{error}");
    assert!(told.lock().unwrap().is_empty(), "{told:?}");
    let reference = format!("{}:v1", repository(&real.host())).parse().unwrap();
    assert!(client.resolve(&reference).await.is_err(), "no manifest came after it");
}

fn mirrored(registry: &str, mirrors: &[(&str, bool)], only: bool) -> Registries {
    let mirror = |(at, tags): &(&str, bool)| at.parse::<Mirror>().unwrap().believed(*tags);
    let mirrored = Mirrored { mirrors: mirrors.iter().map(mirror).collect(), only };
    let mirrored = BTreeMap::from([(registry.to_owned(), mirrored)]);
    Registries { mirrored, patience: Duration::from_millis(500), ..Registries::default() }
}

/// A tag is the registry's to say; what it stands for comes from a real registry that mirrors it, below a prefix.
#[tokio::test]
async fn a_mirror_gives_content_and_the_registry_says_what_a_tag_is() {
    let Some(real) = registry() else { return };
    let scene = Scene::new();
    let hub = format!("{}/hub/team/algo", real.host()).parse().unwrap();
    Client::new([]).push(&scene.store, &scene.image, &hub, Some("v1")).await.unwrap();
    let origin = scene.serving(|_| None);
    let client = Client::with(mirrored(&origin.host, &[(&format!("{}/hub", real.host()), false)], false));
    let reference: Reference = format!("{}:v1", repository(&origin.host)).parse().unwrap();
    assert_eq!(client.resolve(&reference).await.unwrap(), scene.image.digest());
    assert_eq!(origin.asked().len(), 1, "the tag was asked of the registry");
    scene.pull(&client, &origin.host, "to").await.unwrap();
    assert_eq!(origin.asked().len(), 1, "and nothing else");

    // Believed a tag, the registry is not asked at all; as the only one, it need not even be there.
    for only in [false, true] {
        let client = Client::with(mirrored("gone.example", &[(&format!("{}/hub", real.host()), true)], only));
        let gone: Reference = "gone.example/team/algo:v1".parse().unwrap();
        assert_eq!(client.resolve(&gone).await.unwrap(), scene.image.digest());
        scene.pull(&client, "gone.example", &format!("gone{only}")).await.unwrap();
        if only {
            let refused = client.push(&scene.store, &scene.image, gone.repository(), Some("v2")).await;
            assert!(refused.unwrap_err().to_string().contains("mirrors only"));
        }
    }
}

/// A mirror that lies, lacks it, or is gone is passed over, and told of; one that is gone is not waited for again.
#[tokio::test]
async fn a_mirror_that_fails_is_passed_over() {
    let scene = Scene::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let liar = Faulty::new(|_| said("200 OK", &[], b"other bytes"));
    let empty = Faulty::new(|_| said("404 Not Found", &[], b""));
    for (name, mirror, words) in [
        ("liar", &liar.host, "should have the digest"),
        ("empty", &empty.host, "is not there"),
        ("nobody", &nobody, "Connection refused"),
    ] {
        let origin = scene.serving(|_| None);
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let client = Client::with(mirrored(&origin.host, &[(mirror, false)], false))
            .telling(move |text| log.lock().unwrap().push(text.to_owned()));
        scene.pull(&client, &origin.host, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let told = told.lock().unwrap();
        let over: Vec<&String> = told.iter().filter(|line| line.contains("passed over")).collect();
        assert!(over[0].contains(mirror.as_str()) && over[0].contains(words), "{name}: {told:?}");
        if name == "nobody" {
            assert_eq!(over.len(), 1, "{told:?}");
        }
        assert_eq!(origin.asked().len(), 3, "manifest, config and layer came from the registry");
    }
    // Alone, its failure is the answer; and when both fail, both are told.
    let client = Client::with(mirrored("registry.example", &[(&liar.host, true)], true));
    let error = scene.pull(&client, "registry.example", "alone").await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    let busy = Faulty::new(|_| said("403 Forbidden", &[], b"no"));
    let client = Client::with(mirrored(&busy.host, &[(&liar.host, false)], false));
    let error = scene.pull(&client, &busy.host, "both").await.unwrap_err().to_string();
    assert!(error.contains("403") && error.contains("before that"), "{error}");
}

/// The image is the same whichever way it came.
#[tokio::test]
async fn a_served_image_is_the_one_that_was_asked_for() {
    let scene = Scene::new();
    let server = scene.serving(|_| None);
    let pulled = scene.pull(&Client::new([]), &server.host, "to").await.unwrap();
    assert_eq!(pulled.digest(), scene.image.digest());
    let asked = server.asked();
    assert_eq!(right(&scene.store, &scene.image, &asked[0]).body.len() as u64, scene.image.manifest().size);
}
