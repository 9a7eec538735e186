//! A front before a real registry that behaves like registries and proxies that were met in the wild.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the front does differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes the tag `sha256-HEX` for the digest `sha256:HEX`, and has no referrers API.
    TagIsDigest,
    /// Besides that, takes no tag that begins so.
    NoSuchTags,
    /// Answers the referrers API with this status line and body.
    Referrers(&'static str, &'static str),
    /// Says that it lists what is attached, and does not.
    Promises,
    /// Answers with an image of an index where the client takes images as well.
    ChoosesByAccept,
    /// Knows no ranges without an end, and breaks off each large blob that is asked for as a whole.
    NoOpenRanges,
    /// Takes what is attached to an image only when it has the image.
    SubjectFirst,
    /// Loses the first manifest with a subject although it said that it has it.
    LosesOne,
}

/// A front, on a loopback port of its own; it ends with the test.
pub struct Front {
    host: String,
}

impl Front {
    /// One before a registry, such as `127.0.0.1:5000`.
    pub fn before(backend: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let backend = backend.to_owned();
        let lost = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (backend, lost) = (backend.clone(), lost.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    // A client that goes away in the middle is no failure of the front.
                    if let Some(request) = Request::read(&stream) {
                        let _ = stream.write_all(&answer(manner, &backend, request, &lost));
                    }
                });
            }
        });
        Self { host }
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// A request with its body.
#[derive(Clone)]
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self { method, path, headers, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body = vec![0; length];
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn subject(&self) -> Option<String> {
        let manifest: Value = serde_json::from_slice(&self.body).ok()?;
        Some(manifest.pointer("/subject/digest")?.as_str()?.to_owned())
    }

    /// The tag `sha256-HEX`, where the path ends with it.
    fn referrers_tag(&self) -> Option<&str> {
        let (_, tag) = self.path.rsplit_once("/manifests/")?;
        let hex = tag.strip_prefix("sha256-")?;
        (hex.len() == 64).then_some(tag)
    }

    /// What the registry behind answers, as it is sent.
    fn forward(&self, backend: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(backend).unwrap();
        let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "connection") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream.write_all(&self.body).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

fn reply(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .into()
}

fn body_of(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    &answer[end..]
}

fn answer(
    manner: Manner,
    backend: &str,
    mut request: Request,
    lost: &std::sync::atomic::AtomicBool,
) -> Vec<u8> {
    let refused = |message: &str| {
        let body = format!(r#"{{"errors":[{{"code":"MANIFEST_INVALID","message":"{message}"}}]}}"#);
        reply("400 Bad Request", "Content-Type: application/json\r\n", &body)
    };
    let is_put = request.method == "PUT" && request.path.contains("/manifests/");
    let asks_referrers = request.path.contains("/referrers/");
    match manner {
        Manner::Referrers(status, body) if asks_referrers => {
            reply(status, "Content-Type: text/html\r\n", body)
        }
        Manner::TagIsDigest | Manner::NoSuchTags if asks_referrers => reply("404 Not Found", "", "404\n"),
        Manner::NoSuchTags if request.path.contains("/manifests/sha256-") && is_put => {
            refused("no tag begins so")
        }
        Manner::TagIsDigest | Manner::NoSuchTags if request.referrers_tag().is_some() => {
            if is_put {
                return refused("provided digest did not match uploaded content");
            }
            request.path = request.path.replace("/sha256-", "/sha256:");
            request.forward(backend)
        }
        Manner::Promises if is_put && request.subject().is_some() => {
            let answer = request.forward(backend);
            let (line, rest) = answer.split_at(answer.windows(2).position(|two| two == b"\r\n").unwrap());
            let promise = format!("\r\nOCI-Subject: {}", request.subject().unwrap());
            [line, promise.as_bytes(), rest].concat()
        }
        Manner::SubjectFirst if is_put && request.subject().is_some() => {
            let (repository, _) = request.path.split_once("/manifests/").unwrap();
            let path = format!("{repository}/manifests/{}", request.subject().unwrap());
            let asked = Request { method: "HEAD".into(), path, body: Vec::new(), ..request.clone() };
            let asked = Request {
                headers: vec![("host".into(), backend.into()), ("accept".into(), IMAGE.into())],
                ..asked
            };
            match asked.forward(backend).starts_with(b"HTTP/1.1 200") {
                true => request.forward(backend),
                false => refused("subject manifest unknown"),
            }
        }
        Manner::LosesOne if is_put && request.subject().is_some() => {
            match lost.swap(true, std::sync::atomic::Ordering::SeqCst) {
                true => request.forward(backend),
                false => {
                    let promise = format!("OCI-Subject: {}\r\n", request.subject().unwrap());
                    reply("201 Created", &promise, "")
                }
            }
        }
        Manner::ChoosesByAccept if request.method == "GET" && request.path.contains("/manifests/") => {
            let answer = request.forward(backend);
            let takes_images = request.header("accept").is_none_or(|accept| accept.contains(IMAGE));
            let first = serde_json::from_slice::<Value>(body_of(&answer)).ok();
            let first =
                first.and_then(|index| Some(index.pointer("/manifests/0/digest")?.as_str()?.to_owned()));
            match (takes_images, first) {
                (true, Some(digest)) => {
                    let (repository, _) = request.path.split_once("/manifests/").unwrap();
                    request.path = format!("{repository}/manifests/{digest}");
                    request.forward(backend)
                }
                _ => answer,
            }
        }
        Manner::NoOpenRanges if request.method == "GET" && request.path.contains("/blobs/") => {
            let answer = match request.header("range") {
                Some(range) if range.ends_with('-') => return reply("416 Range Not Satisfiable", "", ""),
                Some(_) => return request.forward(backend),
                None => request.forward(backend),
            };
            match body_of(&answer).len() {
                short if short < 1 << 16 => answer,
                long => answer[..answer.len() - long / 2].to_vec(),
            }
        }
        _ => request.forward(backend),
    }
}
