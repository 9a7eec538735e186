//! The registry: Debian's real one with `skopeo` and `tar` as foreign readers, and a hostile one of a few lines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use attestations::Digest;
use images::layer::Compression;
use images::registry::Client;
use images::{Image, Store};

use common::{image, registry, reply, repository, serve, statement};

#[tokio::test]
async fn pushed_image_is_read_by_others_and_pulled_back() {
    let Some(registry) = registry() else { return };
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let place = tempfile::tempdir().unwrap();
        let (store, other) =
            (Store::open(place.path().join("a")).unwrap(), Store::open(place.path().join("b")).unwrap());
        let image = image(&store, compression);
        let repository = repository(&registry.host());
        let client = Client::new([]);
        let digest = client.push(&store, &image, &repository, Some("v1")).await.unwrap();
        let reference = format!("{repository}:v1").parse().unwrap();
        assert_eq!(client.resolve(&reference).await.unwrap(), digest);
        let pulled = client.pull(&repository.clone().pin(digest), &other).await.unwrap();
        assert_eq!(pulled.digest(), image.digest());
        let out = place.path().join("oci");
        let copied = Command::new("skopeo")
            .args([
                "copy",
                "--src-tls-verify=false",
                &format!("docker://{repository}@{digest}"),
                &format!("oci:{}:x", out.display()),
            ])
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        if compression != Compression::Zstd {
            let listed = Command::new("tar")
                .arg("tvf")
                .arg(store.path_of(&image.layers()[0].digest))
                .output()
                .unwrap();
            assert!(
                listed.status.success() && listed.stderr.is_empty(),
                "{}",
                String::from_utf8_lossy(&listed.stderr)
            );
            assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 5);
        }
        let subject = repository.clone().pin(digest);
        for bundle in [&b"{\"a\":1}"[..], b"{\"b\":1}"] {
            client.attach(&subject, image.manifest(), &[statement(bundle)]).await.unwrap();
        }
        let found = client.attachments(&repository.clone().pin(digest)).await.unwrap();
        assert_eq!(found.bundles.len(), 2, "{compression:?}");
        // Kept, and the registry's copies gone: only the list is asked for. A kept byte that changed is fetched anew.
        let kept = attachments_kept(&client, &repository.clone().pin(digest), &other).await.unwrap();
        assert_eq!(kept, found);
        let copy = other.path_of(&Digest::of(b"{\"a\":1}"));
        std::fs::remove_file(registry.blob(&Digest::of(b"{\"b\":1}").to_string())).unwrap();
        std::fs::remove_file(&copy).unwrap();
        std::fs::write(&copy, "{\"a\":2}").unwrap();
        let kept = attachments_kept(&client, &repository.clone().pin(digest), &other).await.unwrap();
        assert_eq!(kept, found);
        let without = client.attachments(&repository.clone().pin(digest)).await.unwrap();
        assert_eq!((without.bundles.len(), without.gone.len()), (1, 1));
    }
}

async fn attachments_kept(
    client: &Client,
    subject: &attestations::Pinned,
    store: &Store,
) -> images::Result<images::registry::Attached> {
    client.attachments_within(subject, &images::registry::Budget::new(1 << 20), Some(store), &|_| true).await
}

/// What nobody of the policy signed is not kept, and more than the budget is refused with the number.
#[tokio::test]
async fn what_is_attached_is_bounded_in_all_and_kept_only_when_it_is_worth_it() {
    let Some(registry) = registry() else { return };
    let place = tempfile::tempdir().unwrap();
    let (store, node) =
        (Store::open(place.path().join("a")).unwrap(), Store::open(place.path().join("b")).unwrap());
    let image = image(&store, Compression::Gzip);
    let client = Client::new([]);
    let repository = repository(&registry.host());
    client.push(&store, &image, &repository, None).await.unwrap();
    let subject = repository.pin(image.digest());
    let bundle = vec![b' '; 300 << 10];
    for number in 0..3 {
        let bundle = [&bundle[..], format!("{{\"n\":{number}}}").as_bytes()].concat();
        client.attach(&subject, image.manifest(), &[statement(&bundle)]).await.unwrap();
    }
    let budget = images::registry::Budget::new(1 << 20);
    let found = client.attachments_within(&subject, &budget, Some(&node), &|_| false).await.unwrap();
    assert_eq!((found.bundles.len(), budget.exceeded()), (3, None));
    assert!(found.bundles.iter().all(|it| !node.path_of(&Digest::of(&it.bytes)).exists()));
    let budget = images::registry::Budget::new(800 << 10);
    let error = client.attachments_within(&subject, &budget, Some(&node), &|_| true).await.unwrap_err();
    assert!(error.to_string().contains("819200"), "{error}");
    assert!(budget.exceeded().unwrap() > 800 << 10);
}

/// A base from one registry on this machine, the image to another.
#[tokio::test]
async fn one_client_serves_two_plain_registries() {
    let (Some(one), Some(two)) = (registry(), registry()) else { return };
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path().join("a")).unwrap();
    let image = image(&store, Compression::Gzip);
    let client = Client::new([]);
    client.push(&store, &image, &repository(&one.host()), Some("v1")).await.unwrap();
    client.push(&store, &image, &repository(&two.host()), Some("v1")).await.unwrap();
}

fn pinned(host: &str) -> attestations::Pinned {
    repository(host).pin(Digest::of(b"subject"))
}

/// A second page that cannot be followed may hold a veto: it must not read as the end of the list.
#[tokio::test]
async fn referrers_page_that_cannot_be_followed_is_an_error() {
    for link in [
        "<https://elsewhere.example/v2/other/referrers/x>; rel=\"next\"",
        "<?last=5>; rel=\"next\"",
        "</v2/team/algo/x>; rel=\"first\", </v2/team/algo/referrers/y?p=2>; rel=\"next\"",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = serve(listener, move |line| {
            if line.contains("?") {
                return reply("500 Internal Server Error", "", "");
            }
            reply(
                "200 OK",
                &format!("Content-Type: application/vnd.oci.image.index.v1+json\r\nLink: {link}\r\n"),
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            )
        });
        let found = Client::new([]).attachments(&pinned(&host)).await;
        assert!(found.is_err(), "{link}: {found:?} {:?}", log.lock().unwrap());
    }
}

#[tokio::test]
async fn failing_registry_is_never_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    serve(listener, |_| reply("500 Internal Server Error", "", ""));
    assert!(Client::new([]).attachments(&pinned(&host)).await.is_err());
}

#[tokio::test]
async fn endless_manifest_and_many_referrers_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let one = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":2}}"#,
        Digest::of(b"x")
    );
    serve(listener, move |line| {
        if line.contains("referrers") {
            let many = vec![one.clone(); 10_000].join(",");
            return reply(
                "200 OK",
                "Link: </v2/team/algo/referrers/x?p=2>; rel=\"next\"\r\n",
                &format!(
                    r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{many}]}}"#
                ),
            );
        }
        if line.contains("/manifests/sha256-") {
            return reply("404 Not Found", "", "");
        }
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "a".repeat(9 << 20))
    });
    let client = Client::new([]);
    let many = client.attachments(&pinned(&host)).await.unwrap_err().to_string();
    assert!(many.contains("2048"), "{many}");
    let endless = client.resolve(&format!("{host}/team/algo:v1").parse().unwrap()).await.unwrap_err();
    assert!(matches!(endless, images::Error::TooLarge { .. }), "{endless}");
}

/// The token service that was judged has to be the one that gets the password, whatever `/v2/` says afterwards.
#[test]
fn password_does_not_follow_a_second_challenge() {
    let place = tempfile::tempdir().unwrap();
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let evil = TcpListener::bind("127.0.0.2:0").unwrap();
    let (host, thief) = (registry.local_addr().unwrap().to_string(), evil.local_addr().unwrap().to_string());
    let own = host.clone();
    let log = serve(evil, |_| reply("200 OK", "Content-Type: application/json\r\n", r#"{"token":"t"}"#));
    let target = thief.clone();
    serve(registry, move |line| {
        let realm = if line.starts_with("GET /v2/ ") { &target } else { &own };
        reply(
            "401 Unauthorized",
            &format!("WWW-Authenticate: Bearer realm=\"http://{realm}/token\",service=\"s\"\r\n"),
            "",
        )
    });
    // "user:hunter2"
    std::fs::write(
        place.path().join("config.json"),
        format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpodW50ZXIy"}}}}}}"#),
    )
    .unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_asks", "--ignored", "--nocapture"])
        .env("DOCKER_CONFIG", place.path())
        .env("CHILD_HOST", &host)
        .output()
        .unwrap();
    let seen = log.lock().unwrap().clone();
    assert!(seen.is_empty(), "another host got {seen:?}\n{}", String::from_utf8_lossy(&child.stdout));
}

#[tokio::test]
#[ignore = "run by password_does_not_follow_a_second_challenge with credentials of its own"]
async fn child_asks() {
    let host = std::env::var("CHILD_HOST").unwrap();
    let outcome = Client::new([]).resolve(&format!("{host}/team/algo:v1").parse().unwrap()).await;
    println!("child: {outcome:?}");
}

/// Plain HTTP is for this machine and for named hosts; a redirect names nobody.
#[tokio::test]
async fn redirect_does_not_reach_a_plain_host_that_was_not_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    serve(listener, |_| reply("307 Temporary Redirect", "Location: http://192.0.2.1:9/x\r\n", ""));
    let client = Client::new([]);
    let reference = format!("{host}/team/algo:v1").parse().unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(3), client.resolve(&reference)).await;
    let error = asked.expect("it went on to the other host").unwrap_err().to_string();
    assert!(error.contains("redirect"), "{error}");
}

/// A registry that dies while a blob is sent has not been sent a manifest, whichever blob it was.
#[tokio::test]
async fn registry_that_dies_in_mid_push_has_no_manifest() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path().join("store")).unwrap();
    let image = image(&store, Compression::Gzip);
    for survives in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let there = host.clone();
        let sent = std::sync::atomic::AtomicUsize::new(0);
        let log = serve(listener, move |line| match line.split(' ').next().unwrap_or_default() {
            "HEAD" => reply("404 Not Found", "", ""),
            "GET" => reply("200 OK", "", "{}"),
            "POST" => reply(
                "202 Accepted",
                &format!("Location: http://{there}/v2/team/algo/blobs/uploads/1\r\n"),
                "",
            ),
            _ if sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < survives => {
                reply("201 Created", &format!("Location: http://{there}/v2/team/algo/blobs/1\r\n"), "")
            }
            // It breaks off without an answer.
            _ => String::new(),
        });
        let client = Client::new([]);
        let error = client.push(&store, &image, &repository(&host), Some("v1")).await.unwrap_err();
        assert!(matches!(error, images::Error::Registry { .. }), "{error}");
        let asked = log.lock().unwrap().clone();
        assert!(asked.iter().any(|line| line.starts_with("POST")), "{asked:?}");
        assert!(!asked.iter().any(|line| line.contains("/manifests/")), "{asked:?}");
    }
}

/// A body that never ends, by chunks and without a length, is cut where it exceeds what the manifest promised.
#[tokio::test]
async fn endless_blob_is_cut() {
    let place = tempfile::tempdir().unwrap();
    let source = Store::open(place.path().join("source")).unwrap();
    let image = image(&source, Compression::Gzip);
    let manifest = String::from_utf8(source.read(image.manifest(), 1 << 20).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    serve(listener, move |line| {
        if line.contains("/manifests/") {
            return reply(
                "200 OK",
                "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
                &manifest,
            );
        }
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
        format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            chunk.repeat(8)
        )
    });
    let into = Store::open(place.path().join("into")).unwrap();
    let pinned = repository(&host).pin(image.digest());
    let error = Client::new([]).pull(&pinned, &into).await.unwrap_err();
    assert!(matches!(error, images::Error::Size { .. }), "{error}");
    assert!(Image::load(&into, &image.digest()).is_err());
    let blobs = std::fs::read_dir(place.path().join("into/blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 0, "nothing half-written is left");
}
