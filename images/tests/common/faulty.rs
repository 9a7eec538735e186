//! A registry that has what a store has, and does one thing wrong.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use attestations::Digest;
use images::{Image, Store};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct StandInRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// How many requests of the same method and path there were before.
    pub(crate) before: usize,
}

impl StandInRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A status line's rest, headers and a body, as they are to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) status: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What `Content-Length` says.
    pub(crate) length: usize,
    /// Whether nothing more comes, and the connection stays open.
    pub(crate) stalls: bool,
}

pub(crate) fn said(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Said {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Said { status: status.to_owned(), headers, body: body.to_vec(), length: body.len(), stalls: false }
}

/// A server on a loopback address of its own choice, and what it was asked.
pub(crate) struct Faulty {
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<StandInRequest>>>,
}

impl Faulty {
    pub(crate) fn new(answer: impl Fn(&StandInRequest) -> Said + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1", answer)
    }

    pub(crate) fn at(
        address: &str,
        answer: impl Fn(&StandInRequest) -> Said + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || talk(&stream.unwrap(), &log, &*answer));
            }
        });
        Self { host, asked }
    }

    /// A registry that serves a store's image, as far as `wrong` says nothing else.
    pub(crate) fn serving(
        store: &Store,
        image: &Image,
        wrong: impl Fn(&StandInRequest) -> Option<Said> + Send + Sync + 'static,
    ) -> Self {
        let (store, image) = (store.clone(), image.clone());
        Self::new(move |asked| wrong(asked).unwrap_or_else(|| right(&store, &image, asked)))
    }

    pub(crate) fn asked(&self) -> Vec<StandInRequest> {
        self.asked.lock().unwrap().clone()
    }

    /// The requests whose path holds these words.
    pub(crate) fn asked_for(&self, words: &str) -> Vec<StandInRequest> {
        self.asked().into_iter().filter(|asked| asked.path.contains(words)).collect()
    }
}

/// What a registry in order says.
pub(crate) fn right(store: &Store, image: &Image, asked: &StandInRequest) -> Said {
    let (kind, version) = match asked.path.split_once("/manifests/") {
        Some((_, version)) => ("application/vnd.oci.image.manifest.v1+json", version),
        None => ("application/octet-stream", asked.path.rsplit('/').next().unwrap()),
    };
    let digest = version.parse::<Digest>().unwrap_or(image.digest());
    match std::fs::read(store.path_of(&digest)) {
        Ok(bytes) => said("200 OK", &[("Content-Type", kind)], &bytes),
        Err(_) => said("404 Not Found", &[], b"not here"),
    }
}

fn talk(stream: &TcpStream, log: &Mutex<Vec<StandInRequest>>, answer: &dyn Fn(&StandInRequest) -> Said) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let asked = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|one| (&one.method, &one.path) == (&method, &path)).count();
        log.push(StandInRequest { method, path, headers, body, before });
        log.last().unwrap().clone()
    };
    let said = answer(&asked);
    let mut head =
        format!("HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n", said.status, said.length);
    for (name, value) in &said.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut out = stream;
    let _ = out.write_all(format!("{head}\r\n").as_bytes());
    if asked.method != "HEAD" {
        let _ = out.write_all(&said.body);
    }
    if said.stalls {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
