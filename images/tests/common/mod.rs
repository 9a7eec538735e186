//! What the tests of registries share: a real one, an image, and servers of a few lines.
#![allow(dead_code, reason = "each test program uses some of it")]

pub(crate) mod faulty;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use attestations::Repository;
use images::layer::{Compression, Normaliser, from_upper};
use images::registry::Statement;
use images::{Config, Image, Store};
use testing::Registry;

/// A real registry without a login; `None`, recorded as a skip, where there is none.
#[track_caller]
pub(crate) fn registry() -> Option<Registry> {
    registry_with("")
}

/// One with more lines of configuration.
#[track_caller]
pub(crate) fn registry_with(more: &str) -> Option<Registry> {
    testing::has_programs(&["docker-registry"]).then(|| Registry::start_with(more))
}

/// A small image, several members of gzip long.
pub(crate) fn image(store: &Store, compression: Compression) -> Image {
    let upper = tempfile::tempdir().unwrap();
    // Several members of gzip, incompressible in part.
    let noise: Vec<u8> = (0..3_500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(upper.path().join("noise"), noise).unwrap();
    std::fs::create_dir(upper.path().join("d")).unwrap();
    std::fs::write(upper.path().join("d/f"), b"hello").unwrap();
    std::fs::hard_link(upper.path().join("d/f"), upper.path().join("d/g")).unwrap();
    std::os::unix::fs::symlink("f", upper.path().join("d/s")).unwrap();
    let layer = from_upper(store, upper.path(), &[], 1000, compression, Normaliser::default())
        .unwrap()
        .layer
        .unwrap()
        .layer()
        .unwrap();
    let config = Config {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: images::image::RootFs { kind: "layers".into(), diff_ids: vec![layer.diff_id] },
        ..Config::default()
    };
    Image::assemble(store, &config, vec![layer.descriptor]).unwrap()
}

/// A statement that is to be attached, of a kind of its own.
pub(crate) fn statement(bundle: &[u8]) -> Statement<'_> {
    Statement { bundle, predicate_type: "https://example.org/p", created: "2026-01-01T00:00:00Z" }
}

/// The repository of these tests on a host.
pub(crate) fn repository(host: &str) -> Repository {
    format!("{host}/team/algo").parse().unwrap()
}

/// Request lines with the Authorization that came along.
pub(crate) type Requests = Arc<Mutex<Vec<String>>>;

/// Answers each request by `answer(request line)`; keeps request lines and Authorization headers.
pub(crate) fn serve(listener: TcpListener, answer: impl Fn(&str) -> String + Send + 'static) -> Requests {
    let log = Requests::default();
    let kept = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            if reader.read_line(&mut line).is_err() {
                continue;
            }
            let mut entry = line.trim().to_owned();
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap_or(0) <= 2 {
                    break;
                }
                if header.to_lowercase().starts_with("authorization:") {
                    entry.push_str(&format!(" | {}", header.trim()))
                }
            }
            kept.lock().unwrap().push(entry);
            let _ = stream.write_all(answer(line.trim()).as_bytes());
        }
    });
    log
}

/// A whole answer.
pub(crate) fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}
