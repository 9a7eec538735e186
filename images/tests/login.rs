//! Logging in with people's own credentials: Docker's configuration, its helpers and tokens, at a real registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use images::Store;
use images::layer::Compression;
use images::registry::{Client, Mirror, Mirrored, Registries};

use common::faulty::{Faulty, StandInRequest, said};
use common::{image, registry_with, repository};
use testing::Registry;

/// `user` with the password `hunter2`.
const HTPASSWD: &str = "user:$2b$04$eUnkHUEoh09dd5XhwN/Vt.pjs94oDjjWOelprYyMKsml/XA5QiQHy\n";
const USER: &str = "dXNlcjpodW50ZXIy";

/// What is done in a process of its own, whose environment holds the credentials: pushes, and pulls back.
#[tokio::test]
#[ignore = "run by the other tests with credentials of its own"]
async fn child() {
    let host = std::env::var("CHILD_HOST").unwrap();
    let place = tempfile::tempdir().unwrap();
    let (from, to) =
        (Store::open(place.path().join("a")).unwrap(), Store::open(place.path().join("b")).unwrap());
    let image = image(&from, Compression::Gzip);
    let mut registries = Registries { patience: Duration::from_secs(5), ..Registries::default() };
    if let Ok(mirror) = std::env::var("CHILD_MIRROR") {
        let mirror: Mirror = mirror.parse().unwrap();
        registries.mirrored.insert(host.clone(), Mirrored { mirrors: vec![mirror], only: false });
    }
    let client = Client::with(registries);
    let pushed = client.push(&from, &image, &repository(&host), Some("v1")).await;
    match pushed {
        Ok(digest) => match client.pull(&repository(&host).pin(digest), &to).await {
            Ok(_) => println!("CHILD: fine"),
            Err(error) => println!("CHILD: pull: {error}"),
        },
        Err(error) => println!("CHILD: push: {error}"),
    }
}

/// Runs it with this configuration, and a helper of this text on the path.
fn run(host: &str, config: &str, helper: &str, more: &[(&str, &str)]) -> String {
    let place = tempfile::tempdir().unwrap();
    if !config.is_empty() {
        std::fs::write(place.path().join("config.json"), config).unwrap();
    }
    let program = place.path().join("docker-credential-test");
    std::fs::write(&program, format!("#!/bin/sh\n{helper}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("DOCKER_CONFIG", place.path())
        .env("HOME", place.path())
        .env("PATH", path)
        .env("CHILD_HOST", host)
        .envs(more.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("CHILD: ")).map(|(_, said)| said.to_owned());
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// A registry that wants a password, and the file of its passwords.
fn with_passwords() -> Option<(Registry, tempfile::NamedTempFile)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.path().display());
    registry_with(&auth).map(|registry| (registry, file))
}

#[test]
fn a_real_registry_takes_what_dockers_configuration_holds() {
    let Some((real, _passwords)) = with_passwords() else { return };
    let host = &real.host();
    let auths = |auth: &str| format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    assert_eq!(run(host, &auths(USER), "exit 9", &[]), "fine");
    let wrong = run(host, &auths("dXNlcjp3cm9uZw=="), "exit 9", &[]);
    assert!(wrong.contains("401"), "{wrong}");
    for config in ["", "{}", r#"{"auths": {"other.example": {"auth": "dXNlcjpodW50ZXIy"}}}"#] {
        let none = run(host, config, "exit 9", &[]);
        assert!(none.contains("docker login"), "{config}: {none}");
    }
    let broken = run(host, "{", "exit 9", &[]);
    assert!(broken.contains("config.json is no JSON object"), "{broken}");
}

#[test]
fn credential_helpers_are_asked_as_docker_asks_them() {
    let Some((real, _passwords)) = with_passwords() else { return };
    let host = &real.host();
    let of_host = format!(r#"{{"credHelpers": {{"{host}": "test"}}}}"#);
    let of_all = r#"{"credsStore": "test", "auths": {"other.example": {}}}"#;
    let asked = tempfile::NamedTempFile::new().unwrap();
    let asks = |rest: &str| {
        format!(
            "[ \"$1\" = get ] || exit 8\nread -r server\necho \"$server\" >> {}\n{rest}",
            asked.path().display()
        )
    };
    let gives = asks("echo '{\"ServerURL\":\"'\"$server\"'\",\"Username\":\"user\",\"Secret\":\"hunter2\"}'");
    for config in [of_host.as_str(), of_all] {
        std::fs::write(asked.path(), "").unwrap();
        assert_eq!(run(host, config, &gives, &[]), "fine");
        let asked = std::fs::read_to_string(asked.path()).unwrap();
        assert!(asked.lines().all(|line| line == host), "{asked}");
    }
    // It has none: as if there were no helper. It fails: nothing goes on without the credentials that were meant.
    let none = run(host, of_all, &asks("echo 'credentials not found in native keychain'; exit 1"), &[]);
    assert!(none.contains("docker login"), "{none}");
    let locked = run(host, of_all, &asks("echo 'the key ring is locked' >&2; exit 1"), &[]);
    assert!(locked.contains("docker-credential-test failed: the key ring is locked"), "{locked}");
    let missing = run(host, &of_host.replace("\"test\"", "\"nowhere\""), "exit 0", &[]);
    assert!(missing.contains("cannot be run"), "{missing}");
    let garbled = run(host, &of_host, &asks("echo no json"), &[]);
    assert!(garbled.contains("malformed"), "{garbled}");
}

/// What belongs to the registry is never shown to its mirror, nor the other way.
#[test]
fn a_mirror_gets_no_credentials_but_its_own() {
    let Some((real, _passwords)) = with_passwords() else { return };
    let login = r#"Basic realm="m""#;
    let mirror = Faulty::new(move |_| said("401 Unauthorized", &[("WWW-Authenticate", login)], b""));
    let auths = |more: &str| format!(r#"{{"auths": {{"{}": {{"auth": "{USER}"}}{more}}}}}"#, real.host());
    assert_eq!(run(&real.host(), &auths(""), "", &[("CHILD_MIRROR", &mirror.host)]), "fine");
    assert!(!mirror.asked().is_empty());
    assert!(mirror.asked().iter().all(|asked| asked.header("authorization").is_none()));
    // "mirror:its own"
    let own = format!(r#", "{}": {{"auth": "bWlycm9yOml0cyBvd24="}}"#, mirror.host);
    assert_eq!(run(&real.host(), &auths(&own), "", &[("CHILD_MIRROR", &mirror.host)]), "fine");
    let all = mirror.asked();
    let shown: Vec<_> = all.iter().filter_map(|asked| asked.header("authorization")).collect();
    assert!(
        !shown.is_empty() && shown.iter().all(|shown| *shown == "Basic bWlycm9yOml0cyBvd24="),
        "{shown:?}"
    );
}

/// A real registry that takes tokens of a service of this test's own, which wants a password, or a refresh token.
#[test]
fn tokens_are_had_for_passwords_and_for_refresh_tokens() {
    let place = tempfile::tempdir().unwrap();
    let keys = Keys::make(place.path());
    let (certificate, service) = (keys.certificate.clone(), Faulty::new(move |asked| keys.answer(asked)));
    let auth = format!(
        "auth: {{token: {{realm: 'http://{}/token', service: test, issuer: test, rootcertbundle: {certificate}}}}}\n",
        service.host
    );
    let Some(real) = registry_with(&auth) else { return };
    let config = |rest: &str| format!(r#"{{"auths": {{"{}": {{{rest}}}}}}}"#, real.host());
    assert_eq!(run(&real.host(), &config(&format!(r#""auth": "{USER}""#)), "", &[]), "fine");
    let asked = service.asked();
    assert!(asked.iter().all(|one| one.method == "GET" && one.path.contains("service=test")), "{asked:?}");
    assert!(asked[0].path.contains("scope=repository%3Ateam%2Falgo%3Apull%2Cpush"), "{}", asked[0].path);
    assert!(asked.last().unwrap().path.ends_with("algo%3Apull&service=test"), "{:?}", asked.last());

    let identity = config(r#""auth": "dXNlcjo=", "identitytoken": "refresh me""#);
    assert_eq!(run(&real.host(), &identity, "", &[]), "fine");
    let posted: Vec<StandInRequest> =
        service.asked().into_iter().filter(|one| one.method == "POST").collect();
    let form = String::from_utf8_lossy(&posted[0].body).into_owned();
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=refresh+me"), "{form}");
    assert!(posted[0].header("authorization").is_none());

    let wrong = run(&real.host(), &config(r#""auth": "dXNlcjp3cm9uZw==""#), "", &[]);
    assert!(wrong.contains("/token answered 401"), "{wrong}");
    // Overloaded, the service is asked again like everybody else.
    let busy = Faulty::new(|_| said("503 Service Unavailable", &[], b""));
    let realm = format!(r#"Bearer realm="http://{}/token",service="test""#, busy.host);
    let door = Faulty::new(move |_| said("401 Unauthorized", &[("WWW-Authenticate", &realm)], b""));
    let failed = run(&door.host, "{}", "", &[]);
    assert!(failed.contains("after 4 tries"), "{failed}");
}

/// A token service that sends its callers elsewhere learns nothing for it: neither a password nor a refresh token
/// goes along.
#[test]
fn a_token_request_follows_no_redirect() {
    let elsewhere = Faulty::new(|_| said("200 OK", &[], br#"{"token": "stolen"}"#));
    for status in ["307 Temporary Redirect", "308 Permanent Redirect", "302 Found", "303 See Other"] {
        let there = format!("http://{}/token", elsewhere.host);
        let service = Faulty::new(move |_| said(status, &[("Location", &there)], b""));
        let realm = format!(r#"Bearer realm="http://{}/token",service="test""#, service.host);
        let registry = Faulty::new(move |_| said("401 Unauthorized", &[("WWW-Authenticate", &realm)], b""));
        for login in [
            format!(r#""auth": "{USER}""#),
            r#""auth": "dXNlcjo=", "identitytoken": "refresh me""#.to_owned(),
        ] {
            let config = format!(r#"{{"auths": {{"{}": {{{login}}}}}}}"#, registry.host);
            let failed = run(&registry.host, &config, "", &[]);
            assert!(failed.contains("token service redirects"), "{status}: {failed}");
        }
        assert_eq!(service.asked().len(), 2, "{status}");
    }
    assert!(elsewhere.asked().is_empty(), "{:?}", elsewhere.asked());
}

/// The key that signs tokens, with its certificate.
struct Keys {
    pair: EcdsaKeyPair,
    certificate: String,
    der: Vec<u8>,
}

impl Keys {
    fn make(place: &Path) -> Self {
        let path = |name: &str| place.join(name).display().to_string();
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let (key, certificate) = (path("key.pem"), path("certificate.pem"));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=test",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", &key, "-outform", "DER", "-out", &path("key.der")]);
        openssl(&["x509", "-in", &certificate, "-outform", "DER", "-out", &path("certificate.der")]);
        let read = |name: &str| std::fs::read(place.join(name)).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &read("key.der")).unwrap();
        Self { pair, certificate, der: read("certificate.der") }
    }

    fn answer(&self, asked: &StandInRequest) -> common::faulty::Said {
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        let knows = asked.header("authorization") == Some(&format!("Basic {USER}"))
            || form.contains("refresh_token=refresh+me");
        if !knows {
            return said("401 Unauthorized", &[], b"who are you?");
        }
        let scope = asked.path.contains("push") || form.contains("push");
        let actions = if scope { r#"["pull","push"]"# } else { r#"["pull"]"# };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = format!(r#"{{"typ":"JWT","alg":"ES256","x5c":["{}"]}}"#, base64(&self.der, false));
        let claims = format!(
            r#"{{"iss":"test","sub":"user","aud":"test","exp":{},"nbf":{},"iat":{now},"jti":"1","access":[{{"type":"repository","name":"team/algo","actions":{actions}}}]}}"#,
            now + 300,
            now - 10
        );
        let signed = format!("{}.{}", base64(header.as_bytes(), true), base64(claims.as_bytes(), true));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", base64(signature.as_ref(), true));
        let name = if asked.method == "POST" { "access_token" } else { "token" };
        said(
            "200 OK",
            &[("Content-Type", "application/json")],
            format!(r#"{{"{name}":"{token}"}}"#).as_bytes(),
        )
    }
}

/// Base64, for URLs without padding.
fn base64(bytes: &[u8], for_urls: bool) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]);
            text.push(if place <= three.len() { letter } else { '=' });
        }
    }
    match for_urls {
        true => text.replace('+', "-").replace('/', "_").replace('=', ""),
        false => text,
    }
}
